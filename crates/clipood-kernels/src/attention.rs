//! Attention of one head after the other, read from and written to the rows that the projections use.

use crate::exp::exp;
use crate::matrix::{Matrix, MatrixMut, product};
use crate::vectorized;

/// Layout of queries, keys and values, and masking.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    /// Heads; they share the columns of a row evenly.
    pub heads: usize,
    /// Columns of all heads together.
    pub width: usize,
    /// A query sees the keys up to its own position only.
    pub causal: bool,
}

impl Attention {
    /// Attention inside one sequence: the rows of `qkv` `[tokens, 3 width]` hold queries, keys and values side by side.
    /// Writes the queries from `first` on, `[n, width]`; `scores` is scratch.
    pub(crate) fn within(&self, qkv: &[f32], first: usize, scores: &mut Vec<f32>, out: &mut [f32]) {
        let (width, stride) = (self.width, 3 * self.width);
        let (tokens, queries) = (qkv.len() / stride.max(1), out.len() / width.max(1));
        let head = width / self.heads.max(1);
        scores.resize(queries * tokens, 0.0);
        for column in (0..width).step_by(head.max(1)) {
            let part = |i: usize| Matrix::new(&qkv[i * width + column..], tokens, head, stride);
            let asking = Matrix::new(&qkv[first * stride + column..], queries, head, stride);
            let all = MatrixMut::new(scores, queries, tokens, tokens);
            product(asking, part(1).transposed(), all, false);
            for (query, row) in scores.chunks_exact_mut(tokens).enumerate() {
                let seen = match self.causal {
                    true => first + query + 1,
                    false => tokens,
                };
                softmax(row, seen, head);
            }
            let out = MatrixMut::new(&mut out[column..], queries, head, width);
            let scores = Matrix::new(scores, queries, tokens, tokens);
            product(scores, part(2), out, false);
        }
    }

    /// One `query` `[width]` over the first `seen` rows of `kv` `[tokens, 2 width]`, keys and values side by side.
    /// Writes `[width]`; `scores` is scratch.
    pub(crate) fn of_one(
        &self,
        query: &[f32],
        kv: &[f32],
        seen: usize,
        scores: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let (width, stride) = (self.width, 2 * self.width);
        let head = width / self.heads.max(1);
        scores.resize(seen, 0.0);
        for column in (0..width).step_by(head.max(1)) {
            let part = |i: usize| Matrix::new(&kv[i * width + column..], seen, head, stride);
            let query = Matrix::new(&query[column..], 1, head, width);
            let all = MatrixMut::new(scores, 1, seen, seen);
            product(query, part(0).transposed(), all, false);
            softmax(scores, seen, head);
            let out = MatrixMut::new(&mut out[column..], 1, head, width);
            product(Matrix::new(scores, 1, seen, seen), part(1), out, false);
        }
    }
}

/// Sums and maxima run in this many fixed lanes, so that they do not depend on the instruction set.
const LANES: usize = 64;

/// The softmax of `row / sqrt(head)` over its first `seen` entries; the others become 0.
pub(crate) fn softmax(row: &mut [f32], seen: usize, head: usize) {
    let scale = 1.0 / (head as f32).sqrt();
    let (row, unseen) = row.split_at_mut(seen);
    unseen.fill(0.0);
    vectorized(|| {
        let (chunks, rest) = row.as_chunks::<LANES>();
        let mut lanes = [f32::NEG_INFINITY; LANES];
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane = if *x > *lane { *x } else { *lane };
            }
        }
        let largest = lanes
            .iter()
            .chain(rest)
            .fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let (chunks, rest) = row.as_chunks_mut::<LANES>();
        let mut lanes = [0f32; LANES];
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *x = exp((*x - largest) * scale);
                *lane += *x;
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *x = exp((*x - largest) * scale);
            *lane += *x;
        }
        let factor = 1.0 / lanes.iter().sum::<f32>();
        for x in row {
            *x *= factor;
        }
    });
}
