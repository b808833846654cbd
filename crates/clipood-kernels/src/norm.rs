//! Layer norm (Ba, Kiros and Hinton 2016).

use crate::vectorized;

/// Sums run in this many fixed lanes, so that they do not depend on the instruction set.
const LANES: usize = 64;

/// Parameters of a layer norm with epsilon 1e-5.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// Factor, `[width]`.
    pub gamma: &'a [f32],
    /// Offset, `[width]`.
    pub beta: &'a [f32],
}

impl Norm<'_> {
    /// Rows `x` `[n, width]` normalised into `out` of the same size.
    pub(crate) fn apply(&self, x: &[f32], out: &mut [f32]) {
        let width = self.gamma.len().max(1);
        vectorized(|| {
            for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                let mean = sum(x, |v| v) / width as f32;
                let variance = sum(x, |v| (v - mean) * (v - mean)) / width as f32;
                let scale = 1.0 / (variance + 1e-5).sqrt();
                for (((out, v), g), b) in out.iter_mut().zip(x).zip(self.gamma).zip(self.beta) {
                    *out = (v - mean) * scale * g + b;
                }
            }
        });
    }

    /// Adds to `dx` the gradient of the input `x`, both `[n, width]`, given that of the output, `dy`.
    pub(crate) fn backward(&self, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let width = self.gamma.len().max(1);
        let n = width as f32;
        vectorized(|| {
            let rows = x.chunks_exact(width).zip(dy.chunks_exact(width));
            for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(width)) {
                let mean = sum(x, |v| v) / n;
                let variance = sum(x, |v| (v - mean) * (v - mean)) / n;
                let scale = 1.0 / (variance + 1e-5).sqrt();
                let along_one = sum_of(x, dy, self.gamma, |_, d, g| d * g) / n;
                let along_x = sum_of(x, dy, self.gamma, |v, d, g| (v - mean) * d * g) / n;
                let along_x = along_x * scale * scale;
                for (((dx, v), d), g) in dx.iter_mut().zip(x).zip(dy).zip(self.gamma) {
                    *dx += scale * (d * g - along_one - (v - mean) * along_x);
                }
            }
        });
    }
}

#[inline(always)]
fn sum(x: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += of(*v);
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane += of(*v);
    }
    total(lanes)
}

/// The sum of `of` over three slices of one length.
#[inline(always)]
fn sum_of(a: &[f32], b: &[f32], c: &[f32], of: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let (c, c_rest) = c.as_chunks::<LANES>();
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for (((lane, a), b), c) in lanes.iter_mut().zip(a).zip(b).zip(c) {
            *lane += of(*a, *b, *c);
        }
    }
    for (((lane, a), b), c) in lanes.iter_mut().zip(a_rest).zip(b_rest).zip(c_rest) {
        *lane += of(*a, *b, *c);
    }
    total(lanes)
}

#[inline(always)]
fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_definition_in_f64() {
        for width in [1usize, 3, 16, 63, 64, 65, 200, 768] {
            let x: Vec<f32> = (0..3 * width)
                .map(|i| 5.0 + ((i * 37) % 101) as f32 * 0.03)
                .collect();
            let gamma: Vec<f32> = (0..width).map(|i| 0.5 + i as f32 * 0.01).collect();
            let beta: Vec<f32> = (0..width).map(|i| i as f32 * 0.02 - 1.0).collect();
            let mut out = vec![0.0; x.len()];
            let norm = Norm {
                gamma: &gamma,
                beta: &beta,
            };
            norm.apply(&x, &mut out);
            for (x, out) in x.chunks_exact(width).zip(out.chunks_exact(width)) {
                let n = width as f64;
                let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
                let variance = x
                    .iter()
                    .map(|v| (f64::from(*v) - mean).powi(2))
                    .sum::<f64>()
                    / n;
                for i in 0..width {
                    let expected = (f64::from(x[i]) - mean) / (variance + 1e-5).sqrt()
                        * f64::from(gamma[i])
                        + f64::from(beta[i]);
                    let off = (f64::from(out[i]) - expected).abs();
                    assert!(off < 2e-5, "width {width}, column {i}: {off}");
                }
            }
        }
    }
}
