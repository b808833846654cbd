//! Steps of prompt learning by the kernels that a GPU runs, emulated on the CPU, against their definition in float64: features
//! of dense texts, losses, and gradients by central differences.

mod host;
mod oracle;
mod prompt_case;

use clipood_cuda::Result;
use clipood_cuda::precision::Precision;
use clipood_cuda::prompt::{Batch, Loss, LossKind, PromptStep};
use host::Emulated;
use oracle::Sizes;
use prompt_case::{Case, Piece, VOCABULARY, sizes};

fn id(id: usize) -> Piece {
    Piece::Id(id)
}

/// `[start] [context] name [end]` with names of these lengths.
fn at_the_end(names: &[usize], vectors: usize) -> Vec<Vec<Piece>> {
    let prompt = |(class, length): (usize, &usize)| {
        let mut prompt = vec![id(0)];
        prompt.extend((0..vectors).map(Piece::Context));
        prompt.extend((0..*length).map(|i| id(2 + (class * 3 + i) % (VOCABULARY - 2))));
        prompt.push(id(1));
        prompt
    };
    names.iter().enumerate().map(prompt).collect()
}

const F32: [f64; 3] = [3e-6, 1e-5, 3e-5];
const F16: [f64; 3] = [3e-3, 2e-2, 2e-2];
const BF16: [f64; 3] = [3e-2, 2e-1, 1.5e-1];

#[test]
fn coop_behind_a_shared_prefix() -> Result<()> {
    let case = Case::new(
        sizes(64, 1, 2, true),
        at_the_end(&[2, 1, 4, 3, 9, 2, 7], 4),
        5,
        4,
    );
    case.check(Precision::F32, oracle::Loss::Coop, F32)?;
    case.check(Precision::F16, oracle::Loss::Coop, F16)?;
    case.check(Precision::Bf16, oracle::Loss::Coop, BF16)
}

#[test]
fn locoop_and_sct() -> Result<()> {
    let case = Case::new(sizes(64, 2, 2, true), at_the_end(&[1, 2, 3, 1, 2], 3), 4, 3);
    for loss in [
        oracle::Loss::Locoop(0.25, 2),
        oracle::Loss::Sct(0.25, 2),
        oracle::Loss::Sct(5.0, 1),
    ] {
        case.check(Precision::F32, loss, F32)?;
    }
    case.check(Precision::F16, oracle::Loss::Sct(0.25, 2), F16)?;
    // No patch is selected: fewer classes than K.
    case.check(Precision::F32, oracle::Loss::Locoop(0.25, 5), F32)
}

#[test]
fn gelu_and_a_width_that_warps_do_not_divide() -> Result<()> {
    let case = Case::new(sizes(96, 3, 1, false), at_the_end(&[2, 5, 1], 2), 3, 2);
    case.check(Precision::F32, oracle::Loss::Coop, F32)?;
    case.check(Precision::F16, oracle::Loss::Coop, F16)
}

#[test]
fn a_context_of_each_class() -> Result<()> {
    let mut prompts = at_the_end(&[2, 1, 4, 3], 3);
    for (class, prompt) in prompts.iter_mut().enumerate() {
        for piece in prompt {
            if let Piece::Context(vector) = piece {
                *vector += class * 3;
            }
        }
    }
    let case = Case::new(sizes(64, 1, 2, true), prompts, 1, 12);
    case.check(Precision::F32, oracle::Loss::Locoop(0.25, 1), F32)?;
    case.check(Precision::F16, oracle::Loss::Coop, F16)
}

#[test]
fn the_name_in_the_middle_and_in_front() -> Result<()> {
    let middle = vec![
        vec![
            id(0),
            Piece::Context(0),
            id(3),
            Piece::Context(1),
            id(2),
            id(1),
        ],
        vec![
            id(0),
            Piece::Context(0),
            id(4),
            id(5),
            Piece::Context(1),
            id(2),
            id(1),
        ],
        vec![
            id(0),
            Piece::Context(0),
            id(6),
            Piece::Context(1),
            id(2),
            id(1),
        ],
    ];
    Case::new(sizes(64, 1, 2, true), middle, 2, 2).check(
        Precision::F32,
        oracle::Loss::Coop,
        F32,
    )?;
    let front = vec![
        vec![
            id(0),
            id(3),
            Piece::Context(0),
            Piece::Context(1),
            id(2),
            id(1),
        ],
        vec![
            id(0),
            id(4),
            id(5),
            Piece::Context(0),
            Piece::Context(1),
            id(2),
            id(1),
        ],
    ];
    Case::new(sizes(64, 1, 2, true), front, 1, 2).check(Precision::F32, oracle::Loss::Coop, F32)
}

#[test]
fn a_prefix_and_names_of_more_than_32_tokens() -> Result<()> {
    let case = Case::new(sizes(64, 1, 2, true), at_the_end(&[36, 1, 20], 35), 36, 35);
    case.check(Precision::F32, oracle::Loss::Coop, F32)?;
    case.check(Precision::F16, oracle::Loss::Coop, F16)
}

