//! The attention pooling of a ModifiedResNet (`AttentionPool2d` of openai/CLIP's `clip/model.py`).
//!
//! The mean of all positions is the only query, so that neither keys nor values of the positions are needed: with the rows
//! `t` of mean and positions and one head's maps, the logits `q (K t + k)` are `(K^T q) t` plus what is the same for all
//! positions, which a softmax does not see, and the output `sum p (V t + v)` is `V (sum p t) + v`. That is a product per
//! head in place of two per position.

use crate::attention::softmax;
use crate::block::sized;
use crate::matrix::{Affine, Map, Matrix, MatrixMut, product};
use crate::packed::{Format, Packed};
use crate::share::{Share, Then};

/// Parameters, as a checkpoint holds them: weights are `[output, input]`.
#[derive(Debug, Clone, Copy)]
pub struct PoolParameters<'a> {
    /// `[1 + positions, channels]`, the mean's first.
    pub positions: &'a [f32],
    /// Queries, `[channels, channels]` and `[channels]`.
    pub queries: (&'a [f32], &'a [f32]),
    /// Weight of the keys; their bias has no effect.
    pub keys: &'a [f32],
    /// Values, `[channels, channels]` and `[channels]`.
    pub values: (&'a [f32], &'a [f32]),
    /// Projection, `[dim, channels]` and `[dim]`.
    pub projection: (&'a [f32], &'a [f32]),
    /// Heads; they share the channels evenly.
    pub heads: usize,
}

/// The pooling in float32.
#[derive(Debug, Clone)]
pub(crate) struct AttentionPool {
    positions: Vec<f32>,
    queries: Packed,
    /// From the query of each head to the channels.
    keys: Vec<Packed>,
    values: Packed,
    projection: Packed,
}

impl AttentionPool {
    pub fn new(p: &PoolParameters<'_>) -> Option<Self> {
        let channels = p.values.1.len();
        let pack = |(weight, bias): (&[f32], &[f32])| {
            let matrix = Matrix::new(weight, bias.len(), channels, channels);
            Packed::new(matrix.transposed(), bias, Format::F32)
        };
        let none = vec![0.0; channels];
        let keys = (p.keys.chunks_exact(channels / p.heads.max(1) * channels)).map(|weight| {
            let head = Affine {
                weight,
                bias: &none,
            };
            Packed::new(head.matrix(), &none, Format::F32)
        });
        Some(Self {
            positions: p.positions.to_vec(),
            queries: pack(p.queries)?,
            keys: keys.collect::<Option<_>>()?,
            values: pack(p.values)?,
            projection: pack(p.projection)?,
        })
    }

    /// Length of a feature.
    pub fn dim(&self) -> usize {
        self.projection.bias().len()
    }

    /// Images `x` `[batch, positions, channels]` -> global features `[batch, dim]`.
    pub fn global(&self, x: &[f32], share: Share) -> Vec<f32> {
        let channels = self.values.bias().len();
        let image = self.positions.len() - channels;
        let (batch, heads) = (x.len() / image, self.keys.len());
        let (head, rows) = (channels / heads, image / channels + 1);
        let mut tokens = vec![0.0; batch * self.positions.len()];
        share.chunks(&mut tokens, self.positions.len(), |i, tokens| {
            self.tokens(&x[i * image..(i + 1) * image], tokens);
        });
        let means = gather(&tokens, self.positions.len(), 0, channels);
        let mut queries = vec![0.0; batch * channels];
        share.apply(
            &self.queries,
            &means,
            0..channels,
            &mut queries,
            Then::Nothing,
        );
        // [heads, batch, channels]
        let mut asked = vec![0.0; heads * batch * channels];
        share.chunks(&mut asked, batch * channels, |h, asked| {
            let queries = gather(&queries, channels, h * head, head);
            self.keys[h].multiply(&queries, 0, channels, asked, false);
        });
        // [batch, heads, channels]
        let mut seen = vec![0.0; batch * heads * channels];
        share.chunks(&mut seen, heads * channels, |i, seen| {
            let tokens = &tokens[i * self.positions.len()..(i + 1) * self.positions.len()];
            let tokens = Matrix::new(tokens, rows, channels, channels);
            let asked = Matrix::new(&asked[i * channels..], heads, channels, batch * channels);
            let mut scores = vec![0.0; heads * rows];
            let to = MatrixMut::new(&mut scores, heads, rows, rows);
            product(asked, tokens.transposed(), to, false);
            for scores in scores.chunks_exact_mut(rows) {
                softmax(scores, rows, head);
            }
            let scores = Matrix::new(&scores, heads, rows, rows);
            product(
                scores,
                tokens,
                MatrixMut::new(seen, heads, channels, channels),
                false,
            );
        });
        // [heads, batch, head]
        let mut parts = vec![0.0; batch * channels];
        share.chunks(&mut parts, batch * head, |h, part| {
            let seen = gather(&seen, heads * channels, h * channels, channels);
            self.values.apply(&seen, h * head, head, part, false);
        });
        let mut attended = vec![0.0; batch * channels];
        for (h, part) in parts.chunks_exact(batch * head).enumerate() {
            for (to, from) in attended
                .chunks_exact_mut(channels)
                .zip(part.chunks_exact(head))
            {
                to[h * head..(h + 1) * head].copy_from_slice(from);
            }
        }
        let mut global = vec![0.0; batch * self.dim()];
        share.apply(
            &self.projection,
            &attended,
            0..self.dim(),
            &mut global,
            Then::Nothing,
        );
        global
    }

