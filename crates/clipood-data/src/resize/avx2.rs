//! The two passes in AVX2.
//!
//! A weight of 24 bits does not fit the 16-bit products that multiply and add pairs in one instruction, so it is split
//! into `high * 2^15 + low`; the two sums are kept apart and joined at the end. That is exact, because sums wrap.

use std::arch::x86_64::*;

use super::Input;
use super::axis::{Axis, FRACTION_BITS};

const HALF: i32 = 1 << (FRACTION_BITS - 1);
const LOW_BITS: i32 = 15;
/// Rows that share one load of the weights.
const ROWS: usize = 4;
/// Bytes read at once.
const BLOCK: usize = 16;

/// Resizes `[input.rows, input.columns, 3]` to `[down.len(), across.len(), 3]`.
#[target_feature(enable = "avx2")]
pub fn resample(input: &Input<'_>, across: &Axis, down: &Axis) -> Vec<u8> {
    // Padded, so that the vertical pass needs no special case for the end of a row.
    let stride = (across.len() * 3).next_multiple_of(BLOCK);
    let mut between = vec![0; input.rows.next_multiple_of(ROWS) * stride];
    horizontal(input, across, &mut between, stride);
    vertical(&between, stride, input.rows, across.len() * 3, down)
}

/// Weights of 4 taps, each half repeated so that 16-bit lanes meet `[r0 r1 g0 g1 b0 b1 0 0 | r2 r3 g2 g3 b2 b3 0 0]`.
struct Quad {
    high: __m256i,
    low: __m256i,
}

#[target_feature(enable = "avx2")]
fn quads(axis: &Axis) -> Vec<Quad> {
    let mut quads = Vec::with_capacity(axis.len() * axis.width() / 4);
    for place in 0..axis.len() {
        for four in axis.padded(place).1.as_chunks::<4>().0 {
            let [(h0, l0), (h1, l1)] = [pair(four[0], four[1]), pair(four[2], four[3])];
            quads.push(Quad {
                high: _mm256_set_epi32(h1, h1, h1, h1, h0, h0, h0, h0),
                low: _mm256_set_epi32(l1, l1, l1, l1, l0, l0, l0, l0),
            });
        }
    }
    quads
}

/// High and low halves of two weights, each two packed into one 32-bit lane.
fn pair(first: i32, second: i32) -> (i32, i32) {
    let pack = |a: i32, b: i32| (a & 0xFFFF) | (b << 16);
    let mask = (1 << LOW_BITS) - 1;
    (
        pack(first >> LOW_BITS, second >> LOW_BITS),
        pack(first & mask, second & mask),
    )
}

/// Fills `between`, `[rows rounded up to ROWS, stride]`, with the rows resized across.
#[target_feature(enable = "avx2")]
fn horizontal(input: &Input<'_>, across: &Axis, between: &mut [u8], stride: usize) {
    let quads = quads(across);
    let per_place = across.width() / 4;
    let pairs = _mm256_setr_epi8(
        0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, //
        6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1,
    );
    // The rows are copied, because the last taps of a row read beyond its end (with weight 0).
    let length = (input.columns + across.width()) * 3 + BLOCK;
    let mut rows = vec![0; ROWS * length];
    for (block, out) in between.chunks_exact_mut(ROWS * stride).enumerate() {
        for (index, row) in rows.chunks_exact_mut(length).enumerate() {
            let row_index = (block * ROWS + index).min(input.rows - 1);
            row[..input.columns * 3].copy_from_slice(input.row(row_index));
        }
        for (place, quads) in quads.chunks_exact(per_place).enumerate() {
            let from = across.padded(place).0 * 3;
            let mut high = [_mm256_setzero_si256(); ROWS];
            let mut low = [_mm256_setzero_si256(); ROWS];
            for (index, quad) in quads.iter().enumerate() {
                for row in 0..ROWS {
                    let four = load(&rows, row * length + from + index * 12);
                    let lanes = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(four), pairs);
                    high[row] = _mm256_add_epi32(high[row], _mm256_madd_epi16(lanes, quad.high));
                    low[row] = _mm256_add_epi32(low[row], _mm256_madd_epi16(lanes, quad.low));
                }
            }
            for row in 0..ROWS {
                let sum = _mm256_add_epi32(_mm256_slli_epi32::<LOW_BITS>(high[row]), low[row]);
                let sum = _mm_add_epi32(
                    _mm256_castsi256_si128(sum),
                    _mm256_extracti128_si256::<1>(sum),
                );
                let sum = _mm_srai_epi32::<{ FRACTION_BITS as i32 }>(_mm_add_epi32(
                    sum,
                    _mm_set1_epi32(HALF),
                ));
                let words = _mm_packs_epi32(sum, sum);
                let bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words)).to_le_bytes();
                let at = row * stride + place * 3;
                out[at..at + 3].copy_from_slice(&bytes[..3]);
            }
        }
    }
}