#[test]
fn a_batch_that_does_not_fit_is_refused() -> Result<()> {
    let case = Case::new(sizes(64, 1, 1, true), at_the_end(&[1, 2], 2), 3, 2);
    let loss = Loss {
        kind: LossKind::Coop,
        lambda: 0.0,
        top_k: 1,
    };
    let mut step = case.step(Precision::F32, loss, false, false)?;
    let (context, images) = (case.context(), Batch::Features(&case.images, &[]));
    assert!(step.run(&context[1..], images, &case.labels).is_err());
    assert!(step.run(&context, images, &case.labels[1..]).is_err());
    assert!(step.run(&context, images, &[0, 1, 2, 0, 0]).is_err());
    assert!(
        step.run(
            &context,
            Batch::Features(&case.images[1..], &[]),
            &case.labels
        )
        .is_err()
    );
    assert!(
        step.run(&context, Batch::Rows(&[0; 5]), &case.labels)
            .is_err()
    );
    assert!(step.run(&context, images, &case.labels).is_ok());
    Ok(())
}

const COOP: Loss = Loss {
    kind: LossKind::Coop,
    lambda: 0.0,
    top_k: 1,
};

#[test]
fn equal_class_names_are_told_apart_by_their_order() -> Result<()> {
    let mut prompts = at_the_end(&[2, 1, 4], 2);
    prompts.push(prompts[0].clone());
    let case = Case::new(sizes(64, 1, 1, true), prompts, 3, 2);
    case.check(Precision::F32, oracle::Loss::Locoop(0.25, 1), F32)
}

#[test]
fn a_single_class_has_nothing_to_learn() -> Result<()> {
    // All but the end of the only prompt is shared.
    let case = Case::new(sizes(64, 1, 2, true), at_the_end(&[3], 4), 8, 4);
    for precision in [Precision::F32, Precision::F16] {
        let found = case.run(
            &mut case.step(precision, COOP, false, false)?,
            COOP,
            &case.context(),
        )?;
        assert_eq!((found.loss, found.right), (0.0, 5));
        assert!(found.gradient.iter().all(|value| value.abs() < 1e-5));
    }
    Ok(())
}

#[test]
fn what_is_not_a_number_reaches_the_loss() -> Result<()> {
    let mut case = Case::new(sizes(64, 1, 1, true), at_the_end(&[1, 2], 2), 3, 2);
    let huge = vec![1e30; case.contexts * case.sizes.width];
    for precision in [Precision::F32, Precision::F16] {
        let mut step = case.step(precision, COOP, false, false)?;
        let found = case.run(&mut step, COOP, &huge)?;
        assert!(!found.loss.is_finite() || found.gradient.iter().all(|value| value.is_finite()));
        // The next step is not touched by it.
        assert!(case.run(&mut step, COOP, &case.context())?.loss.is_finite());
    }
    case.images[3] = f32::NAN;
    let mut step = case.step(Precision::F32, COOP, false, false)?;
    assert!(case.run(&mut step, COOP, &case.context())?.loss.is_nan());
    Ok(())
}

#[test]
fn sizes_without_kernels_are_refused() {
    let heads_of_24 = sizes(96, 4, 1, true);
    let odd_features = Sizes {
        dim: 25,
        ..sizes(64, 1, 1, true)
    };
    for sizes in [heads_of_24, odd_features, sizes(40, 1, 1, true)] {
        let case = Case::new(sizes, at_the_end(&[1, 2], 2), 3, 2);
        assert!(
            case.step(Precision::F16, COOP, false, false).is_err(),
            "{sizes:?}"
        );
    }
    let mut case = Case::new(sizes(64, 1, 1, true), at_the_end(&[1, 2], 2), 3, 2);
    case.tower.remove("transformer.resblocks.0.mlp.c_fc.bias");
    assert!(case.step(Precision::F16, COOP, false, false).is_err());
}

#[test]
fn steps_that_go_on_elsewhere_end_with_equal_bits() -> Result<()> {
    let case = Case::new(sizes(64, 1, 2, true), at_the_end(&[2, 1, 3], 3), 4, 3);
    let descend = |step: &mut PromptStep<Emulated>, context: &mut Vec<f32>| -> Result<()> {
        let found = case.run(step, COOP, context)?;
        context
            .iter_mut()
            .zip(found.gradient)
            .for_each(|(value, g)| *value -= 0.05 * g);
        Ok(())
    };
    let (mut whole, mut resumed) = (case.context(), case.context());
    let mut step = case.step(Precision::F16, COOP, false, true)?;
    for _ in 0..4 {
        descend(&mut step, &mut whole)?;
    }
    for _ in 0..2 {
        let mut step = case.step(Precision::F16, COOP, false, false)?;
        descend(&mut step, &mut resumed)?;
        descend(&mut step, &mut resumed)?;
    }
    assert_eq!(whole, resumed);
    Ok(())
}
