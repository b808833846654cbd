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
        share.apply(&self.queries, &means, 0..channels, &mut queries, Then::Nothing);
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
        share.apply(&self.projection, &attended, 0..self.dim(), &mut global, Then::Nothing);
        global
    }

    /// Positions `x` `[n, channels]` through values and projection alone -> `[n, dim]`.
    pub fn local(&self, x: &[f32], share: Share) -> Vec<f32> {
        let mut values = Vec::new();
        let values = sized(&mut values, x.len());
        let channels = self.values.bias().len();
        share.apply(&self.values, x, 0..channels, values, Then::Nothing);
        let mut local = vec![0.0; x.len() / channels * self.dim()];
        share.apply(&self.projection, values, 0..self.dim(), &mut local, Then::Nothing);
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
