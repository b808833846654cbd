//! Steps of prompt learning by the kernels that a GPU runs, emulated on the CPU, against their definition in float64: features
//! of dense texts, losses, and gradients by central differences.

mod host;
mod oracle;

use clipood_cuda::Result;
use clipood_cuda::card::Card;
use clipood_cuda::precision::Precision;
use clipood_cuda::prompt::{
    Batch, Loss, LossKind, PromptPlan, PromptStep, PromptTask, PromptTokens, StepResult,
};
use clipood_cuda::rows::Activation;
use clipood_cuda::text::weights::TextSizes;
use host::Emulated;
use oracle::{Exact, Sizes, Tower, apart, normals, random_tower, unit_rows};

const VOCABULARY: usize = 20;
const SCALE: f64 = 30.0;
const CARD: Card = Card {
    multiprocessors: 3,
    shared_per_block: 232_448,
    shared_per_multiprocessor: 233_472,
};

/// A token of a prompt: an id, or a vector of the context.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Piece {
    Id(usize),
    Context(usize),
}

struct Case {
    sizes: Sizes,
    tower: Tower,
    prompts: Vec<Vec<Piece>>,
    shared: usize,
    contexts: usize,
    images: Vec<f32>,
    patches: Vec<f32>,
    labels: Vec<i32>,
}

fn sizes(width: usize, heads: usize, layers: usize, quick_gelu: bool) -> Sizes {
    Sizes {
        width,
        heads,
        layers,
        context: 77,
        dim: 24,
        quick_gelu,
    }
}

impl Case {
    /// Prompts that share their first `shared` tokens, and random images; labels go round.
    fn new(sizes: Sizes, prompts: Vec<Vec<Piece>>, shared: usize, contexts: usize) -> Self {
        let (images, patches) = (5, 3);
        let mut state = 7;
        let mut random = |rows: usize| {
            let mut values = normals(&mut state, rows * sizes.dim, 1.0);
            unit_rows(&mut values, sizes.dim);
            values
        };
        Self {
            sizes,
            tower: random_tower(&sizes, VOCABULARY, 3),
            shared,
            contexts,
            images: random(images),
            patches: random(images * patches),
            labels: (0..images).map(|i| (i % prompts.len()) as i32).collect(),
            prompts,
        }
    }

    fn context(&self) -> Vec<f32> {
        normals(&mut 11, self.contexts * self.sizes.width, 0.2)
    }

    fn step(
        &self,
        precision: Precision,
        loss: Loss,
        descending: bool,
        resident: bool,
    ) -> Result<PromptStep<Emulated>> {
        let Sizes {
            width,
            heads,
            layers,
            context,
            dim,
            quick_gelu,
        } = self.sizes;
        let own = self
            .prompts
            .iter()
            .flat_map(|prompt| &prompt[self.shared..]);
        let index: Vec<i32> = self.prompts[0][..self.shared]
            .iter()
            .chain(own)
            .map(|piece| match piece {
                Piece::Id(id) => *id as i32,
                Piece::Context(vector) => (VOCABULARY + vector) as i32,
            })
            .collect();
        let lengths: Vec<usize> = self
            .prompts
            .iter()
            .map(|prompt| prompt.len() - self.shared)
            .collect();
        let patches = if loss.kind == LossKind::Coop {
            0
        } else {
            self.patches.len() / self.images.len()
        };
        let local: &[f32] = if patches > 0 { &self.patches } else { &[] };
        let task = PromptTask {
            parameters: &|name| self.tower.get(name).map(Vec::as_slice),
            sizes: TextSizes {
                width,
                heads,
                layers,
                context,
                dim,
                activation: if quick_gelu {
                    Activation::QuickGelu
                } else {
                    Activation::Gelu
                },
            },
            precision,
            tokens: PromptTokens {
                fixed: &self.tower["token_embedding.weight"],
                index: &index,
                shared: self.shared,
                lengths: &lengths,
                contexts: self.contexts,
            },
            loss,
            logit_scale: SCALE as f32,
            images: self.labels.len(),
            patches,
            resident: resident.then_some((self.images.as_slice(), local)),
        };
        let mut plan = PromptPlan::new(&task, &CARD)?;
        let program = plan.program().clone();
        let device = Emulated::new(&program, plan.space(), descending);
        PromptStep::new(plan, device)
    }

