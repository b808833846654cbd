//! Affine maps whose weight was put in the order of the products once.
//!
//! A product of a general library copies both operands into the order of its inner loop every time. Weights do not change, and
//! rows of activations are read in order anyway, so that here nothing is copied: with few rows those copies take longer
//! than the arithmetic.
//!
//! Every output is summed up over the inputs in their order with fused additions, whatever the number of rows, its place
//! among them, the instruction set (with FMA) or the number of threads: the same row gives the same bits.

mod aligned;
mod tile;

use std::ops::Range;

use rayon::prelude::*;

use self::aligned::Aligned;
use self::tile::{Operands, columns_of};
use crate::bf16;
use crate::lanes::Instructions;
use crate::matrix::{Map, Matrix};

/// Most inputs of a panel, which streams through the level 1 cache from the level 2 cache. More inputs read and write the
/// sums less often; too many push the rows out of the level 2 cache.
const DEPTH: usize = 768;
/// Most rows that are multiplied with all panels of a block of inputs before the next: they stay in the level 2 cache.
const ROWS: usize = 192;

/// Number format of weights and rows in products; sums are float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// float32.
    F32,
    /// bf16, on CPUs that multiply it ([`bf16::is_supported`]).
    Bf16,
}

/// An affine map in one of the formats.
#[derive(Debug, Clone)]
pub enum Packed {
    /// float32.
    F32(PackedF32),
    /// bf16.
    Bf16(bf16::PackedAffine),
}

impl Packed {
    /// Orders `weight` `[input, output]` on the threads of the current rayon pool; the bias stays float32. `None` for
    /// [`Format::Bf16`] on a CPU that does not multiply it.
    ///
    /// # Panics
    /// The bias is not one value per output.
    pub fn new(weight: Matrix<'_>, bias: &[f32], format: Format) -> Option<Self> {
        assert_eq!(weight.columns(), bias.len(), "one bias per output");
        Some(match format {
            Format::F32 => Self::F32(PackedF32::new(weight, bias)),
            Format::Bf16 => Self::Bf16(bf16::PackedAffine::new(weight, bias)?),
        })
    }
}

impl Map for Packed {
    fn bias(&self) -> &[f32] {
        match self {
            Self::F32(map) => map.bias(),
            Self::Bf16(map) => map.bias(),
        }
    }

    fn apply(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool) {
        match self {
            Self::F32(map) => map.apply(x, from, output, out, add),
            Self::Bf16(map) => map.apply(x, from, output, out, add),
        }
    }

    fn multiply(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool) {
        match self {
            Self::F32(map) => map.multiply(x, from, output, out, add),
            Self::Bf16(map) => map.multiply(x, from, output, out, add),
        }
    }

    fn apply_relu(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool) {
        match self {
            Self::F32(map) => map.apply_relu(x, from, output, out, add),
            Self::Bf16(map) => map.apply_relu(x, from, output, out, add),
        }
    }
}

/// An affine map in float32.
#[derive(Debug, Clone)]
pub struct PackedF32 {
    panels: Panels,
    bias: Vec<f32>,
}

/// A weight `[input, output]`: in blocks of inputs, a block in panels of as many outputs as the inner loop takes at once, a
/// panel input by input; padding is 0.
#[derive(Debug, Clone)]
pub(crate) struct Panels {
    values: Aligned,
    input: usize,
    output: usize,
    instructions: Instructions,
}

/// What happens to a product.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Finish<'a> {
    /// Added, one value per output of the whole map.
    pub bias: Option<&'a [f32]>,
    /// What the output holds is added.
    pub add: bool,
    /// Negative values become 0 at the end.
    pub relu: bool,
}

impl PackedF32 {
    fn new(weight: Matrix<'_>, bias: &[f32]) -> Self {
        Self::with(weight, bias, Instructions::best())
    }

    /// For one instruction set.
    pub(crate) fn with(weight: Matrix<'_>, bias: &[f32], instructions: Instructions) -> Self {
        Self {
            panels: Panels::new(weight, instructions),
            bias: bias.to_vec(),
        }
    }

