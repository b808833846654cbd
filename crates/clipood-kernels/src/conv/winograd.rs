//! 3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3): Lavin and Gray, Fast Algorithms for Convolutional Neural
//! Networks, 2016.
//!
//! An image is cut into tiles of 4x4 output pixels. The 6x6 input pixels that a tile depends on are transformed, each of
//! their 36 values is a product with its own matrix `[input, output]` instead of nine for each of 16 pixels, and the 36
//! results are transformed to 16. That is a quarter of the multiplications; the transforms cost a tenth of them. The result
//! differs from the direct sum by rounding, a few times more than the order of a sum does.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::Images;
use crate::block::sized;
use crate::lanes::{Instructions, Lanes, Work};
use crate::matrix::Matrix;
use crate::packed::{Finish, Panels};
use crate::share::Share;

/// Height and width of a tile of the output.
const TILE: usize = 4;
/// Height and width of the input of a tile.
const WIDE: usize = 6;
/// Values of a tile, and matrices.
const VALUES: usize = WIDE * WIDE;
/// Most tiles that one thread transforms before their products: their values stay in the caches.
const TILES: usize = 48;
/// The same for all threads together, where they share the products.
const SHARED_TILES: usize = 256;

/// The transform of a kernel, `G g G^T`.
const G: [[f64; 3]; WIDE] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

thread_local! {
    /// Transformed inputs `[tiles, 36, input]` and products `[36, tiles, output]`.
    static SCRATCH: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// A 3x3 convolution with stride 1 and bias.
#[derive(Debug, Clone)]
pub(super) struct Winograd {
    matrices: Vec<Panels>,
    bias: Vec<f32>,
    input: usize,
    /// Vectors that the channels fill without a rest.
    transforms: Instructions,
}

impl Winograd {
    /// From a weight `[output, input, 3, 3]`; `None` where the channels fill no vectors.
    pub fn new(input: usize, output: usize, weight: &[f32], bias: &[f32]) -> Option<Self> {
        Self::with(input, output, weight, bias, Instructions::best())
    }

    /// For one instruction set.
    pub fn with(
        input: usize,
        output: usize,
        weight: &[f32],
        bias: &[f32],
        instructions: Instructions,
    ) -> Option<Self> {
        let transforms = instructions.for_columns(input)?.for_columns(output)?;
        let matrices = (0..VALUES).into_par_iter().map(|value| {
            let kernels = weight.as_chunks::<9>().0;
            let matrix: Vec<f32> = kernels.iter().map(|k| transformed(k, value)).collect();
            // [output, input]
            let matrix = Matrix::new(&matrix, output, input, input);
            Panels::new(matrix.transposed(), instructions)
        });
        Some(Self {
            matrices: matrices.collect(),
            bias: bias.to_vec(),
            input,
            transforms: transforms.for_columns(input)?,
        })
    }

    /// The convolution of images `[batch, side, side, input]` followed by a ReLU.
    pub fn relu(&self, x: Images<'_>, out: &mut [f32], share: Share) {
        let (side, output) = (x.side, self.bias.len());
        let wide = side.div_ceil(TILE);
        let bands = out.len() / (side * side * output) * wide;
        let most = match share {
            Share::One => TILES,
            Share::All => SHARED_TILES,
        };
        // Whole bands, which are rows of tiles: their output is contiguous.
        let count = (most / wide).max(1);
        let mut rest = out;
        for first in (0..bands).step_by(count) {
            let bands = first..bands.min(first + count);
            let rows = row_of(bands.end, side) - row_of(first, side);
            let (part, after) = rest.split_at_mut(rows * side * output);
            rest = after;
            // Taken out, because a thread that waits for the others may begin another convolution.
            let mut scratch = SCRATCH.take();
            self.bands(x, bands, part, &mut scratch, share);
            SCRATCH.set(scratch);
        }
    }

    fn bands(
        &self,
        x: Images<'_>,
        bands: Range<usize>,
        out: &mut [f32],
        (inputs, products): &mut (Vec<f32>, Vec<f32>),
        share: Share,
    ) {
        let (side, output) = (x.side, self.bias.len());
        let wide = side.div_ceil(TILE);
        let tiles = bands.len() * wide;
        let stride = VALUES * self.input;
        let inputs = sized(inputs, tiles * stride);
        share.chunks(inputs, wide * stride, |band, out| {
            self.transforms.run(Forward {
                x,
                input: self.input,
                band: bands.start + band,
                out,
            });
        });
        let products = sized(products, VALUES * tiles * output);
        share.chunks(products, tiles * output, |value, out| {
            let x = &inputs[value * self.input..];
            self.matrices[value].product(x, stride, 0..output, out, Finish::default());
        });
        // The last band of an image may be lower than the others.
        let mut parts = Vec::with_capacity(bands.len());
        let mut rest = out;
        for band in bands.clone() {
            let rows = row_of(band + 1, side) - row_of(band, side);
            let (part, after) = std::mem::take(&mut rest).split_at_mut(rows * side * output);
            rest = after;
            parts.push(Backward {
                products,
                bias: &self.bias,
                side,
                tiles,
                first: (band - bands.start) * wide,
                out: part,
            });
        }
        let each = |part| self.transforms.run(part);
        match share {
            Share::One => parts.into_iter().for_each(each),
            Share::All => parts.into_par_iter().for_each(each),
        }
    }
}

/// The first row of a band, counted over all images.
fn row_of(band: usize, side: usize) -> usize {
    let wide = side.div_ceil(TILE);
    band / wide * side + band % wide * TILE
}

/// One value of `G g G^T`, in float64.
fn transformed(kernel: &[f32; 9], value: usize) -> f32 {
    let (left, right) = (G[value / WIDE], G[value % WIDE]);
    let products = kernel.iter().enumerate();
    let products = products.map(|(i, k)| left[i / 3] * right[i % 3] * f64::from(*k));
    products.sum::<f64>() as f32
}

/// The transforms of a band's inputs, `B^T d B`.
struct Forward<'a> {
    x: Images<'a>,
    input: usize,
    /// Counted over all images.
    band: usize,
    /// `[tiles, 36, input]`.
    out: &'a mut [f32],
}

