//! The frozen transformer under training against its definition in double precision: outputs, and gradients as differences.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use clipood_kernels::activation::Activation;
use clipood_kernels::attention::Attention;
use clipood_kernels::block::Block;
use clipood_kernels::matrix::Affine;
use clipood_kernels::norm::Norm;
use clipood_kernels::tower::{Tape, Tower};
use proptest::prelude::*;

const WIDTH: usize = 8;
const HEADS: usize = 2;
const HIDDEN: usize = 4 * WIDTH;

fn values(n: usize, seed: usize, scale: f32) -> Vec<f32> {
    let mix = |i: usize| ((i + 1) * (seed + 7) * 2_654_435_761) >> 7;
    (0..n)
        .map(|i| ((mix(i) % 2001) as f32 / 1000.0 - 1.0) * scale)
        .collect()
}

/// Parameters of one block: norm, in_proj, out_proj, norm, c_fc, c_proj; factor and offset of each.
type Parameters = [(Vec<f32>, Vec<f32>); 6];

fn parameters(seed: usize) -> Parameters {
    let mut next = seed * 100;
    let mut pair = |factor: usize, offset: usize, near_one: bool| {
        next += 2;
        let mut weights = values(factor, next, if near_one { 0.3 } else { 0.5 });
        if near_one {
            weights.iter_mut().for_each(|w| *w += 1.0);
        }
        (weights, values(offset, next + 1, 0.3))
    };
    [
        pair(WIDTH, WIDTH, true),
        pair(WIDTH * 3 * WIDTH, 3 * WIDTH, false),
        pair(WIDTH * WIDTH, WIDTH, false),
        pair(WIDTH, WIDTH, true),
        pair(WIDTH * HIDDEN, HIDDEN, false),
        pair(HIDDEN * WIDTH, WIDTH, false),
    ]
}

fn block(p: &Parameters, activation: Activation) -> Block<'_> {
    let norm = |i: usize| Norm {
        gamma: &p[i].0,
        beta: &p[i].1,
    };
    let affine = |i: usize| Affine {
        weight: &p[i].0,
        bias: &p[i].1,
    };
    Block {
        ln_1: norm(0),
        in_proj: affine(1),
        out_proj: affine(2),
        ln_2: norm(3),
        c_fc: affine(4),
        c_proj: affine(5),
        activation,
        attention: Attention {
            heads: HEADS,
            width: WIDTH,
            causal: true,
        },
    }
}

/// One text through one block, token by token, in double precision.
fn naive_block(x: &[Vec<f64>], p: &Parameters, activation: Activation) -> Vec<Vec<f64>> {
    let norm = |x: &[f64], i: usize| -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / WIDTH as f64;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / WIDTH as f64;
        (0..WIDTH)
            .map(|j| {
                (x[j] - mean) / (variance + 1e-5).sqrt() * f64::from(p[i].0[j])
                    + f64::from(p[i].1[j])
            })
            .collect()
    };
    let affine = |x: &[f64], i: usize| -> Vec<f64> {
        let n = p[i].1.len();
        (0..n)
            .map(|j| {
                let sum: f64 = (x.iter().enumerate())
                    .map(|(k, v)| v * f64::from(p[i].0[k * n + j]))
                    .sum();
                sum + f64::from(p[i].1[j])
            })
            .collect()
    };
    // Phi by its Taylor series; the arguments here are small.
    let phi = |x: f64| {
        let (mut term, mut sum) = (x, x);
        for k in 1..100 {
            term *= -x * x / (2.0 * f64::from(k));
            sum += term / f64::from(2 * k + 1);
        }
        0.5 + sum / (2.0 * std::f64::consts::PI).sqrt()
    };
    let act = |x: f64| match activation {
        Activation::Gelu => x * phi(x),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
    };
    let qkv: Vec<Vec<f64>> = x.iter().map(|x| affine(&norm(x, 0), 1)).collect();
    let head = WIDTH / HEADS;
    let mut out = Vec::new();
    for (i, x) in x.iter().enumerate() {
        let mut attended = vec![0.0; WIDTH];
        for h in 0..HEADS {
            let at = |j: usize, part: usize, k: usize| qkv[j][part * WIDTH + h * head + k];
            let scores: Vec<f64> = (0..=i)
                .map(|j| {
                    (0..head).map(|k| at(i, 0, k) * at(j, 1, k)).sum::<f64>() / (head as f64).sqrt()
                })
                .collect();
            let total: f64 = scores.iter().map(|s| s.exp()).sum();
            for k in 0..head {
                attended[h * head + k] =
                    (0..=i).map(|j| scores[j].exp() / total * at(j, 2, k)).sum();
            }
        }
        let middle: Vec<f64> = affine(&attended, 2)
            .iter()
            .zip(x)
            .map(|(a, b)| a + b)
            .collect();
        let hidden: Vec<f64> = affine(&norm(&middle, 3), 4).into_iter().map(act).collect();
        out.push(
            affine(&hidden, 5)
                .iter()
                .zip(&middle)
                .map(|(a, b)| a + b)
                .collect(),
        );
    }
    out
}