    fn run(
        &self,
        step: &mut PromptStep<Emulated>,
        loss: Loss,
        context: &[f32],
    ) -> Result<StepResult> {
        let local: &[f32] = if loss.kind == LossKind::Coop {
            &[]
        } else {
            &self.patches
        };
        step.run(context, Batch::Features(&self.images, local), &self.labels)
    }

    fn exact_features(&self, exact: &Exact, context: &[f64]) -> Vec<Vec<f64>> {
        let width = self.sizes.width;
        let table = &self.tower["token_embedding.weight"];
        let texts = self.prompts.iter().map(|prompt| {
            let mut tokens = Vec::with_capacity(prompt.len() * width);
            for piece in prompt {
                match piece {
                    Piece::Id(id) => tokens.extend(
                        table[id * width..(id + 1) * width]
                            .iter()
                            .map(|v| f64::from(*v)),
                    ),
                    Piece::Context(vector) => {
                        tokens.extend(&context[vector * width..(vector + 1) * width])
                    }
                }
            }
            exact.feature(&tokens)
        });
        texts.collect()
    }

    fn exact_loss(
        &self,
        exact: &Exact,
        loss: oracle::Loss,
        context: &[f64],
    ) -> (f64, usize, usize) {
        let texts = self.exact_features(exact, context);
        oracle::loss(
            loss,
            &texts,
            &self.images,
            &self.patches,
            &self.labels,
            SCALE,
        )
    }

    /// Features, loss and gradient within the tolerances `[features, loss, gradient]`.
    fn check(
        &self,
        precision: Precision,
        loss: oracle::Loss,
        [features, value, gradient]: [f64; 3],
    ) -> Result<()> {
        let kind = match loss {
            oracle::Loss::Coop => Loss {
                kind: LossKind::Coop,
                lambda: 0.0,
                top_k: 1,
            },
            oracle::Loss::Locoop(lambda, top_k) => Loss {
                kind: LossKind::Locoop,
                lambda: lambda as f32,
                top_k,
            },
            oracle::Loss::Sct(lambda, top_k) => Loss {
                kind: LossKind::Sct,
                lambda: lambda as f32,
                top_k,
            },
        };
        let context = self.context();
        let mut step = self.step(precision, kind, false, false)?;
        let found = self.run(&mut step, kind, &context)?;
        let exact = Exact::new(&self.tower, self.sizes);
        let wide: Vec<f64> = context.iter().map(|v| f64::from(*v)).collect();
        let mut texts = self.exact_features(&exact, &wide);
        for text in &mut texts {
            let length = text.iter().map(|v| v * v).sum::<f64>().sqrt();
            text.iter_mut().for_each(|v| *v /= length);
        }
        let error = apart(&step.features(&context)?, &texts.concat());
        assert!(
            error < features,
            "{precision:?} {loss:?}: features {error:e}"
        );
        let (expected, selected, right) = self.exact_loss(&exact, loss, &wide);
        assert!(
            (f64::from(found.loss) - expected).abs() < value * expected.abs(),
            "{} for {expected}",
            found.loss
        );
        assert_eq!(
            (found.selected, found.right),
            (selected, right),
            "{precision:?} {loss:?}"
        );
        // Some coordinates, of every vector: their neighbours go through the same code.
        let (mut sampled, mut differences) = (Vec::new(), Vec::new());
        for at in (0..wide.len()).step_by((wide.len() / 40).max(1) | 1) {
            let moved = |by: f64| {
                let mut context = wide.clone();
                context[at] += by;
                self.exact_loss(&exact, loss, &context).0
            };
            differences.push((moved(1e-4) - moved(-1e-4)) / 2e-4);
            sampled.push(found.gradient[at]);
        }
        let error = apart(&sampled, &differences);
        assert!(
            error < gradient,
            "{precision:?} {loss:?}: gradient {error:e}"
        );
        // The other order of threads and the features kept on the device: the same to the bit.
        let mut again = self.step(precision, kind, true, true)?;
        let rows: Vec<i32> = (0..self.labels.len() as i32).collect();
        assert_eq!(
            again.run(&context, Batch::Rows(&rows), &self.labels)?,
            found
        );
        Ok(())
    }
}

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
