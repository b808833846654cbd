//! The text encoder by the kernels that a GPU runs, emulated on the CPU, against its definition in float64.

mod host;
mod oracle;

use clipood_cuda::Result;
use clipood_cuda::card::Card;
use clipood_cuda::precision::Precision;
use clipood_cuda::rows::Activation;
use clipood_cuda::text::encoder::{TextPass, TextPlan};
use clipood_cuda::text::weights::TextSizes;
use host::Emulated;
use oracle::{Exact, Sizes, apart, next, random_tower};

const VOCABULARY: usize = 50;
const CARD: Card = Card {
    multiprocessors: 2,
    shared_per_block: 232_448,
    shared_per_multiprocessor: 233_472,
};

/// Random texts of these lengths, start and end included.
fn texts(lengths: &[usize]) -> Vec<Vec<u32>> {
    let mut state = 5;
    let mut text = |length: &usize| {
        let own = (2..*length).map(|_| (2 + next(&mut state) % (VOCABULARY as u64 - 2)) as u32);
        let mut text = vec![0];
        text.extend(own);
        text.push(1);
        text
    };
    lengths.iter().map(&mut text).collect()
}

fn check(
    sizes: Sizes,
    lengths: &[usize],
    rows: usize,
    (precision, tolerance): (Precision, f64),
) -> Result<()> {
    let tower = random_tower(&sizes, VOCABULARY, 1);
    let parameters = |name: &str| tower.get(name).map(Vec::as_slice);
    let of = TextSizes {
        width: sizes.width,
        heads: sizes.heads,
        layers: sizes.layers,
        context: sizes.context,
        dim: sizes.dim,
        activation: if sizes.quick_gelu {
            Activation::QuickGelu
        } else {
            Activation::Gelu
        },
    };
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let texts = texts(lengths);
    let borrowed: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let encode = |descending: bool| -> Result<Vec<f32>> {
        let mut plan = TextPlan::new(&parameters, (&of, precision), (longest, rows), &CARD)?;
        let program = plan.program().clone();
        let device = Emulated::new(&program, plan.space(), descending);
        TextPass::new(plan, device).encode(&borrowed, &parameters)
    };
    let found = encode(false)?;
    let exact = Exact::new(&tower, sizes);
    let expected: Vec<f64> = texts
        .iter()
        .flat_map(|text| {
            let table = &tower["token_embedding.weight"];
            let token =
                |id: &u32| &table[*id as usize * sizes.width..(*id as usize + 1) * sizes.width];
            let tokens: Vec<f64> = text.iter().flat_map(token).map(|v| f64::from(*v)).collect();
            exact.feature(&tokens)
        })
        .collect();
    let error = apart(&found, &expected);
    assert!(error < tolerance, "{precision:?} {lengths:?}: {error:e}");
    assert_eq!(encode(true)?, found);
    Ok(())
}

const TINY: Sizes = Sizes {
    width: 64,
    heads: 2,
    layers: 2,
    context: 77,
    dim: 40,
    quick_gelu: true,
};

#[test]
fn short_texts_in_several_batches() -> Result<()> {
    let lengths = [2, 3, 9, 12, 5, 30, 7, 8, 2, 2, 11];
    for format in [
        (Precision::F32, 2e-6),
        (Precision::F16, 3e-3),
        (Precision::Bf16, 3e-2),
    ] {
        check(TINY, &lengths, 40, format)?;
    }
    Ok(())
}

#[test]
fn texts_that_fill_the_context() -> Result<()> {
    for format in [(Precision::F32, 2e-6), (Precision::F16, 3e-3)] {
        check(TINY, &[77, 4, 50, 77], 160, format)?;
    }
    Ok(())
}

#[test]
fn wide_towers_and_exact_gelu() -> Result<()> {
    let wide = Sizes {
        width: 320,
        heads: 5,
        layers: 1,
        quick_gelu: false,
        ..TINY
    };
    check(wide, &[6, 17], 40, (Precision::F32, 2e-6))?;
    check(wide, &[6, 17], 40, (Precision::F16, 3e-3))
}

#[test]
fn texts_that_do_not_fit_are_refused() -> Result<()> {
    let tower = random_tower(&TINY, VOCABULARY, 1);
    let parameters = |name: &str| tower.get(name).map(Vec::as_slice);
    let of = TextSizes {
        width: 64,
        heads: 2,
        layers: 2,
        context: 77,
        dim: 40,
        activation: Activation::QuickGelu,
    };
    let plan = |longest| TextPlan::new(&parameters, (&of, Precision::F32), (longest, 64), &CARD);
    assert!(plan(78).is_err());
    let mut plan = plan(32)?;
    let program = plan.program().clone();
    let device = Emulated::new(&program, plan.space(), false);
    let mut pass = TextPass::new(plan, device);
    for text in [&[0u32] as &[u32], &[0; 33], &[0, 60]] {
        assert!(pass.encode(&[text], &parameters).is_err(), "{text:?}");
    }
    assert!(pass.encode(&[&[0, 1], &[2, 1]], &parameters).is_err());
    assert_eq!(pass.encode(&[&[0, 1]], &parameters)?.len(), 40);
    assert!(pass.encode(&[], &parameters)?.is_empty());
    Ok(())
}
