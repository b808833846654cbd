//! Launches of the kernels below `kernels/text`. Addresses are device memory; the arrays behind them have the shapes that the
//! kernels document.

use super::attention::Blocks;
use crate::error::Result;
use crate::executor::{Argument, BLOCK, Executor, Launch, threads, warps};
use crate::rows::Activation;

/// Rows of a float32 table that become rows of the tower's input.
#[derive(Debug, Clone, Copy)]
pub struct Embedding {
    /// Address of the table, float32 `[rows, width]`.
    pub table: u64,
    /// Address of the row of the table for each written row.
    pub from: u64,
    /// Address of the position of each written row.
    pub positions: u64,
    /// Address of the numbers of the written rows.
    pub to: u64,
    /// Rows written.
    pub count: usize,
}

fn int(value: usize) -> Argument {
    Argument::I32(value as i32)
}

/// Launches a kernel of ordinary blocks: addresses first, then integers.
fn simple(
    executor: &mut dyn Executor,
    kernel: &'static str,
    grid: [u32; 3],
    places: &[u64],
    numbers: &[usize],
) -> Result<()> {
    let addresses = places.iter().map(|at| Argument::Address(*at));
    let arguments: Vec<Argument> = addresses
        .chain(numbers.iter().map(|number| int(*number)))
        .collect();
    executor.launch(&Launch {
        kernel,
        grid,
        block: BLOCK,
        shared: 0,
        arguments: &arguments,
    })
}

/// Table rows plus positions into the tower's input.
///
/// # Errors
/// Those of the executor, here and below.
pub fn embed(
    executor: &mut dyn Executor,
    embedding: &Embedding,
    position: u64,
    x: u64,
) -> Result<()> {
    let Embedding {
        table,
        from,
        positions,
        to,
        count,
    } = *embedding;
    simple(
        executor,
        "embed",
        warps(count),
        &[table, position, from, positions, to, x],
        &[count],
    )
}

/// `x, weight, bias, y, stats`.
pub(super) fn layer_norm(executor: &mut dyn Executor, places: [u64; 5], rows: usize) -> Result<()> {
    simple(executor, "text_norm", warps(rows), &places, &[rows])
}

/// `x, weight, stats, dy, d`; `d` is added to where `add` is set.
pub(super) fn layer_norm_backward(
    executor: &mut dyn Executor,
    places: [u64; 5],
    rows: usize,
    add: bool,
) -> Result<()> {
    simple(
        executor,
        "text_norm_backward",
        warps(rows),
        &places,
        &[rows, usize::from(add)],
    )
}

/// `y` = the activation of `vectors` vectors of `x`.
pub(super) fn activation(
    executor: &mut dyn Executor,
    which: Activation,
    x: u64,
    y: u64,
    vectors: usize,
) -> Result<()> {
    let kernel = match which {
        Activation::QuickGelu => "quick_gelu",
        Activation::Gelu => "gelu",
    };
    simple(executor, kernel, threads(vectors), &[x, y], &[vectors])
}

/// The gradient `d` of an activation's output becomes that of its input `x`.
pub(super) fn activation_backward(
    executor: &mut dyn Executor,
    which: Activation,
    x: u64,
    d: u64,
    vectors: usize,
) -> Result<()> {
    let kernel = match which {
        Activation::QuickGelu => "quick_gelu_backward",
        Activation::Gelu => "gelu_backward",
    };
    simple(executor, kernel, threads(vectors), &[x, d], &[vectors])
}

/// `x, from, y`.
pub(super) fn take_rows(executor: &mut dyn Executor, places: [u64; 3], rows: usize) -> Result<()> {
    simple(executor, "take_rows", warps(rows), &places, &[rows])
}

/// `qkv, starts, first, out`; groups, prefix, heads.
pub(super) fn attention(
    executor: &mut dyn Executor,
    places: [u64; 4],
    [groups, prefix, heads]: [usize; 3],
    blocks: &Blocks,
) -> Result<()> {
    let [qkv, starts, first, out] = places.map(Argument::Address);
    executor.launch(&Launch {
        kernel: "text_attention",
        grid: [blocks.count as u32, heads as u32, 1],
        block: blocks.threads,
        shared: blocks.shared,
        arguments: &[
            qkv,
            starts,
            first,
            out,
            int(groups),
            int(blocks.chunk),
            int(prefix),
        ],
    })
}

/// `qkv, dout, starts, first, dqkv, partial`; groups, prefix, heads.
pub(super) fn attention_backward(
    executor: &mut dyn Executor,
    places: [u64; 6],
    [groups, prefix, heads]: [usize; 3],
    blocks: &Blocks,
) -> Result<()> {
    let [qkv, dout, starts, first, dqkv, partial] = places.map(Argument::Address);
    executor.launch(&Launch {
        kernel: "text_attention_backward",
        grid: [blocks.count as u32, heads as u32, 1],
        block: blocks.threads,
        shared: blocks.shared,
        arguments: &[
            qkv,
            dout,
            starts,
            first,
            dqkv,
            partial,
            int(groups),
            int(blocks.chunk),
            int(prefix),
        ],
    })
}

/// `partial, dqkv`; tokens of the prefix and width.
pub(super) fn sum_prefix(
    executor: &mut dyn Executor,
    places: [u64; 2],
    blocks: usize,
    [prefix, width]: [usize; 2],
) -> Result<()> {
    let grid = [(prefix * 2 * width / 32) as u32, 1, 1];
    simple(executor, "sum_prefix", grid, &places, &[blocks, prefix])
}

/// `d, begin, rows, gradient`: the gradient of `contexts` vectors of `width` values, times `unscale`.
pub(crate) fn sum_context(
    executor: &mut dyn Executor,
    places: [u64; 4],
    [contexts, width]: [usize; 2],
    unscale: f32,
) -> Result<()> {
    let [d, begin, rows, gradient] = places.map(Argument::Address);
    executor.launch(&Launch {
        kernel: "sum_context",
        grid: [contexts as u32, (width / 32) as u32, 1],
        block: BLOCK,
        shared: 0,
        arguments: &[d, begin, rows, gradient, Argument::F32(unscale)],
    })
}
