//! The inner loops over one row, written so that the compiler turns them into vector code for the CPU at hand.
//!
//! Sums run in eight fixed lanes, so a result does not depend on the instruction set or on the number of threads.

use pulp::Arch;

const LANES: usize = 8;

/// Runs `work` compiled for the best instruction set of this CPU.
#[inline(always)]
fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}

#[inline(always)]
fn total(lanes: [f64; LANES]) -> f64 {
    ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5]))
        + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]))
}

/// `exp(x)` to about 1e-14 relative; arguments are held within [-708, 709], so the result is never 0 or infinite.
///
/// `x = k ln 2 + r`, a Taylor polynomial of degree 11 for `exp(r)`, |r| <= ln 2 / 2, and `2^k` through the exponent bits.
#[inline(always)]
fn exp(x: f64) -> f64 {
    const LOG2_E: f64 = std::f64::consts::LOG2_E;
    // ln 2 in two parts, the first with trailing zeros, so that k * LN_2_HIGH is exact.
    const LN_2_HIGH: f64 = f64::from_bits(0x3FE6_2E42_FEE0_0000);
    const LN_2_LOW: f64 = f64::from_bits(0x3DEA_39EF_3579_3C76);
    // Adding 1.5 * 2^52 rounds to an integer and leaves it in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let x = x.clamp(-708.0, 709.0);
    let shifted = x * LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (x - k * LN_2_HIGH) - k * LN_2_LOW;
    let mut p = 1.0 / 39_916_800.0;
    p = p * r + 1.0 / 3_628_800.0;
    p = p * r + 1.0 / 362_880.0;
    p = p * r + 1.0 / 40_320.0;
    p = p * r + 1.0 / 5_040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    f64::from_bits((shifted.to_bits() << 52).wrapping_add(p.to_bits()))
}

/// Sum of squares in f64.
pub(crate) fn sum_of_squares(row: &[f32]) -> f64 {
    vectorized(|| {
        let mut lanes = [0.0; LANES];
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                lanes[i] += f64::from(chunk[i]) * f64::from(chunk[i]);
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane += f64::from(*x) * f64::from(*x);
        }
        total(lanes)
    })
}

/// Squared L2 distance in f64 of two rows of one length.
pub(crate) fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    vectorized(|| {
        let mut lanes = [0.0; LANES];
        let (a, a_rest) = a.as_chunks::<LANES>();
        let (b, b_rest) = b.as_chunks::<LANES>();
        for (a, b) in a.iter().zip(b) {
            for i in 0..LANES {
                let d = f64::from(a[i]) - f64::from(b[i]);
                lanes[i] += d * d;
            }
        }
        for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
            let d = f64::from(*a) - f64::from(*b);
            *lane += d * d;
        }
        total(lanes)
    })
}

/// Dot product in f64 of two rows of one length.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    vectorized(|| {
        let mut lanes = [0.0; LANES];
        let (a, a_rest) = a.as_chunks::<LANES>();
        let (b, b_rest) = b.as_chunks::<LANES>();
        for (a, b) in a.iter().zip(b) {
            for i in 0..LANES {
                lanes[i] += a[i] * b[i];
            }
        }
        for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
            *lane += a * b;
        }
        total(lanes)
    })
}

/// Dot products in f32 of `row` with each row of `rows`.
pub(crate) fn products_with(row: &[f32], rows: &[f32], out: &mut [f32]) {
    vectorized(|| {
        for (other, out) in rows.chunks_exact(row.len()).zip(out) {
            let mut lanes = [0.0f32; 32];
            let (a, a_rest) = row.as_chunks::<32>();
            let (b, b_rest) = other.as_chunks::<32>();
            for (a, b) in a.iter().zip(b) {
                for i in 0..32 {
                    lanes[i] += a[i] * b[i];
                }
            }
            for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
                *lane += a * b;
            }
            *out = lanes.iter().sum();
        }
    });
}

/// `out[i] = exp(scale * (row[i] - shift))`, exponent held within [-708, 709]; returns the sum.
pub(crate) fn exp_scaled(row: &[f32], scale: f64, shift: f64, out: &mut [f64]) -> f64 {
    vectorized(|| {
        let mut lanes = [0.0; LANES];
        let (chunks, rest) = row.as_chunks::<LANES>();
        let (outs, out_rest) = out.as_chunks_mut::<LANES>();
        for (chunk, out) in chunks.iter().zip(outs) {
            for i in 0..LANES {
                out[i] = exp(scale * (f64::from(chunk[i]) - shift));
                lanes[i] += out[i];
            }
        }
        for ((lane, x), out) in lanes.iter_mut().zip(rest).zip(out_rest) {
            *out = exp(scale * (f64::from(*x) - shift));
            *lane += *out;
        }
        total(lanes)
    })
}