/// The last token of each text after all blocks.
fn naive(
    x: &[f64],
    shared: usize,
    lengths: &[usize],
    blocks: &[Parameters],
    activation: Activation,
) -> Vec<f64> {
    let rows: Vec<Vec<f64>> = x.chunks_exact(WIDTH).map(<[f64]>::to_vec).collect();
    let mut from = shared;
    let mut out = Vec::new();
    for length in lengths {
        let mut text = rows[..shared].to_vec();
        text.extend_from_slice(&rows[from..from + length]);
        from += length;
        for p in blocks {
            text = naive_block(&text, p, activation);
        }
        out.extend(text.pop().unwrap());
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn outputs_and_gradients_are_those_of_the_definition(
        shared in 0usize..5,
        lengths in prop::collection::vec(1usize..5, 1..7),
        depth in 1usize..4,
        quick: bool,
        seed in 0usize..1000,
    ) {
        let activation = if quick { Activation::QuickGelu } else { Activation::Gelu };
        let blocks: Vec<Parameters> = (0..depth).map(|i| parameters(seed + i)).collect();
        let tower = Tower { blocks: blocks.iter().map(|p| block(p, activation)).collect() };
        let rows = shared + lengths.iter().sum::<usize>();
        let x = values(rows * WIDTH, seed + 50, 1.0);
        let weights = values(lengths.len() * WIDTH, seed + 51, 1.0);
        let mut tape = Tape::default();
        // A tape that other texts have used before.
        tower.forward(&values(3 * WIDTH, 1, 1.0), 1, &[2], &mut tape);
        let found = tower.forward(&x, shared, &lengths, &mut tape);
        let dx = tower.backward(&mut tape, &weights);

        let exact: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
        let expected = naive(&exact, shared, &lengths, &blocks, activation);
        prop_assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            prop_assert!((f64::from(*found) - expected).abs() < 1e-4 * expected.abs().max(1.0));
        }
        let loss = |x: &[f64]| -> f64 {
            let out = naive(x, shared, &lengths, &blocks, activation);
            out.iter().zip(&weights).map(|(o, w)| o * f64::from(*w)).sum()
        };
        prop_assert_eq!(dx.len(), x.len());
        let largest = dx.iter().fold(1f32, |a, b| a.max(b.abs()));
        for i in (0..x.len()).step_by(1 + x.len() / 40) {
            let moved = |by: f64| {
                let mut moved = exact.clone();
                moved[i] += by;
                loss(&moved)
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let off = (f64::from(dx[i]) - expected).abs();
            prop_assert!(off < 2e-4 * f64::from(largest), "value {i}: {} and {expected}", dx[i]);
        }
    }
}

#[test]
fn texts_do_not_depend_on_their_neighbours() {
    let blocks: Vec<Parameters> = (0..2).map(parameters).collect();
    let tower = Tower {
        blocks: blocks
            .iter()
            .map(|p| block(p, Activation::QuickGelu))
            .collect(),
    };
    let lengths = [3, 1, 4, 2];
    let x = values((2 + 10) * WIDTH, 9, 1.0);
    let all = tower.forward(&x, 2, &lengths, &mut Tape::default());
    let mut from = 2;
    for (i, length) in lengths.iter().enumerate() {
        let mut own = x[..2 * WIDTH].to_vec();
        own.extend_from_slice(&x[from * WIDTH..(from + length) * WIDTH]);
        from += length;
        let one = tower.forward(&own, 2, &[*length], &mut Tape::default());
        for (a, b) in one.iter().zip(&all[i * WIDTH..]) {
            assert!((a - b).abs() < 1e-5, "text {i}: {a} and {b}");
        }
    }
}
