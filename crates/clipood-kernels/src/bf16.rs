//! Affine maps with their weight in bf16: products of bf16 pairs, summed up in float32 (AVX-512 BF16).
//!
//! A weight is rounded and put in the order of the products once, rows are rounded on the way in; both to the nearest, ties to
//! even, by at most 2^-8 of each value.

use std::ops::Range;

use rayon::prelude::*;

use crate::lanes::Instructions;
use crate::matrix::{Map, Matrix};

#[cfg(not(target_arch = "x86_64"))]
mod absent;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod plain;

#[cfg(not(target_arch = "x86_64"))]
use self::absent as instructions;
#[cfg(target_arch = "x86_64")]
use self::avx512 as instructions;

/// Columns that are computed together.
const COLUMNS: usize = LANES * VECTORS;
/// Columns of one vector.
const LANES: usize = 16;
/// Vectors side by side.
const VECTORS: usize = 4;
/// Pairs of inputs per panel of the weight: a panel, `DEPTH * COLUMNS` pairs, is 192 kB and stays in the level 2 cache while
/// all rows are multiplied with it.
const DEPTH: usize = 768;

/// A pair of inputs of [`LANES`] columns, the first input in the low half: what one instruction multiplies.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Lanes([u32; LANES]);

/// An affine map whose weight is kept in bf16. It can only be created on a CPU that multiplies bf16.
#[derive(Debug, Clone)]
pub struct PackedAffine {
    weight: Panels,
    bias: Vec<f32>,
    means: Means,
}

/// What multiplies.
#[derive(Debug, Clone, Copy)]
enum Means {
    Instructions(instructions::Found),
    /// For tests on CPUs without the instructions.
    PlainCode,
}

/// A weight `[input, output]` in bf16. In blocks of [`DEPTH`] pairs of inputs (the last may be lower), a block in panels of
/// [`COLUMNS`] outputs, a panel pair by pair; padding is 0.
#[derive(Debug, Clone)]
struct Panels {
    lanes: Vec<Lanes>,
    input: usize,
    output: usize,
}

/// One product: some columns of a map, for some rows.
#[derive(Debug, Clone)]
struct Operands<'a> {
    weight: &'a Panels,
    /// Rows `[n, input]`.
    x: &'a [f32],
    /// Columns of the weight that are wanted.
    columns: Range<usize>,
    /// Bias of all columns of the weight, if it is to be added.
    bias: Option<&'a [f32]>,
    /// Whether the result is added to what the output holds.
    add: bool,
}

/// Whether this CPU multiplies bf16, and may; with `bf16` in `CLIPOOD_CPU` every CPU does, in slow code for tests.
pub fn is_supported() -> bool {
    means().is_some()
}

/// The instructions, unless [`Instructions::best`] is held back from their set.
fn means() -> Option<Means> {
    if std::env::var_os("CLIPOOD_CPU").is_some_and(|allowed| allowed == "bf16") {
        return Some(Means::PlainCode);
    }
    let found = instructions::Found::on_this_cpu().filter(|_| !Instructions::are_held_back());
    found.map(Means::Instructions)
}

impl PackedAffine {
    /// Rounds and orders `weight` `[input, output]`, on the threads of the current rayon pool; the bias stays float32. `None`
    /// on a CPU that does not multiply bf16.
    ///
    /// # Panics
    /// The bias is not one value per output.
    pub fn new(weight: Matrix<'_>, bias: &[f32]) -> Option<Self> {
        Some(Self::by(means()?, weight, bias))
    }

    fn by(means: Means, weight: Matrix<'_>, bias: &[f32]) -> Self {
        assert_eq!(weight.columns(), bias.len(), "one bias per output");
        Self {
            means,
            weight: Panels::new(weight),
            bias: bias.to_vec(),
        }
    }

