//! Launches of `kernels/rows.cu`: layer norm and activations of packed rows.

use crate::error::Result;
use crate::executor::{Argument, BLOCK, Executor, Launch, threads, warps};
use crate::precision::Precision;

/// Text of the kernel file; its macro is `WIDTH`.
pub const SOURCE: &str = include_str!("kernels/rows.cu");

/// Names of its kernels, none of which uses dynamic shared memory.
pub const KERNELS: [(&str, u32); 3] = [
    ("layer_norm", 0),
    ("quick_gelu_rows", 0),
    ("exact_gelu_rows", 0),
];

/// Vectors of an activation that one thread takes.
const ACTIVATION_VECTORS: usize = 4;

/// Addresses of a norm's factors and summands, `[width]` each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Norm {
    /// Factors.
    pub gain: u64,
    /// Summands.
    pub bias: u64,
}

/// The rows of `[sequences, tokens, width]` that a layer norm reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    /// How many rows in all.
    pub rows: usize,
    /// Rows of a sequence in memory.
    pub tokens: usize,
    /// Rows taken of each sequence.
    pub per: usize,
    /// The first row taken of each sequence.
    pub first: usize,
}

impl Selection {
    /// Every one of `rows` packed rows.
    pub fn all(rows: usize) -> Self {
        Self {
            rows,
            tokens: 1,
            per: 1,
            first: 0,
        }
    }
}

/// The activation between the two layers of a perceptron.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// The exact GELU.
    Gelu,
}

/// `out` `[selection.rows, width]` = the layer norm of the selected rows of `x`, epsilon 1e-5.
///
/// # Errors
/// Those of the executor.
pub fn layer_norm(
    executor: &mut impl Executor,
    x: u64,
    norm: Norm,
    out: u64,
    selection: Selection,
) -> Result<()> {
    let count = |n: usize| Argument::I32(n as i32);
    executor.launch(&Launch {
        kernel: "layer_norm",
        grid: warps(selection.rows),
        block: BLOCK,
        shared: 0,
        arguments: &[
            Argument::Address(x),
            Argument::Address(norm.gain),
            Argument::Address(norm.bias),
            Argument::Address(out),
            count(selection.rows),
            count(selection.tokens),
            count(selection.per),
            count(selection.first),
        ],
    })
}

/// The activation in place over `values` packed values, which must be whole vectors.
///
/// # Errors
/// Those of the executor.
pub fn activate(
    executor: &mut impl Executor,
    activation: Activation,
    precision: Precision,
    x: u64,
    values: usize,
) -> Result<()> {
    let vectors = values / precision.vector();
    executor.launch(&Launch {
        kernel: match activation {
            Activation::QuickGelu => "quick_gelu_rows",
            Activation::Gelu => "exact_gelu_rows",
        },
        grid: threads(vectors.div_ceil(ACTIVATION_VECTORS)),
        block: BLOCK,
        shared: 0,
        arguments: &[Argument::Address(x), Argument::I64(vectors as i64)],
    })
}
