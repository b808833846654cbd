//! What a matrix product reads, computes and writes.

use crate::precision::Precision;

/// A matrix in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Matrix {
    /// Elements from one stored row to the next.
    pub pitch: usize,
    /// Whether rows and columns are exchanged in memory.
    pub transposed: bool,
}

/// What is done with a product before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Epilogue {
    /// Nothing.
    None,
    /// A bias `[columns]` in the output's format is added to each row.
    Bias,
    /// The bias is added, then negative values become 0. A residual is added before.
    BiasRelu,
}

/// `output [rows, columns] = epilogue(scale * input [rows, depth] weight [depth, columns] + residual)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows of input and output.
    pub rows: usize,
    /// Columns of weight and output.
    pub columns: usize,
    /// Terms of each value.
    pub depth: usize,
    /// `[rows, depth]`, or `[depth, rows]` if transposed.
    pub input: Matrix,
    /// `[depth, columns]`, or `[columns, depth]` if transposed, as linear layers keep it.
    pub weight: Matrix,
    /// Elements from one row of the output to the next.
    pub output_pitch: usize,
    /// Elements from one row of the residual to the next, if one is added. It may be the output itself if the pitches are equal.
    pub residual_pitch: Option<usize>,
    /// Bias and activation.
    pub epilogue: Epilogue,
    /// Format of input and weight, and of output and residual unless `wide`.
    pub precision: Precision,
    /// Whether output, bias and residual are float32.
    pub wide: bool,
}

impl Shape {
    /// A linear layer over packed rows: `x [rows, depth] w'` with `w [columns, depth]`, plus a bias.
    pub fn linear(precision: Precision, [rows, columns, depth]: [usize; 3]) -> Self {
        Self {
            rows,
            columns,
            depth,
            input: Matrix {
                pitch: depth,
                transposed: false,
            },
            weight: Matrix {
                pitch: depth,
                transposed: true,
            },
            output_pitch: columns,
            residual_pitch: None,
            epilogue: Epilogue::Bias,
            precision,
            wide: false,
        }
    }

    /// A projection without a bias over packed rows: `x [rows, depth] w` with `w [depth, columns]`.
    pub fn projection(precision: Precision, [rows, columns, depth]: [usize; 3]) -> Self {
        Self {
            weight: Matrix {
                pitch: columns,
                transposed: false,
            },
            epilogue: Epilogue::None,
            ..Self::linear(precision, [rows, columns, depth])
        }
    }

    /// Reads every row `pitch` elements after the last.
    #[must_use]
    pub fn from_pitch(mut self, pitch: usize) -> Self {
        self.input.pitch = pitch;
        self
    }

    /// Adds a residual of this pitch.
    #[must_use]
    pub fn plus_residual(mut self, pitch: usize) -> Self {
        self.residual_pitch = Some(pitch);
        self
    }

    /// Writes float32.
    #[must_use]
    pub fn widened(mut self) -> Self {
        self.wide = true;
        self
    }
}

/// Addresses of a product's operands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Operands {
    /// Input.
    pub input: u64,
    /// Weight.
    pub weight: u64,
    /// Bias; 0 without one.
    pub bias: u64,
    /// Residual; 0 without one.
    pub residual: u64,
    /// Output.
    pub output: u64,
    /// Factor on the product, not on the residual.
    pub scale: f32,
}
