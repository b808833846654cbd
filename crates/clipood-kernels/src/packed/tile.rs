//! The inner loop: some rows times one panel, with all sums in registers.

use std::ops::Range;

use super::{Finish, Panels};
use crate::lanes::{Instructions, Lanes, Work};

/// Most columns of a panel and most rows of a tile of any instruction set.
const MOST: (usize, usize) = (32, 12);
/// Values of a cache line.
const LINE: usize = 16;
/// Times that the inner loop runs between requests for the next panel: many requests at once would wait for each other.
const ROUND: usize = 8;

/// Inputs written out in the inner loop, so that its counters cost little beside the arithmetic. Of large tiles fewer are: when
/// some 80 products are written out, compilers keep the sums in memory.
const fn steps(vectors: usize, rows: usize) -> usize {
    if vectors * rows <= 12 { 4 } else { 2 }
}

/// One product for a chunk of rows.
pub(super) struct Operands<'a> {
    pub weight: &'a Panels,
    pub x: &'a [f32],
    /// From the start of one row to that of the next.
    pub stride: usize,
    pub columns: Range<usize>,
    /// `[rows, columns.len()]`.
    pub out: &'a mut [f32],
    pub finish: Finish<'a>,
}

/// Columns of a panel.
pub(super) fn columns_of(instructions: Instructions) -> usize {
    vectors(instructions.lanes(), instructions.registers()) * instructions.lanes()
}

/// Vectors side by side in a panel: as many as leave registers for enough rows.
const fn vectors(lanes: usize, registers: usize) -> usize {
    if lanes == 4 && registers == 32 { 4 } else { 2 }
}

/// Where a tile reads and writes.
struct Tile<'a> {
    /// From the tile's first row and the block's first input.
    x: &'a [f32],
    stride: usize,
    panel: &'a [f32],
    /// Lines to ask for meanwhile.
    soon: &'a [[f32; LINE]],
    /// From the tile's first row and column.
    out: &'a mut [f32],
    out_stride: usize,
    /// What the sums start with: the bias of each column, or 0.
    start: &'a [f32],
    /// Whether the output is added.
    add: bool,
    relu: bool,
}

impl Work for Operands<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        match (vectors(L::COUNT, L::REGISTERS), L::REGISTERS, L::COUNT) {
            (4, ..) => by_panels::<L, 4, 6>(lanes, self),
            (_, 32, _) => by_panels::<L, 2, 12>(lanes, self),
            (_, _, 4) => by_panels::<L, 2, 4>(lanes, self),
            _ => by_panels::<L, 2, 6>(lanes, self),
        }
    }
}

#[inline(always)]
fn by_panels<L: Lanes, const V: usize, const R: usize>(lanes: L, operands: Operands<'_>) {
    let Operands {
        weight,
        x,
        stride,
        columns,
        out,
        finish,
    } = operands;
    let (width, out_stride) = (V * L::COUNT, columns.len());
    let rows = out.len() / out_stride;
    let zeros = [0.0; MOST.0];
    let mut edge = [0.0; MOST.0 * MOST.1];
    for (first, depth, panels) in weight.blocks() {
        let add = finish.add || first > 0;
        let relu = finish.relu && first + depth == weight.input;
        for panel in columns.start / width..columns.end.div_ceil(width) {
            let values = &panels[panel * depth * width..(panel + 1) * depth * width];
            // The next panel comes from memory meanwhile, some of its lines with each tile.
            let next = &panels[(panel + 1) * depth * width..];
            let next = &next[..next.len().min(depth * width)];
            let (mut lines, _) = next.as_chunks::<LINE>();
            let ahead = lines.len().div_ceil(rows.div_ceil(R));
            let origin = panel * width;
            let (from, to) = (columns.start.max(origin), columns.end.min(origin + width));
            let mut start = zeros;
            if let (0, Some(bias)) = (first, finish.bias) {
                start[from - origin..to - origin].copy_from_slice(&bias[from..to]);
            }
            let column = from - columns.start;
            for row in (0..rows).step_by(R) {
                let taken = R.min(rows - row);
                let (soon, later) = lines.split_at(ahead.min(lines.len()));
                lines = later;
                let x = &x[row * stride + first..];
                let out = &mut out[row * out_stride + column..];
                let whole = to - from == width;
                // Where some columns of the panel are not wanted, the sums go through a tile of their own.
                let (left, count) = (from - origin, to - from);
                if add && !whole {
                    for r in 0..taken {
                        edge[r * width + left..][..count]
                            .copy_from_slice(&out[r * out_stride..][..count]);
                    }
                }
                let tile = Tile {
                    x,
                    stride,
                    panel: values,
                    soon,
                    out: if whole { &mut *out } else { &mut edge },
                    out_stride: if whole { out_stride } else { width },
                    start: &start[..width],
                    add,
                    relu,
                };
                sums_of::<L, V, R>(lanes, taken, tile);
                if !whole {
                    for r in 0..taken {
                        out[r * out_stride..][..count]
                            .copy_from_slice(&edge[r * width + left..][..count]);
                    }
                }
            }
        }
    }
}

