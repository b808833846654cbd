//! Training-mode convolution + batch norm (+ ReLU) on float32 slices, forward and backward.
//!
//! The images are cut into chunks that fit a core's cache; a chunk is unfolded (im2col), multiplied, and its rows are
//! channels, so that batch statistics are sums over contiguous memory. Formulas of the normalisation's gradient:
//! Ioffe and Szegedy 2015, section 3. Only what a ModifiedResNet needs: square kernels of 1 or 3, "same" padding.

use rayon::prelude::*;

/// Sizes of one convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub images: usize,
    pub input: usize,
    pub height: usize,
    pub width: usize,
    pub output: usize,
    pub kernel: usize,
    pub stride: usize,
}

impl Geometry {
    pub fn out_height(&self) -> usize {
        (self.height - 1) / self.stride + 1
    }

    pub fn out_width(&self) -> usize {
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

    /// Images a chunk: about 1.5 MB unfolded, and at least two chunks a thread where there are enough images.
    fn chunk(&self) -> usize {
        let by_cache = 400_000 / (self.depth() * self.out_area()).max(1);
        let by_threads = self.images / (2 * rayon::current_num_threads());
        by_cache.min(by_threads).max(1)
    }
}

/// What the backward pass needs of the forward pass.
#[derive(Debug, Clone)]
pub(super) struct Saved {
    /// Products before the norm, chunk by chunk `[output, chunk * area]`.
    products: Vec<f32>,
    /// Mean of each output channel over batch and positions.
    pub mean: Vec<f32>,
    /// Biased variance of each output channel.
    pub variance: Vec<f32>,
}

/// Gradients of one convolution and its norm.
pub(super) struct Gradients {
    pub x: Option<Vec<f32>>,
    pub weight: Vec<f32>,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
}

const EPSILON: f32 = 1e-5;

/// `c[m, n] = a[m, k] * b[k, n]`, strides in elements as (row, column); `add` keeps what is in `c`.
#[allow(clippy::too_many_arguments)]
fn product(
    [m, n, k]: [usize; 3],
    a: &[f32],
    a_strides: (usize, usize),
    b: &[f32],
    b_strides: (usize, usize),
    c: &mut [f32],
    add: bool,
) {
    debug_assert!(c.len() >= m * n && a.len() >= m * k && b.len() >= k * n);
    // SAFETY: the slices hold the matrices (asserted above) and `c` is not aliased.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            add,
            a.as_ptr(),
            a_strides.1 as isize,
            a_strides.0 as isize,
            b.as_ptr(),
            b_strides.1 as isize,
            b_strides.0 as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
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

/// Scale and shift that turn a product into the norm's output.
fn affine(saved: &Saved, gamma: &[f32], beta: &[f32], channel: usize) -> (f32, f32) {
    let scale = gamma[channel] / (saved.variance[channel] + EPSILON).sqrt();
    (scale, beta[channel] - saved.mean[channel] * scale)
}

/// `x` `[images, input, height, width]`, `weight` `[output, input, kernel, kernel]` -> `[images, output, oh, ow]`.
pub(super) fn forward(
    g: &Geometry,
    x: &[f32],
    weight: &[f32],
    gamma: &[f32],
    beta: &[f32],
    relu: bool,
) -> (Vec<f32>, Saved) {
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
                    [g.output, m, depth],
                    weight,
                    (depth, 1),
                    columns,
                    (m, 1),
                    z,
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
                let (scale, shift) = affine(&saved, gamma, beta, channel);
                let from = &z[channel * m + image * area..][..area];
                let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
                for (a, b) in to.iter_mut().zip(from) {
                    *a = (b * scale + shift).max(floor);
                }
            }
        });
    (y, saved)
}

/// The gradient at the norm's output, taken through the ReLU, brought to the layout of a chunk of products.
fn output_gradient(
    g: &Geometry,
    saved: (&Saved, &[f32]),
    (gamma, beta): (&[f32], &[f32]),
    relu: bool,
    dy: &[f32],
    to: &mut [f32],
) {
    let (saved, z) = saved;
    let area = g.out_area();
    let m = z.len() / g.output;
    for (i, from) in dy.chunks_exact(area).enumerate() {
        let (image, channel) = (i / g.output, i % g.output);
        let at = channel * m + image * area;
        let to = &mut to[at..at + area];
        if relu {
            let (scale, shift) = affine(saved, gamma, beta, channel);
            for ((t, d), z) in to.iter_mut().zip(from).zip(&z[at..at + area]) {
                *t = if z * scale + shift > 0.0 { *d } else { 0.0 };
            }
        } else {
            to.copy_from_slice(from);
        }
    }
}

/// Gradients for `dy` `[images, output, oh, ow]`; that of `x` only if `want_x`.
#[allow(clippy::too_many_arguments)]
pub(super) fn backward(
    g: &Geometry,
    x: &[f32],
    weight: &[f32],
    (gamma, beta): (&[f32], &[f32]),
    relu: bool,
    saved: &Saved,
    dy: &[f32],
    want_x: bool,
) -> Gradients {
    let (chunk, area, depth) = (g.chunk(), g.out_area(), g.depth());
    let in_size = g.input * g.in_area();
    let out_size = g.output * area;
    let mut dz = vec![0f32; g.images * out_size];
    // Sums of the gradient and of gradient times product, a channel.
    let partial: Vec<Vec<(f64, f64)>> = dz
        .par_chunks_mut(chunk * out_size)
        .zip(saved.products.par_chunks(chunk * out_size))
        .zip(dy.par_chunks(chunk * out_size))
        .map(|((d, z), dy)| {
            output_gradient(g, (saved, z), (gamma, beta), relu, dy, d);
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
    // dz = scale * (d - a - b * z), one pair (a, b) a channel.
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
            (f64::from(gamma[channel]) * inverse) as f32,
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
    let d_weight = dz
        .par_chunks_mut(chunk * out_size)
        .zip(saved.products.par_chunks(chunk * out_size))
        .zip(x.par_chunks(chunk * in_size))
        .zip(dx_chunks)
        .fold(buffers, |(mut columns, mut dw), (((d, z), x), dx)| {
            let m = z.len() / g.output;
            for (channel, (d, z)) in d.chunks_exact_mut(m).zip(z.chunks_exact(m)).enumerate() {
                let (scale, a, b) = terms[channel];
                for (d, z) in d.iter_mut().zip(z) {
                    *d = scale * (*d - a - b * z);
                }
            }
            let space = &mut columns[..depth * m];
            unfold(g, x, space);
            product(
                [g.output, depth, m],
                d,
                (m, 1),
                space,
                (1, m),
                &mut dw,
                true,
            );
            if let Some(dx) = dx {
                product(
                    [depth, m, g.output],
                    weight,
                    (1, depth),
                    d,
                    (m, 1),
                    space,
                    false,
                );
                fold(g, space, dx);
            }
            (columns, dw)
        })
        .map(|(_, dw)| dw)
        .reduce(
            || vec![0f32; g.output * depth],
            |mut a, b| {
                for (a, b) in a.iter_mut().zip(b) {
                    *a += b;
                }
                a
            },
        );
    Gradients {
        x: want_x.then_some(dx),
        weight: d_weight,
        gamma: d_gamma,
        beta: d_beta,
    }
}