impl Work for Forward<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let (side, input) = (self.x.side, self.input);
        let wide = side.div_ceil(TILE);
        let image = self.band / wide * side * side;
        let top = self.band % wide * TILE;
        for (tile, out) in self.out.chunks_exact_mut(VALUES * input).enumerate() {
            for channel in (0..input).step_by(L::COUNT) {
                let mut rows = [[lanes.splat(0.0); WIDE]; WIDE];
                for (dy, row) in rows.iter_mut().enumerate() {
                    // One pixel of padding lies before the first.
                    let Some(y) = (top + dy).checked_sub(1).filter(|y| *y < side) else {
                        continue;
                    };
                    for (dx, value) in row.iter_mut().enumerate() {
                        let column = (tile * TILE + dx).checked_sub(1);
                        if let Some(column) = column.filter(|column| *column < side) {
                            let pixel = image + y * side + column;
                            *value = lanes.load(&self.x.values[pixel * input + channel..]);
                        }
                    }
                }
                for row in &mut rows {
                    *row = forward(lanes, *row);
                }
                for column in 0..WIDE {
                    let mut values = [lanes.splat(0.0); WIDE];
                    for (value, row) in values.iter_mut().zip(&rows) {
                        *value = row[column];
                    }
                    for (y, value) in forward(lanes, values).into_iter().enumerate() {
                        lanes.store(value, &mut out[(y * WIDE + column) * input + channel..]);
                    }
                }
            }
        }
    }
}