    fn run(&self, x: &[f32], columns: Range<usize>, out: &mut [f32], finish: Finish<'_>) {
        let input = self.panels.input;
        self.panels.product(x, input, columns, out, finish);
    }
}

impl Map for PackedF32 {
    fn bias(&self) -> &[f32] {
        &self.bias
    }

    fn apply(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool) {
        let finish = Finish {
            bias: Some(&self.bias),
            add,
            relu: false,
        };
        self.run(x, from..from + output, out, finish);
    }

    fn multiply(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool) {
        let finish = Finish {
            add,
            ..Finish::default()
        };
        self.run(x, from..from + output, out, finish);
    }

    fn apply_relu(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool) {
        let finish = Finish {
            bias: Some(&self.bias),
            add,
            relu: true,
        };
        self.run(x, from..from + output, out, finish);
    }
}

impl Panels {
    pub fn new(weight: Matrix<'_>, instructions: Instructions) -> Self {
        let (input, output) = (weight.rows(), weight.columns());
        let width = columns_of(instructions);
        let panels = output.div_ceil(width);
        let mut values = Aligned::new(input * panels * width);
        let depth = depth_of(input);
        let blocks = values
            .values_mut()
            .chunks_mut((depth * panels * width).max(1));
        for (block, first) in blocks.zip((0..input).step_by(depth)) {
            let depth = depth.min(input - first);
            let panels = block.par_chunks_mut((depth * width).max(1)).enumerate();
            panels.for_each(|(panel, values)| {
                let columns = panel * width..output.min((panel + 1) * width);
                for (row, values) in values.chunks_exact_mut(width).enumerate() {
                    for (value, column) in values.iter_mut().zip(columns.clone()) {
                        *value = weight.at(first + row, column);
                    }
                }
            });
        }
        Self {
            values,
            input,
            output,
            instructions,
        }
    }

    /// The `columns` of the product of rows `x`, `stride` values from one row's start to the next, into `out`
    /// `[n, columns.len()]`.
    ///
    /// # Panics
    /// `x` has not as many rows, or a column is none of the map's.
    pub fn product(
        &self,
        x: &[f32],
        stride: usize,
        columns: Range<usize>,
        out: &mut [f32],
        finish: Finish<'_>,
    ) {
        if columns.is_empty() || out.is_empty() {
            return;
        }
        let (input, output) = (self.input, self.output);
        let rows = out.len() / columns.len();
        assert!(
            columns.end <= output
                && out.len() == rows * columns.len()
                && x.len() >= (rows - 1) * stride + input
                && stride >= input,
            "a map [{input}, {output}] does not take {} values, rows {stride} apart, to columns {columns:?} of {rows} rows",
            x.len()
        );
        let share = rows.div_ceil(rows.div_ceil(ROWS));
        for (chunk, out) in out.chunks_mut(share * columns.len()).enumerate() {
            self.instructions.run(Operands {
                weight: self,
                x: &x[chunk * share * stride..],
                stride,
                columns: columns.clone(),
                out,
                finish,
            });
        }
    }

    /// Blocks in their order: the first input of each, its number of inputs, and its panels one after the other. A map
    /// without inputs has one block of none.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize, &[f32])> {
        let depth = depth_of(self.input);
        let all =
            self.output.div_ceil(columns_of(self.instructions)) * columns_of(self.instructions);
        (0..self.input.max(1)).step_by(depth).map(move |first| {
            let depth = depth.min(self.input - first);
            let from = first * all;
            (
                first,
                depth,
                &self.values.values()[from..from + depth * all],
            )
        })
    }
}