    fn product(&self, operands: &Operands<'_>, out: &mut [f32]) {
        let Operands { x, columns, .. } = operands;
        if columns.is_empty() {
            return;
        }
        let rows = out.len() / columns.len();
        assert!(
            columns.end <= self.bias.len()
                && x.len() == rows * self.weight.input
                && out.len() == rows * columns.len(),
            "a map [{}, {}] does not take {} values to columns {columns:?} of {rows} rows",
            self.weight.input,
            self.weight.output,
            x.len()
        );
        match self.means {
            Means::Instructions(found) => instructions::product(found, operands, out),
            Means::PlainCode => plain::product(operands, out),
        }
    }
}

impl Map for PackedAffine {
    fn bias(&self) -> &[f32] {
        &self.bias
    }

    fn apply(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool) {
        let operands = Operands {
            weight: &self.weight,
            x,
            columns: from..from + output,
            bias: Some(&self.bias),
            add,
        };
        self.product(&operands, out);
    }

    fn multiply(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool) {
        let operands = Operands {
            weight: &self.weight,
            x,
            columns: from..from + output,
            bias: None,
            add,
        };
        self.product(&operands, out);
    }
}

impl Panels {
    fn new(weight: Matrix<'_>) -> Self {
        let (input, output) = (weight.rows(), weight.columns());
        let (pairs, panels) = (pairs(input), output.div_ceil(COLUMNS));
        let mut lanes = vec![Lanes([0; LANES]); pairs * panels * VECTORS];
        let rounded = |row: usize, column: usize| match row < input && column < output {
            true => u32::from(round(weight.at(row, column))),
            false => 0,
        };
        let blocks = lanes.chunks_mut((DEPTH * panels * VECTORS).max(1));
        for (block, first) in blocks.zip((0..pairs).step_by(DEPTH)) {
            let panel_lanes = DEPTH.min(pairs - first) * VECTORS;
            let of_panels = block.par_chunks_mut(panel_lanes).enumerate();
            of_panels.for_each(|(panel, lanes)| {
                for (at, vector) in lanes.iter_mut().enumerate() {
                    let row = 2 * (first + at / VECTORS);
                    let column = panel * COLUMNS + at % VECTORS * LANES;
                    for (lane, pair) in vector.0.iter_mut().enumerate() {
                        let low = rounded(row, column + lane);
                        *pair = low | (rounded(row + 1, column + lane) << 16);
                    }
                }
            });
        }
        Self {
            lanes,
            input,
            output,
        }
    }

    /// Blocks in their order: the first pair of each, its number of pairs, and its panels one after the other.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize, &[Lanes])> {
        let pairs = pairs(self.input);
        let panels = self.output.div_ceil(COLUMNS);
        let blocks = self.lanes.chunks((DEPTH * panels * VECTORS).max(1));
        (blocks.zip((0..pairs).step_by(DEPTH)))
            .map(move |(lanes, first)| (first, DEPTH.min(pairs - first), lanes))
    }
}

/// Pairs of inputs in a row; at least one, of zeros, so that a map without inputs is no special case.
fn pairs(input: usize) -> usize {
    input.div_ceil(2).max(1)
}