/// With `x_i = scale * (row[i] - shift)`: the sums of `exp(x_i)` and of `x_i * exp(x_i)`.
pub(crate) fn exp_sums(row: &[f32], scale: f64, shift: f64) -> (f64, f64) {
    vectorized(|| {
        let mut sums = [0.0; LANES];
        let mut weighted = [0.0; LANES];
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                let x = scale * (f64::from(chunk[i]) - shift);
                let e = exp(x);
                sums[i] += e;
                weighted[i] += x * e;
            }
        }
        for (i, value) in rest.iter().enumerate() {
            let x = scale * (f64::from(*value) - shift);
            let e = exp(x);
            sums[i] += e;
            weighted[i] += x * e;
        }
        (total(sums), total(weighted))
    })
}

/// Largest value of a row and the first index that holds it; `(0, -inf)` for an empty row.
pub(crate) fn argmax(row: &[f32]) -> (usize, f32) {
    let largest = vectorized(|| {
        let mut lanes = [f32::NEG_INFINITY; 16];
        let (chunks, rest) = row.as_chunks::<16>();
        for chunk in chunks {
            for i in 0..16 {
                lanes[i] = if chunk[i] > lanes[i] {
                    chunk[i]
                } else {
                    lanes[i]
                };
            }
        }
        lanes
            .iter()
            .chain(rest)
            .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
    });
    (row.iter().position(|&x| x == largest).unwrap_or(0), largest)
}

/// Leaves in `found` the `k` largest entries of a row (all of them if there are fewer) as (value, index), largest first;
/// of equal values the smaller index comes first.
pub(crate) fn largest(row: &[f32], k: usize, found: &mut Vec<(f32, u32)>) {
    found.clear();
    if k == 0 {
        return;
    }
    let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    let capacity = k.saturating_mul(2).saturating_add(16);
    let mut bar = f32::NEG_INFINITY;
    for (c, chunk) in row.chunks(16).enumerate() {
        // Most chunks hold nothing above the bar; this test compiles to vector code.
        if !chunk.iter().fold(false, |any, &x| any | (x > bar)) {
            continue;
        }
        for (i, &x) in chunk.iter().enumerate() {
            if x > bar {
                found.push((x, (c * 16 + i) as u32));
            }
        }
        if found.len() >= capacity {
            found.select_nth_unstable_by(k - 1, order);
            found.truncate(k);
            bar = found[k - 1].0;
        }
    }
    found.sort_unstable_by(order);
    found.truncate(k);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exp_follows_the_standard_library(x in -700.0..700.0f64) {
            prop_assert!((exp(x) / x.exp() - 1.0).abs() < 1e-13);
        }

        #[test]
        fn largest_sorts_like_a_full_sort(
            row in prop::collection::vec(-4i8..4, 0..200),
            k in 0usize..40,
        ) {
            let row: Vec<f32> = row.into_iter().map(f32::from).collect();
            let mut all: Vec<(f32, u32)> = row.iter().copied().zip(0..).collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            all.truncate(k);
            let mut found = Vec::new();
            largest(&row, k, &mut found);
            prop_assert_eq!(&found, &all);
            if k > 0 && !row.is_empty() {
                prop_assert_eq!(argmax(&row), (all[0].1 as usize, all[0].0));
            }
        }

        #[test]
        fn sums_match_plain_loops(row in prop::collection::vec(-1.0f32..1.0, 0..100), scale in 0.1..100.0f64) {
            let x: Vec<f64> = row.iter().map(|&v| scale * (f64::from(v) - 1.0)).collect();
            let plain: f64 = x.iter().map(|x| x.exp()).sum();
            let weighted: f64 = x.iter().map(|x| x * x.exp()).sum();
            let (a, b) = exp_sums(&row, scale, 1.0);
            let mut out = vec![0.0; row.len()];
            let c = exp_scaled(&row, scale, 1.0, &mut out);
            prop_assert!((a - plain).abs() <= 1e-12 * plain);
            prop_assert!((c - plain).abs() <= 1e-12 * plain);
            prop_assert!((b - weighted).abs() <= 1e-12 * weighted.abs());
        }
    }

    #[test]
    fn any_count_of_the_largest_is_allowed() {
        let row: Vec<f32> = (0..100).map(|x| x as f32).collect();
        let mut found = Vec::new();
        for k in [99, 100, 101, usize::MAX / 2 + 1, usize::MAX] {
            largest(&row, k, &mut found);
            assert_eq!(found.len(), k.min(100));
            assert_eq!(found[0], (99.0, 99));
        }
    }

    #[test]
    fn exp_stays_finite_at_the_ends() {
        assert!(exp(-1e9) > 0.0 && exp(-1e9) < 1e-300);
        assert!(exp(1e9).is_finite());
        assert_eq!(exp(0.0), 1.0);
    }
}
