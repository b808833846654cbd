//! Training-mode convolution + batch norm (+ ReLU) on float32 slices, forward and backward.
//!
//! The images are cut into chunks that fit a core's cache; a chunk is unfolded (im2col), multiplied, and its rows are
//! channels, so that batch statistics are sums over contiguous memory. Formulas of the normalisation's gradient:
//! Ioffe and Szegedy 2015, section 3. Only what a ModifiedResNet needs: square kernels of 1 or 3, "same" padding.

mod step;

use clipood_kernels::matrix::{Matrix, MatrixMut, product};
use rayon::prelude::*;

pub(super) use self::step::on_autodiff;
pub use self::step::{ConvNormArgs, ConvNormOutput};

/// Sizes of one convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Geometry {
    images: usize,
    input: usize,
    height: usize,
    width: usize,
    output: usize,
    kernel: usize,
    stride: usize,
}

impl Geometry {
    fn out_height(&self) -> usize {
        (self.height - 1) / self.stride + 1
    }

    fn out_width(&self) -> usize {
        (self.width - 1) / self.stride + 1
    }

    fn out_area(&self) -> usize {
        self.out_height() * self.out_width()
    }

    fn in_area(&self) -> usize {
        self.height * self.width
    }

    /// Rows of an unfolded chunk.
    fn depth(&self) -> usize {
        self.input * self.kernel * self.kernel
    }

    /// Images per chunk: about 1.5 MB unfolded, and at least two chunks per thread where there are enough images.
    fn chunk(&self) -> usize {
        let by_cache = 400_000 / (self.depth() * self.out_area()).max(1);
        let by_threads = self.images / (2 * rayon::current_num_threads());
        by_cache.min(by_threads).max(1)
    }
}

/// What the backward pass needs of the forward pass.
#[derive(Debug, Clone)]
struct Saved {
    /// Products before the norm, chunk by chunk `[output, chunk * area]`.
    products: Vec<f32>,
    /// Mean of each output channel over batch and positions.
    mean: Vec<f32>,
    /// Biased variance of each output channel.
    variance: Vec<f32>,
}

/// Gradients of one convolution and its norm.
struct Gradients {
    x: Option<Vec<f32>>,
    weight: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

const EPSILON: f32 = 1e-5;

/// A convolution and its norm: sizes and operands.
#[derive(Clone, Copy)]
struct Layer<'a> {
    geometry: &'a Geometry,
    /// `[images, input, height, width]`.
    x: &'a [f32],
    /// `[output, input, kernel, kernel]`.
    weight: &'a [f32],
    /// Norm weight `[output]`.
    gamma: &'a [f32],
    /// Norm bias `[output]`.
    beta: &'a [f32],
    /// Whether a ReLU follows the norm.
    relu: bool,
}

/// Walks the runs of an unfolded chunk: calls `run(row, column, source, length, step)` for every stretch of output
/// positions whose source lies inside the image, `source` an index into the chunk's pixels, `step` the source stride.
fn for_each_run(
    g: &Geometry,
    images: usize,
    mut run: impl FnMut(usize, usize, usize, usize, usize),
) {
    let (oh, ow, s) = (g.out_height(), g.out_width(), g.stride);
    let pad = g.kernel / 2;
    for channel in 0..g.input {
        for ky in 0..g.kernel {
            for kx in 0..g.kernel {
                let row = (channel * g.kernel + ky) * g.kernel + kx;
                // Output columns whose source column is inside: 0 <= x * s + kx - pad < width.
                let first = pad.saturating_sub(kx).div_ceil(s);
                let end = (g.width + pad - kx).div_ceil(s).min(ow);
                if first >= end {
                    continue;
                }
                for image in 0..images {
                    let plane = (image * g.input + channel) * g.in_area();
                    for y in 0..oh {
                        let source_y = y * s + ky;
                        if source_y < pad || source_y - pad >= g.height {
                            continue;
                        }
                        let source = plane + (source_y - pad) * g.width + first * s + kx - pad;
                        let column = (image * oh + y) * ow + first;
                        run(row, column, source, end - first, s);
                    }
                }
            }
        }
    }
}

/// `[images, input, height, width]` -> `[depth, images * area]`.
fn unfold(g: &Geometry, x: &[f32], columns: &mut [f32]) {
    let images = x.len() / (g.input * g.in_area());
    let m = images * g.out_area();
    columns.fill(0.0);
    for_each_run(g, images, |row, column, source, length, step| {
        let to = &mut columns[row * m + column..][..length];
        if step == 1 {
            to.copy_from_slice(&x[source..source + length]);
        } else {
            for (i, v) in to.iter_mut().enumerate() {
                *v = x[source + i * step];
            }
        }
    });
}