/// Resizes `between`, `[rows, stride]`, down. Only the first `bytes` of each row are used: returns `[down.len(), bytes]`.
#[target_feature(enable = "avx2")]
fn vertical(between: &[u8], stride: usize, rows: usize, bytes: usize, down: &Axis) -> Vec<u8> {
    let mut out = Vec::with_capacity(down.len() * bytes);
    let mut line = vec![0; stride];
    let mut pairs = Vec::with_capacity(down.width() / 2);
    let half = _mm256_set1_epi32(HALF);
    for place in 0..down.len() {
        let (from, weights) = down.padded(place);
        pairs.clear();
        pairs.extend(
            weights
                .as_chunks::<2>()
                .0
                .iter()
                .map(|two| pair(two[0], two[1])),
        );
        for (index, block) in line.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let mut high = [_mm256_setzero_si256(); 2];
            let mut low = [_mm256_setzero_si256(); 2];
            for (two, &(upper, lower)) in pairs.iter().enumerate() {
                // Taps beyond the last row have weight 0.
                let row =
                    |tap: usize| (from + two * 2 + tap).min(rows - 1) * stride + index * BLOCK;
                let first = _mm256_cvtepu8_epi16(load(between, row(0)));
                let second = _mm256_cvtepu8_epi16(load(between, row(1)));
                let lanes = [
                    _mm256_unpacklo_epi16(first, second),
                    _mm256_unpackhi_epi16(first, second),
                ];
                let (upper, lower) = (_mm256_set1_epi32(upper), _mm256_set1_epi32(lower));
                for side in 0..2 {
                    high[side] =
                        _mm256_add_epi32(high[side], _mm256_madd_epi16(lanes[side], upper));
                    low[side] = _mm256_add_epi32(low[side], _mm256_madd_epi16(lanes[side], lower));
                }
            }
            let mut sums = [half; 2];
            for side in 0..2 {
                let upper = _mm256_slli_epi32::<LOW_BITS>(high[side]);
                let sum = _mm256_add_epi32(_mm256_add_epi32(upper, low[side]), half);
                sums[side] = _mm256_srai_epi32::<{ FRACTION_BITS as i32 }>(sum);
            }
            // Both packs work within 128-bit halves, as the unpacks did, so that the order of the pixels is restored.
            let words = _mm256_packs_epi32(sums[0], sums[1]);
            let packed = _mm_packus_epi16(
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256::<1>(words),
            );
            // SAFETY: `block` is 16 bytes, and the store needs no alignment.
            unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), packed) };
        }
        out.extend_from_slice(&line[..bytes]);
    }
    out
}

/// The 16 bytes at `at`; panics if they are not all inside, as any slice does.
#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8], at: usize) -> __m128i {
    let block = &bytes[at..at + BLOCK];
    // SAFETY: `block` is 16 bytes, and the load needs no alignment.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}
