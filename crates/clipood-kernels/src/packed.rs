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

/// Most inputs of a panel: its block of the weight and of some rows stay in the level 1 cache.
const DEPTH: usize = 256;
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
        let blocks = values.values_mut().chunks_mut((depth * panels * width).max(1));
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

    /// Outputs of the map.
    pub fn output(&self) -> usize {
        self.output
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
        let all = self.output.div_ceil(columns_of(self.instructions)) * columns_of(self.instructions);
        (0..self.input.max(1)).step_by(depth).map(move |first| {
            let depth = depth.min(self.input - first);
            let from = first * all;
            (first, depth, &self.values.values()[from..from + depth * all])
        })
    }
}

/// Inputs of a block: as many in each as can be.
fn depth_of(input: usize) -> usize {
    input.div_ceil(input.div_ceil(DEPTH).max(1)).max(1)
}