/// The transpose of [`unfold`]: adds every unfolded value back to its pixel.
fn fold(g: &Geometry, columns: &[f32], x: &mut [f32]) {
    let images = x.len() / (g.input * g.in_area());
    let m = images * g.out_area();
    x.fill(0.0);
    for_each_run(g, images, |row, column, source, length, step| {
        let from = &columns[row * m + column..][..length];
        if step == 1 {
            for (a, b) in x[source..source + length].iter_mut().zip(from) {
                *a += b;
            }
        } else {
            for (i, v) in from.iter().enumerate() {
                x[source + i * step] += v;
            }
        }
    });
}

/// Sum and sum of products of two rows, in float32 lanes.
fn sums(a: &[f32], b: &[f32]) -> (f64, f64) {
    const LANES: usize = 16;
    let mut plain = [0f32; LANES];
    let mut both = [0f32; LANES];
    let (ac, bc) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail = ac.remainder().iter().zip(bc.remainder());
    let (mut tail_plain, mut tail_both) = (0f64, 0f64);
    for (x, y) in tail {
        tail_plain += f64::from(*x);
        tail_both += f64::from(*x) * f64::from(*y);
    }
    for (x, y) in ac.zip(bc) {
        for i in 0..LANES {
            plain[i] += x[i];
            both[i] += x[i] * y[i];
        }
    }
    let total = |lanes: [f32; LANES]| lanes.iter().map(|v| f64::from(*v)).sum::<f64>();
    (total(plain) + tail_plain, total(both) + tail_both)
}