/// Inputs of a block: as many in each as can be.
fn depth_of(input: usize) -> usize {
    input.div_ceil(input.div_ceil(DEPTH).max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        let mix = |i: usize| ((i + seed) * 2_654_435_761) >> 5;
        (0..n)
            .map(|i| (mix(i) % 2001) as f32 / 1000.0 - 1.0)
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn product_follows_its_definition_in_every_instruction_set(
            rows in 0usize..30, input in 0usize..600, all in 1usize..100,
            from in 0usize..100, to in 0usize..100, gap in 0usize..4,
            transposed: bool, with_bias: bool, add: bool, relu: bool,
        ) {
            let (from, to) = (from.min(all), to.min(all));
            let columns = from.min(to)..from.max(to);
            let (weight, bias) = (values(input * all, 1), values(all, 2));
            let matrix = match transposed {
                true => Matrix::new(&weight, all, input, input).transposed(),
                false => Matrix::new(&weight, input, all, all),
            };
            let stride = input + gap;
            let x = values(rows * stride, 3);
            let before = values(rows * columns.len(), 4);
            for instructions in Instructions::of_every_shape() {
                let panels = Panels::new(matrix, instructions);
                let mut out = before.clone();
                let finish = Finish { bias: with_bias.then_some(&bias[..]), add, relu };
                panels.product(&x, stride, columns.clone(), &mut out, finish);
                for row in 0..rows {
                    for (i, column) in columns.clone().enumerate() {
                        let at = row * columns.len() + i;
                        let mut expected = if with_bias { f64::from(bias[column]) } else { 0.0 };
                        expected += if add { f64::from(before[at]) } else { 0.0 };
                        let mut magnitude = expected.abs();
                        for k in 0..input {
                            let weight = matrix.at(k, column);
                            let term = f64::from(x[row * stride + k]) * f64::from(weight);
                            expected += term;
                            magnitude += term.abs();
                        }
                        let expected = if relu { expected.max(0.0) } else { expected };
                        let off = (f64::from(out[at]) - expected).abs();
                        // Rounding grows with the terms, not with what is left of their sum.
                        let most = 1e-6 + 4e-6 * magnitude;
                        prop_assert!(off < most, "{instructions:?}: off by {off} of {most}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_wherever_it_stands() {
        let (input, output, rows) = (700, 75, 29);
        let (weight, bias, x) = (
            values(input * output, 1),
            values(output, 2),
            values(rows * input, 3),
        );
        let matrix = Matrix::new(&weight, input, output, output);
        let fused = |set: &Instructions| set.lanes() > 4 || cfg!(target_arch = "aarch64");
        let mut first: Option<Vec<f32>> = None;
        for instructions in Instructions::on_this_cpu().into_iter().filter(fused) {
            let map = PackedF32::with(matrix, &bias, instructions);
            let mut all = vec![0.0; rows * output];
            map.apply(&x, 0, output, &mut all, false);
            for row in 0..rows {
                let mut one = vec![0.0; 40];
                map.apply(&x[row * input..][..input], 20, 40, &mut one, false);
                assert_eq!(one, all[row * output + 20..][..40], "row {row}");
            }
            assert_eq!(
                first.get_or_insert_with(|| all.clone()),
                &all,
                "{instructions:?}"
            );
        }
    }

    #[test]
    fn values_that_are_not_finite_pass_through() {
        for instructions in Instructions::of_every_shape() {
            let map = PackedF32::with(Matrix::new(&[1.0], 1, 1, 1), &[0.0], instructions);
            let mut out = [0.0; 3];
            map.apply_relu(&[f32::NAN, f32::INFINITY, -1.0], 0, 1, &mut out, false);
            assert!(out[0].is_nan(), "{instructions:?}");
            assert_eq!(out[1..], [f32::INFINITY, 0.0]);
        }
    }

    #[test]
    #[should_panic(expected = "does not take")]
    fn rows_of_another_length_are_refused() {
        let map = PackedF32::new(Matrix::new(&[1.0; 6], 3, 2, 2), &[0.0; 2]);
        map.apply(&[1.0; 5], 0, 2, &mut [0.0; 4], false);
    }

    #[test]
    fn bf16_is_a_format_of_some_cpus_alone() {
        let map = Packed::new(Matrix::new(&[1.0], 1, 1, 1), &[0.0], Format::Bf16);
        assert_eq!(map.is_some(), bf16::is_supported());
    }
}