/// The bits of the nearest bf16, ties to even; a NaN stays one.
#[inline(always)]
fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1));
    let quiet = bits | 0x0040_0000;
    let bits = if x.is_nan() { quiet } else { nearest };
    (bits >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Affine;
    use proptest::prelude::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        let mix = |i: usize| ((i + seed) * 2_654_435_761) >> 5;
        (0..n)
            .map(|i| (mix(i) % 2001) as f32 / 1000.0 - 1.0)
            .collect()
    }

    fn rounded(x: f32) -> f64 {
        f64::from(f32::from_bits(u32::from(round(x)) << 16))
    }

    /// Plain code, and the instructions of this CPU.
    fn every_means() -> Vec<Means> {
        let found = instructions::Found::on_this_cpu().map(Means::Instructions);
        [Some(Means::PlainCode), found]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Largest difference of a product to that of the rounded inputs in f64.
    fn largest_error(
        means: Means,
        [rows, input, all]: [usize; 3],
        columns: Range<usize>,
        with_bias: bool,
        add: bool,
    ) -> f64 {
        let (weight, bias) = (values(input * all, 1), values(all, 2));
        let map = Affine {
            weight: &weight,
            bias: &bias,
        };
        let packed = PackedAffine::by(means, map.matrix(), map.bias);
        let (x, n) = (values(rows * input, 3), columns.len());
        let before = values(rows * n, 4);
        let mut out = before.clone();
        match with_bias {
            true => packed.apply(&x, columns.start, n, &mut out, add),
            false => packed.multiply(&x, columns.start, n, &mut out, add),
        }
        let mut worst = 0f64;
        for row in 0..rows {
            for (column, to) in columns.clone().enumerate() {
                let mut expected = f64::from(if with_bias { bias[to] } else { 0.0 });
                if add {
                    expected += f64::from(before[row * n + column]);
                }
                for i in 0..input {
                    expected += rounded(x[row * input + i]) * rounded(weight[i * all + to]);
                }
                let off = (f64::from(out[row * n + column]) - expected).abs();
                worst = worst.max(if off.is_nan() { f64::INFINITY } else { off });
            }
        }
        worst
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn product_follows_its_definition(
            rows in 0usize..20, input in 1usize..70, all in 1usize..200,
            from in 0usize..200, to in 0usize..200, with_bias: bool, add: bool,
        ) {
            let (from, to) = (from.min(all), to.min(all));
            let columns = from.min(to)..from.max(to);
            for means in every_means() {
                let off = largest_error(means, [rows, input, all], columns.clone(), with_bias, add);
                prop_assert!(off < 1e-4, "{means:?}: off by {}", off);
            }
        }
    }

    #[test]
    fn blocks_of_a_deep_product_are_added_up() {
        for input in [2 * DEPTH, 2 * DEPTH + 1, 4 * DEPTH + 6] {
            for add in [false, true] {
                for means in every_means() {
                    let off = largest_error(means, [7, input, 70], 3..70, true, add);
                    assert!(off < 1e-3, "{means:?}, {input} inputs: off by {off}");
                }
            }
        }
    }

    #[test]
    fn a_cpu_without_the_instructions_has_no_map() {
        #[cfg(target_arch = "x86_64")]
        let expected = is_x86_feature_detected!("avx512bf16");
        #[cfg(not(target_arch = "x86_64"))]
        let expected = false;
        let map = Affine {
            weight: &[1.0],
            bias: &[0.0],
        };
        assert_eq!(
            PackedAffine::new(map.matrix(), map.bias).is_some(),
            expected
        );
        assert_eq!(is_supported(), expected);
    }

    #[test]
    fn values_that_are_not_finite_pass_through() {
        let map = Affine {
            weight: &[1.0],
            bias: &[0.0],
        };
        for means in every_means() {
            let map = PackedAffine::by(means, map.matrix(), map.bias);
            let mut out = [0.0; 3];
            map.multiply(&[f32::NAN, f32::INFINITY, 1.0], 0, 1, &mut out, false);
            assert!(out[0].is_nan(), "{means:?}");
            assert_eq!(out[1..], [f32::INFINITY, 1.0], "{means:?}");
        }
    }

    #[test]
    fn rounds_to_the_nearest_and_ties_to_even() {
        let unit = 2f32.powi(-7);
        for (x, expected) in [
            (1.0, 1.0),
            (-2.5, -2.5),
            (1.0 + 0.49 * unit, 1.0),
            (1.0 + 0.51 * unit, 1.0 + unit),
            (1.0 + 0.5 * unit, 1.0),
            (1.0 + 1.5 * unit, 1.0 + 2.0 * unit),
            (f32::MAX, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
        ] {
            assert_eq!(rounded(x), f64::from(expected), "{x}");
        }
        assert!(rounded(f32::NAN).is_nan());
        assert!(rounded(f32::from_bits(0x7F80_0001)).is_nan());
    }
}