impl Layer<'_> {
    /// Scale and shift that turn a product into the norm's output.
    fn affine(&self, saved: &Saved, channel: usize) -> (f32, f32) {
        let scale = self.gamma[channel] / (saved.variance[channel] + EPSILON).sqrt();
        (scale, self.beta[channel] - saved.mean[channel] * scale)
    }

    /// The output `[images, output, oh, ow]`, and what [`Layer::backward`] needs.
    fn forward(&self) -> (Vec<f32>, Saved) {
        let (g, x, weight) = (self.geometry, self.x, self.weight);
        let (chunk, area, depth) = (g.chunk(), g.out_area(), g.depth());
        let in_size = g.input * g.in_area();
        let out_size = g.output * area;
        let mut products = vec![0f32; g.images * out_size];
        let partial: Vec<Vec<(f64, f64)>> = products
            .par_chunks_mut(chunk * out_size)
            .zip(x.par_chunks(chunk * in_size))
            .map_init(
                || vec![0f32; depth * chunk * area],
                |columns, (z, x)| {
                    let m = z.len() / g.output;
                    let columns = &mut columns[..depth * m];
                    unfold(g, x, columns);
                    product(
                        Matrix::new(weight, g.output, depth, depth),
                        Matrix::new(columns, depth, m, m),
                        MatrixMut::new(z, g.output, m, m),
                        false,
                    );
                    z.chunks_exact(m).map(|row| sums(row, row)).collect()
                },
            )
            .collect();
        let count = (g.images * area) as f64;
        let mut mean = vec![0f32; g.output];
        let mut variance = vec![0f32; g.output];
        for channel in 0..g.output {
            let (sum, square) = partial.iter().fold((0.0, 0.0), |(s, q), chunk| {
                (s + chunk[channel].0, q + chunk[channel].1)
            });
            let mu = sum / count;
            mean[channel] = mu as f32;
            variance[channel] = (square / count - mu * mu).max(0.0) as f32;
        }
        let saved = Saved {
            products,
            mean,
            variance,
        };
        let mut y = vec![0f32; g.images * out_size];
        y.par_chunks_mut(chunk * out_size)
            .zip(saved.products.par_chunks(chunk * out_size))
            .for_each(|(y, z)| {
                let m = z.len() / g.output;
                for (i, to) in y.chunks_exact_mut(area).enumerate() {
                    let (image, channel) = (i / g.output, i % g.output);
                    let (scale, shift) = self.affine(&saved, channel);
                    let from = &z[channel * m + image * area..][..area];
                    let floor = if self.relu { 0.0 } else { f32::NEG_INFINITY };
                    for (a, b) in to.iter_mut().zip(from) {
                        *a = (b * scale + shift).max(floor);
                    }
                }
            });
        (y, saved)
    }

    /// The gradient at the norm's output, taken through the ReLU, brought to the layout of a chunk of products.
    fn output_gradient(&self, saved: &Saved, z: &[f32], dy: &[f32], to: &mut [f32]) {
        let g = self.geometry;
        let area = g.out_area();
        let m = z.len() / g.output;
        for (i, from) in dy.chunks_exact(area).enumerate() {
            let (image, channel) = (i / g.output, i % g.output);
            let at = channel * m + image * area;
            let to = &mut to[at..at + area];
            if self.relu {
                let (scale, shift) = self.affine(saved, channel);
                for ((t, d), z) in to.iter_mut().zip(from).zip(&z[at..at + area]) {
                    *t = if z * scale + shift > 0.0 { *d } else { 0.0 };
                }
            } else {
                to.copy_from_slice(from);
            }
        }
    }

    /// Gradients for `dy` `[images, output, oh, ow]`; that of `x` only if `want_x`.
    fn backward(&self, saved: &Saved, dy: &[f32], want_x: bool) -> Gradients {
        let (g, x, weight) = (self.geometry, self.x, self.weight);
        let (chunk, area, depth) = (g.chunk(), g.out_area(), g.depth());
        let in_size = g.input * g.in_area();
        let out_size = g.output * area;
        let mut dz = vec![0f32; g.images * out_size];
        // Sums of the gradient and of gradient times product, per channel.
        let partial: Vec<Vec<(f64, f64)>> = dz
            .par_chunks_mut(chunk * out_size)
            .zip(saved.products.par_chunks(chunk * out_size))
            .zip(dy.par_chunks(chunk * out_size))
            .map(|((d, z), dy)| {
                self.output_gradient(saved, z, dy, d);
                let m = z.len() / g.output;
                d.chunks_exact(m)
                    .zip(z.chunks_exact(m))
                    .map(|(d, z)| sums(d, z))
                    .collect()
            })
            .collect();
        let count = (g.images * area) as f64;
        let mut d_gamma = vec![0f32; g.output];
        let mut d_beta = vec![0f32; g.output];
        // dz = scale * (d - a - b * z), one pair (a, b) per channel.
        let mut terms = vec![(0f32, 0f32, 0f32); g.output];
        for channel in 0..g.output {
            let (sum, with_z) = partial.iter().fold((0.0, 0.0), |(s, q), chunk| {
                (s + chunk[channel].0, q + chunk[channel].1)
            });
            let mean = f64::from(saved.mean[channel]);
            let inverse = 1.0 / (f64::from(saved.variance[channel]) + f64::from(EPSILON)).sqrt();
            let with_normed = (with_z - mean * sum) * inverse;
            d_gamma[channel] = with_normed as f32;
            d_beta[channel] = sum as f32;
            let b = with_normed * inverse / count;
            let a = sum / count - b * mean;
            terms[channel] = (
                (f64::from(self.gamma[channel]) * inverse) as f32,
                a as f32,
                b as f32,
            );
        }
        let mut dx = if want_x {
            vec![0f32; g.images * in_size]
        } else {
            Vec::new()
        };
        let chunks = g.images.div_ceil(chunk);
        let dx_chunks: Vec<Option<&mut [f32]>> = if want_x {
            dx.chunks_mut(chunk * in_size).map(Some).collect()
        } else {
            (0..chunks).map(|_| None).collect()
        };
        let buffers = || {
            (
                vec![0f32; depth * chunk * area],
                vec![0f32; g.output * depth],
            )
        };
        let mut work: Vec<_> = dz
            .chunks_mut(chunk * out_size)
            .zip(saved.products.chunks(chunk * out_size))
            .zip(x.chunks(chunk * in_size))
            .zip(dx_chunks)
            .collect();
        // Fixed groups, added up in their order, so that the sum does not depend on which thread was free.
        let group = work.len().div_ceil(2 * rayon::current_num_threads());
        let of_groups: Vec<Vec<f32>> = work
            .par_chunks_mut(group.max(1))
            .map(|group| {
                let (mut columns, mut dw) = buffers();
                for (((d, z), x), dx) in group {
                    let m = z.len() / g.output;
                    for (channel, (d, z)) in
                        d.chunks_exact_mut(m).zip(z.chunks_exact(m)).enumerate()
                    {
                        let (scale, a, b) = terms[channel];
                        for (d, z) in d.iter_mut().zip(z) {
                            *d = scale * (*d - a - b * z);
                        }
                    }
                    let space = &mut columns[..depth * m];
                    unfold(g, x, space);
                    product(
                        Matrix::new(d, g.output, m, m),
                        Matrix::new(space, depth, m, m).transposed(),
                        MatrixMut::new(&mut dw, g.output, depth, depth),
                        true,
                    );
                    if let Some(dx) = dx {
                        product(
                            Matrix::new(weight, g.output, depth, depth).transposed(),
                            Matrix::new(d, g.output, m, m),
                            MatrixMut::new(space, depth, m, m),
                            false,
                        );
                        fold(g, space, dx);
                    }
                }
                dw
            })
            .collect();
        let mut d_weight = vec![0f32; g.output * depth];
        for part in of_groups {
            for (sum, value) in d_weight.iter_mut().zip(part) {
                *sum += value;
            }
        }
        Gradients {
            x: want_x.then_some(dx),
            weight: d_weight,
            gamma: d_gamma,
            beta: d_beta,
        }
    }
}
