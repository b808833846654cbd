//! The products in AVX-512 BF16.
//!
//! A panel of the weight is multiplied with six rows at a time: 24 sums, a pair of inputs of 64 columns and one broadcast
//! pair of a row fill the registers.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::mem::transmute;

use super::{COLUMNS, LANES, Lanes, Operands, VECTORS, pairs, round};

/// Rows that share one load of the weight.
const ROWS: usize = 6;

/// Sums of some rows.
type Tile = [[f32; COLUMNS]; ROWS];

thread_local! {
    /// Rounded rows; kept from product to product, because allocating memory of that size again is expensive.
    static ROUNDED: RefCell<Vec<u16>> = const { RefCell::new(Vec::new()) };
}

/// Proof that the CPU has the instructions.
#[derive(Debug, Clone, Copy)]
pub struct Found(());

impl Found {
    /// Asks the CPU.
    pub fn on_this_cpu() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16");
        found.then_some(Self(()))
    }
}

/// The `columns` of `x weight`, plus those of `bias`, into `out` `[n, columns.len()]`, or added to it.
pub fn product(_: Found, operands: &Operands<'_>, out: &mut [f32]) {
    if operands.columns.is_empty() || out.is_empty() {
        return;
    }
    ROUNDED.with_borrow_mut(|rounded| {
        // SAFETY: the first argument was made where the CPU has these instructions.
        unsafe { by_panels(operands, rounded, out) }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn by_panels(operands: &Operands<'_>, rounded: &mut Vec<u16>, out: &mut [f32]) {
    let Operands {
        weight,
        x,
        columns,
        bias,
        add,
    } = operands;
    let (bias, add) = (*bias, *add);
    let stride = 2 * pairs(weight.input);
    let rows = out.len() / columns.len();
    let x = round_rows(x, weight.input, rows, rounded);
    let mut tile: Tile = [[0.0; COLUMNS]; ROWS];
    for (first, depth, lanes) in weight.blocks() {
        for panel in columns.start / COLUMNS..columns.end.div_ceil(COLUMNS) {
            let steps = &lanes[panel * depth * VECTORS..(panel + 1) * depth * VECTORS];
            let steps = steps.as_chunks::<VECTORS>().0;
            let origin = panel * COLUMNS;
            let from = columns.start.max(origin);
            let to = columns.end.min(origin + COLUMNS);
            let mut start = [0.0; COLUMNS];
            if let (0, Some(bias)) = (first, bias) {
                start[from - origin..to - origin].copy_from_slice(&bias[from..to]);
            }
            for row in (0..rows).step_by(ROWS) {
                let taken = ROWS.min(rows - row);
                let x = &x[row * stride + 2 * first..];
                match taken {
                    1 => sums::<1>(x, stride, steps, &start, &mut tile),
                    2 => sums::<2>(x, stride, steps, &start, &mut tile),
                    3 => sums::<3>(x, stride, steps, &start, &mut tile),
                    4 => sums::<4>(x, stride, steps, &start, &mut tile),
                    5 => sums::<5>(x, stride, steps, &start, &mut tile),
                    _ => sums::<ROWS>(x, stride, steps, &start, &mut tile),
                }
                let out = &mut out[row * columns.len()..(row + taken) * columns.len()];
                for (out, tile) in out.chunks_exact_mut(columns.len()).zip(&tile) {
                    let out = &mut out[from - columns.start..to - columns.start];
                    let tile = &tile[from - origin..to - origin];
                    if add || first > 0 {
                        for (out, sum) in out.iter_mut().zip(tile) {
                            *out += sum;
                        }
                    } else {
                        out.copy_from_slice(tile);
                    }
                }
            }
        }
    }
}

/// Rows `x` `[rows, input]` in bf16, `[rows, 2 pairs]`; a row of odd length is padded with 0.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn round_rows<'a>(x: &[f32], input: usize, rows: usize, rounded: &'a mut Vec<u16>) -> &'a [u16] {
    let stride = 2 * pairs(input);
    if rounded.len() < rows * stride {
        rounded.resize(rows * stride, 0);
    }
    let rounded = &mut rounded[..rows * stride];
    for (row, out) in rounded.chunks_exact_mut(stride).enumerate() {
        let (values, rest) = out.split_at_mut(input);
        for (out, x) in values.iter_mut().zip(&x[row * input..(row + 1) * input]) {
            *out = round(*x);
        }
        rest.fill(0);
    }
    rounded
}

/// `start` plus the products of `R` rows with a panel: the rows are `stride` values apart in `x` and begin with the first of
/// the panel's pairs.
///
/// # Panics
/// `x` ends before the last row's pairs do.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn sums<const R: usize>(
    x: &[u16],
    stride: usize,
    steps: &[[Lanes; VECTORS]],
    start: &[f32; COLUMNS],
    tile: &mut Tile,
) {
    assert!((R - 1) * stride + 2 * steps.len() <= x.len());
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    for row in &mut sums {
        for (sum, start) in row.iter_mut().zip(start.as_chunks::<LANES>().0) {
            // SAFETY: `start` is 16 values, and the load needs no alignment.
            *sum = unsafe { _mm512_loadu_ps(start.as_ptr()) };
        }
    }
    for (step, weight) in steps.iter().enumerate() {
        // SAFETY: both are 4 times 64 bytes of plain numbers.
        let weight = unsafe { transmute::<[Lanes; VECTORS], [__m512bh; VECTORS]>(*weight) };
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `row` is at most `R - 1`, so the pair lies inside `x` as asserted above; the read needs no alignment.
            let pair = unsafe {
                let pair = x.as_ptr().add(row * stride + 2 * step);
                pair.cast::<i32>().read_unaligned()
            };
            // SAFETY: both are 64 bytes of plain numbers.
            let pair = unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair)) };
            for (sum, weight) in sums.iter_mut().zip(&weight) {
                *sum = _mm512_dpbf16_ps(*sum, pair, *weight);
            }
        }
    }
    for (sums, out) in sums.iter().zip(tile) {
        for (sum, out) in sums.iter().zip(out.as_chunks_mut::<LANES>().0) {
            // SAFETY: `out` is 16 values, and the store needs no alignment.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *sum) };
        }
    }
}