/// `B^T d`: `4 d0 - 5 d2 + d4`, `-4 (d1 + d2) + d3 + d4`, `4 (d1 - d2) - d3 + d4`, `2 (d3 - d1) - d2 + d4`,
/// `2 (d1 - d3) - d2 + d4`, `4 d1 - 5 d3 + d5`.
#[inline(always)]
fn forward<L: Lanes>(lanes: L, d: [L::Vector; WIDE]) -> [L::Vector; WIDE] {
    let (two, four, five) = (lanes.splat(2.0), lanes.splat(4.0), lanes.splat(-5.0));
    let minus_four = lanes.splat(-4.0);
    let even = lanes.mul_add(minus_four, d[2], d[4]);
    let odd = lanes.mul_add(minus_four, d[1], d[3]);
    let low = lanes.sub(d[4], d[2]);
    let high = lanes.sub(d[3], d[1]);
    [
        lanes.mul_add(four, d[0], lanes.mul_add(five, d[2], d[4])),
        lanes.add(even, odd),
        lanes.sub(even, odd),
        lanes.mul_add(two, high, low),
        lanes.mul_add(lanes.splat(-2.0), high, low),
        lanes.mul_add(four, d[1], lanes.mul_add(five, d[3], d[5])),
    ]
}

/// The transforms of a band's products, `A^T m A`, bias and ReLU.
struct Backward<'a> {
    /// `[36, tiles, output]`.
    products: &'a [f32],
    bias: &'a [f32],
    side: usize,
    tiles: usize,
    /// The band's first tile.
    first: usize,
    /// The band's pixels `[rows, side, output]`.
    out: &'a mut [f32],
}

impl Work for Backward<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let (side, output) = (self.side, self.bias.len());
        let rows = self.out.len() / (side * output);
        for tile in 0..side.div_ceil(TILE) {
            for channel in (0..output).step_by(L::COUNT) {
                let from = (self.first + tile) * output + channel;
                let mut halves = [[lanes.splat(0.0); WIDE]; TILE];
                for column in 0..WIDE {
                    let mut values = [lanes.splat(0.0); WIDE];
                    for (y, value) in values.iter_mut().enumerate() {
                        let matrix = (y * WIDE + column) * self.tiles * output;
                        *value = lanes.load(&self.products[matrix + from..]);
                    }
                    for (half, value) in halves.iter_mut().zip(backward(lanes, values)) {
                        half[column] = value;
                    }
                }
                let bias = lanes.load(&self.bias[channel..]);
                for (y, half) in halves.into_iter().enumerate().take(rows) {
                    let wanted = TILE.min(side - tile * TILE);
                    let values = backward(lanes, half);
                    for (x, value) in values.into_iter().enumerate().take(wanted) {
                        let pixel = y * side + tile * TILE + x;
                        let value = lanes.relu(lanes.add(value, bias));
                        lanes.store(value, &mut self.out[pixel * output + channel..]);
                    }
                }
            }
        }
    }
}

/// `A^T m`: `m0 + m1 + m2 + m3 + m4`, `m1 - m2 + 2 (m3 - m4)`, `m1 + m2 + 4 (m3 + m4)`, `m1 - m2 + 8 (m3 - m4) + m5`.
#[inline(always)]
fn backward<L: Lanes>(lanes: L, m: [L::Vector; WIDE]) -> [L::Vector; TILE] {
    let (sum, difference) = (lanes.add(m[1], m[2]), lanes.sub(m[1], m[2]));
    let (far_sum, far_difference) = (lanes.add(m[3], m[4]), lanes.sub(m[3], m[4]));
    [
        lanes.add(lanes.add(m[0], sum), far_sum),
        lanes.mul_add(lanes.splat(2.0), far_difference, difference),
        lanes.mul_add(lanes.splat(4.0), far_sum, sum),
        lanes.add(
            lanes.mul_add(lanes.splat(8.0), far_difference, difference),
            m[5],
        ),
    ]
}