/// [`sums`] of `rows`, at most `R`.
#[inline(always)]
fn sums_of<L: Lanes, const V: usize, const R: usize>(lanes: L, rows: usize, tile: Tile<'_>) {
    // The other arms are compiled only for sets whose tiles have more rows.
    match rows {
        rows if rows == R => sums::<L, V, R>(lanes, tile),
        1 => sums::<L, V, 1>(lanes, tile),
        2 => sums::<L, V, 2>(lanes, tile),
        3 => sums::<L, V, 3>(lanes, tile),
        4 if R > 4 => sums::<L, V, 4>(lanes, tile),
        5 if R > 5 => sums::<L, V, 5>(lanes, tile),
        6 if R > 6 => sums::<L, V, 6>(lanes, tile),
        7 if R > 7 => sums::<L, V, 7>(lanes, tile),
        8 if R > 8 => sums::<L, V, 8>(lanes, tile),
        9 if R > 9 => sums::<L, V, 9>(lanes, tile),
        10 if R > 10 => sums::<L, V, 10>(lanes, tile),
        11 if R > 11 => sums::<L, V, 11>(lanes, tile),
        _ => unreachable!("a tile of {rows} rows, of at most {R}"),
    }
}

/// `R` rows times a panel.
///
/// # Panics
/// `x` or `out` end before the last row does.
#[inline(always)]
fn sums<L: Lanes, const V: usize, const R: usize>(lanes: L, tile: Tile<'_>) {
    let Tile { x, stride, .. } = tile;
    let width = V * L::COUNT;
    let depth = tile.panel.len() / width;
    assert!((R - 1) * stride + depth <= x.len());
    assert!((R - 1) * tile.out_stride + width <= tile.out.len());
    let mut sums = [[lanes.splat(0.0); V]; R];
    // Every loop over the sums is short enough that compilers write it out; otherwise they keep the sums in memory.
    for (v, start) in tile.start.chunks_exact(L::COUNT).enumerate().take(V) {
        let start = lanes.load(start);
        for row in &mut sums {
            row[v] = start;
        }
    }
    if tile.add {
        for (r, row) in sums.iter_mut().enumerate() {
            for (v, sum) in row.iter_mut().enumerate() {
                let at = r * tile.out_stride + v * L::COUNT;
                // SAFETY: `at` is at most `(R - 1) * out_stride + width - COUNT`, and `out` is long enough as asserted above.
                let held = unsafe { tile.out.get_unchecked(at..at + L::COUNT) };
                *sum = lanes.add(*sum, lanes.load(held));
            }
        }
    }
    let steps = const { steps(V, R) };
    let rounds = tile.panel.chunks_exact(ROUND * steps * width);
    let rest = rounds.remainder();
    let count = tile.soon.len().div_ceil(rounds.len().max(1)).max(1);
    let mut soon = tile.soon.chunks(count);
    let mut k = 0;
    for weights in rounds {
        for line in soon.next().unwrap_or_default() {
            lanes.prefetch(line);
        }
        for weights in weights.chunks_exact(steps * width) {
            for (i, weight) in weights.chunks_exact(width).enumerate() {
                // SAFETY: `k + i` is below `depth`, so the values of all rows lie inside `x` as asserted above.
                unsafe { step(lanes, &mut sums, x, k + i, stride, weight) };
            }
            k += steps;
        }
    }
    for (i, weight) in rest.chunks_exact(width).enumerate() {
        // SAFETY: as above.
        unsafe { step(lanes, &mut sums, x, k + i, stride, weight) };
    }
    for (r, row) in sums.iter().enumerate() {
        for (v, sum) in row.iter().enumerate() {
            let sum = if tile.relu { lanes.relu(*sum) } else { *sum };
            let at = r * tile.out_stride + v * L::COUNT;
            // SAFETY: as above.
            lanes.store(sum, unsafe {
                tile.out.get_unchecked_mut(at..at + L::COUNT)
            });
        }
    }
}

/// Input `k` of `R` rows times its row of the panel.
///
/// # Safety
/// `x` has a value at `r * stride + k` for every `r` below `R`.
#[inline(always)]
unsafe fn step<L: Lanes, const V: usize, const R: usize>(
    lanes: L,
    sums: &mut [[L::Vector; V]; R],
    x: &[f32],
    k: usize,
    stride: usize,
    weight: &[f32],
) {
    let mut columns = [lanes.splat(0.0); V];
    for (v, column) in columns.iter_mut().enumerate() {
        *column = lanes.load(&weight[v * L::COUNT..]);
    }
    for (r, row) in sums.iter_mut().enumerate() {
        // SAFETY: the caller promises it.
        let value = lanes.splat(unsafe { *x.get_unchecked(r * stride + k) });
        for (sum, column) in row.iter_mut().zip(&columns) {
            *sum = lanes.mul_add(value, *column, *sum);
        }
    }
}