    /// Positions `x` `[n, channels]` through values and projection alone -> `[n, dim]`.
    pub fn local(&self, x: &[f32], share: Share) -> Vec<f32> {
        let mut values = Vec::new();
        let values = sized(&mut values, x.len());
        let channels = self.values.bias().len();
        share.apply(&self.values, x, 0..channels, values, Then::Nothing);
        let mut local = vec![0.0; x.len() / channels * self.dim()];
        share.apply(
            &self.projection,
            values,
            0..self.dim(),
            &mut local,
            Then::Nothing,
        );
        local
    }

    /// Mean and positions of one image, each with its own embedding.
    fn tokens(&self, x: &[f32], tokens: &mut [f32]) {
        let channels = self.values.bias().len();
        let (mean, positions) = tokens.split_at_mut(channels);
        mean.fill(0.0);
        for pixel in x.chunks_exact(channels) {
            for (mean, value) in mean.iter_mut().zip(pixel) {
                *mean += value;
            }
        }
        let count = (x.len() / channels) as f32;
        mean.iter_mut().for_each(|mean| *mean /= count);
        positions.copy_from_slice(x);
        for (token, position) in tokens.iter_mut().zip(&self.positions) {
            *token += position;
        }
    }
}

/// `count` values from `first` on of every row of `stride` values.
fn gather(rows: &[f32], stride: usize, first: usize, count: usize) -> Vec<f32> {
    let rows = rows.chunks_exact(stride);
    rows.flat_map(|row| &row[first..first + count])
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        let mix = |i: usize| ((i + seed) * 2_654_435_761) >> 5;
        (0..n)
            .map(|i| (mix(i) % 2001) as f32 / 1000.0 - 1.0)
            .collect()
    }

    /// `[output, input]` weight and bias applied to a row, in double precision.
    fn affine(x: &[f64], weight: &[f32], bias: &[f32]) -> Vec<f64> {
        (weight.chunks_exact(x.len()).zip(bias))
            .map(|(row, b)| {
                let products = row.iter().zip(x).map(|(w, x)| f64::from(*w) * x);
                products.sum::<f64>() + f64::from(*b)
            })
            .collect()
    }

    #[test]
    fn features_are_those_of_keys_and_values_at_every_position() {
        let (batch, count, channels, heads, dim) = (3, 9, 24, 3, 10);
        let head = channels / heads;
        let square = channels * channels;
        let (q, k, v) = (values(square, 1), values(square, 2), values(square, 3));
        let (qb, kb, vb) = (
            values(channels, 4),
            values(channels, 5),
            values(channels, 6),
        );
        let (c, cb) = (values(dim * channels, 7), values(dim, 8));
        let positions = values((count + 1) * channels, 9);
        let x = values(batch * count * channels, 10);
        let pool = AttentionPool::new(&PoolParameters {
            positions: &positions,
            queries: (&q, &qb),
            keys: &k,
            values: (&v, &vb),
            projection: (&c, &cb),
            heads,
        })
        .unwrap();
        let mut expected = Vec::new();
        for image in x.chunks_exact(count * channels) {
            let mean = |i: usize| -> f64 {
                let values = image.iter().skip(i).step_by(channels);
                values.map(|v| f64::from(*v)).sum::<f64>() / count as f64
            };
            let mut tokens: Vec<f64> = (0..channels).map(mean).collect();
            tokens.extend(image.iter().map(|v| f64::from(*v)));
            for (token, position) in tokens.iter_mut().zip(&positions) {
                *token += f64::from(*position);
            }
            let rows: Vec<&[f64]> = tokens.chunks_exact(channels).collect();
            let query = affine(rows[0], &q, &qb);
            let keys: Vec<_> = rows.iter().map(|row| affine(row, &k, &kb)).collect();
            let seen: Vec<_> = rows.iter().map(|row| affine(row, &v, &vb)).collect();
            let mut attended = vec![0.0; channels];
            for h in 0..heads {
                let part = h * head..(h + 1) * head;
                let logit = |key: &Vec<f64>| {
                    let products = query[part.clone()].iter().zip(&key[part.clone()]);
                    (products.map(|(a, b)| a * b).sum::<f64>() / (head as f64).sqrt()).exp()
                };
                let weights: Vec<f64> = keys.iter().map(logit).collect();
                let total: f64 = weights.iter().sum();
                for (weight, value) in weights.iter().zip(&seen) {
                    for i in part.clone() {
                        attended[i] += weight / total * value[i];
                    }
                }
            }
            expected.extend(affine(&attended, &c, &cb));
        }
        for share in [Share::One, Share::All] {
            for (found, expected) in pool.global(&x, share).iter().zip(&expected) {
                let off = (f64::from(*found) - expected).abs();
                assert!(off < 1e-4, "{found} and {expected}");
            }
            let local = pool.local(&x, share);
            assert_eq!(local.len(), batch * count * dim);
            let pixel: Vec<f64> = x[channels..2 * channels]
                .iter()
                .map(|v| f64::from(*v))
                .collect();
            let expected = affine(&affine(&pixel, &v, &vb), &c, &cb);
            for (found, expected) in local[dim..2 * dim].iter().zip(&expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-4);
            }
        }
    }
}
