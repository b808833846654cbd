//! Causal attention of sequences of different lengths that share their first tokens, forwards and backwards.
//!
//! The keys and values of the shared tokens meet all queries in one product per head; what a sequence adds are a few tokens
//! of its own, which plain loops handle.

use crate::attention::softmax;
use crate::matrix::{Matrix, MatrixMut, product};
use crate::vectorized;

/// Sequences of a group and what they attend to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ragged<'a> {
    pub heads: usize,
    pub width: usize,
    /// Keys and values of the tokens before every sequence, `[shared, 2 width]`.
    pub shared: &'a [f32],
    /// Tokens of each sequence.
    pub lengths: &'a [usize],
    /// Queries of each sequence, which are its last tokens: all of them, one or none.
    pub queries: Queries,
}

/// How many tokens of a sequence are queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queries {
    All,
    Last,
    None,
}

impl Queries {
    pub fn of(self, length: usize) -> usize {
        match self {
            Queries::All => length,
            Queries::Last => length.min(1),
            Queries::None => 0,
        }
    }
}

/// What a forward pass read and left, for the backward pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept<'a> {
    /// Queries `[rows, width]`.
    pub q: &'a [f32],
    /// Keys and values of the sequences' own tokens, `[tokens, 2 width]`.
    pub kv: &'a [f32],
    /// What [`Ragged::forward`] left.
    pub probabilities: &'a [f32],
}

/// Gradients of the operands of [`Ragged::forward`], of the same shapes.
#[derive(Debug)]
pub(crate) struct Gradients<'a> {
    /// Of the queries; overwritten.
    pub q: &'a mut [f32],
    /// Of the sequences' own keys and values; overwritten.
    pub kv: &'a mut [f32],
    /// Of the shared keys and values; added to.
    pub shared: &'a mut [f32],
}

/// One sequence in one head.
#[derive(Clone, Copy)]
struct Span {
    /// First row among the queries.
    query: usize,
    /// First row among all tokens.
    token: usize,
    /// Number of queries.
    queries: usize,
    /// Number of tokens.
    tokens: usize,
    /// First column of the head.
    column: usize,
}

impl Ragged<'_> {
    /// Rows of queries of all sequences.
    pub fn rows(&self) -> usize {
        self.lengths.iter().map(|n| self.queries.of(*n)).sum()
    }

    fn shared_rows(&self) -> usize {
        self.shared.len() / (2 * self.width).max(1)
    }

    /// Entries of a row of probabilities.
    fn stride(&self) -> usize {
        self.shared_rows() + self.lengths.iter().max().copied().unwrap_or(0)
    }

    /// The sequences in the head whose first column is `column`.
    fn spans(&self, column: usize) -> impl Iterator<Item = Span> + '_ {
        let mut next = (0, 0);
        self.lengths.iter().map(move |tokens| {
            let queries = self.queries.of(*tokens);
            let (query, token) = next;
            next = (query + queries, token + tokens);
            Span {
                query,
                token,
                queries,
                tokens: *tokens,
                column,
            }
        })
    }

    /// Queries `q` `[rows, width]`, keys and values `kv` `[tokens, 2 width]` -> `out` `[rows, width]`; leaves the attention
    /// probabilities in `probabilities` for [`Ragged::backward`].
    pub fn forward(&self, q: &[f32], kv: &[f32], probabilities: &mut Vec<f32>, out: &mut [f32]) {
        let (rows, shared, stride) = (self.rows(), self.shared_rows(), self.stride());
        let (width, head) = (self.width, self.width / self.heads.max(1));
        probabilities.clear();
        probabilities.resize(self.heads * rows * stride, 0.0);
        out.fill(0.0);
        if rows == 0 {
            return;
        }
        for h in 0..self.heads {
            let column = h * head;
            let p = &mut probabilities[h * rows * stride..(h + 1) * rows * stride];
            if shared > 0 {
                product(
                    Matrix::new(&q[column..], rows, head, width),
                    Matrix::new(&self.shared[column..], shared, head, 2 * width).transposed(),
                    MatrixMut::new(p, rows, shared, stride),
                    false,
                );
            }
            for span in self.spans(column) {
                vectorized(|| self.scores(span, q, kv, p));
                for i in 0..span.queries {
                    let seen = shared + span.tokens - span.queries + i + 1;
                    softmax(&mut p[(span.query + i) * stride..][..stride], seen, head);
                }
            }
            if shared > 0 {
                product(
                    Matrix::new(p, rows, shared, stride),
                    Matrix::new(&self.shared[width + column..], shared, head, 2 * width),
                    MatrixMut::new(&mut out[column..], rows, head, width),
                    false,
                );
            }
            for span in self.spans(column) {
                vectorized(|| self.mix(span, kv, p, out));
            }
        }
    }

    /// Dot products of a sequence's queries with its own keys.
    #[inline(always)]
    fn scores(&self, span: Span, q: &[f32], kv: &[f32], p: &mut [f32]) {
        let column = span.column;
        let (width, head) = (self.width, self.width / self.heads);
        let (shared, stride) = (self.shared_rows(), self.stride());
        for i in 0..span.queries {
            let q = &q[(span.query + i) * width + column..][..head];
            let row = &mut p[(span.query + i) * stride + shared..];
            for (j, score) in row[..=span.tokens - span.queries + i]
                .iter_mut()
                .enumerate()
            {
                *score = dot(q, &kv[(span.token + j) * 2 * width + column..][..head]);
            }
        }
    }

    /// Adds a sequence's own values, weighted.
    #[inline(always)]
    fn mix(&self, span: Span, kv: &[f32], p: &[f32], out: &mut [f32]) {
        let column = span.column;
        let (width, head) = (self.width, self.width / self.heads);
        let (shared, stride) = (self.shared_rows(), self.stride());
        for i in 0..span.queries {
            let out = &mut out[(span.query + i) * width + column..][..head];
            let row = &p[(span.query + i) * stride + shared..];
            for (j, weight) in row[..=span.tokens - span.queries + i].iter().enumerate() {
                let value = &kv[(span.token + j) * 2 * width + width + column..][..head];
                add_scaled(out, *weight, value);
            }
        }
    }

    /// From the gradient `dout` `[rows, width]` of the output to those of the operands; the contents of `scratch` do not
    /// matter.
    pub fn backward(
        &self,
        kept: Kept<'_>,
        dout: &[f32],
        scratch: &mut Vec<f32>,
        gradients: Gradients<'_>,
    ) {
        let Kept {
            q,
            kv,
            probabilities,
        } = kept;
        let Gradients {
            q: dq,
            kv: dkv,
            shared: dshared,
        } = gradients;
        let (rows, shared, stride) = (self.rows(), self.shared_rows(), self.stride());
        let (width, head) = (self.width, self.width / self.heads.max(1));
        dq.fill(0.0);
        dkv.fill(0.0);
        if rows == 0 {
            return;
        }
        scratch.clear();
        scratch.resize(rows * stride, 0.0);
        let scale = 1.0 / (head as f32).sqrt();
        for h in 0..self.heads {
            let column = h * head;
            let p = &probabilities[h * rows * stride..(h + 1) * rows * stride];
            let of_head = Kept {
                q,
                kv,
                probabilities: p,
            };
            let ds = &mut scratch[..];
            let dout_head = Matrix::new(&dout[column..], rows, head, width);
            if shared > 0 {
                let values = &self.shared[width + column..];
                product(
                    dout_head,
                    Matrix::new(values, shared, head, 2 * width).transposed(),
                    MatrixMut::new(ds, rows, shared, stride),
                    false,
                );
                product(
                    Matrix::new(p, rows, shared, stride).transposed(),
                    dout_head,
                    MatrixMut::new(&mut dshared[width + column..], shared, head, 2 * width),
                    true,
                );
            }
            for span in self.spans(column) {
                vectorized(|| self.values_back(span, of_head, dout, ds, dkv));
                for i in 0..span.queries {
                    let at = (span.query + i) * stride;
                    let seen = shared + span.tokens - span.queries + i + 1;
                    vectorized(|| softmax_back(&p[at..at + seen], &mut ds[at..at + seen], scale));
                }
                vectorized(|| self.keys_back(span, of_head, ds, dq, dkv));
            }
            if shared > 0 {
                product(
                    Matrix::new(ds, rows, shared, stride),
                    Matrix::new(&self.shared[column..], shared, head, 2 * width),
                    MatrixMut::new(&mut dq[column..], rows, head, width),
                    true,
                );
                product(
                    Matrix::new(ds, rows, shared, stride).transposed(),
                    Matrix::new(&q[column..], rows, head, width),
                    MatrixMut::new(&mut dshared[column..], shared, head, 2 * width),
                    true,
                );
            }
        }
    }

    /// Gradients of a sequence's own values, and of the probabilities of one head that weight them.
    #[inline(always)]
    fn values_back(
        &self,
        span: Span,
        kept: Kept<'_>,
        dout: &[f32],
        dp: &mut [f32],
        dkv: &mut [f32],
    ) {
        let (kv, p) = (kept.kv, kept.probabilities);
        let column = span.column;
        let (width, head) = (self.width, self.width / self.heads);
        let (shared, stride) = (self.shared_rows(), self.stride());
        for i in 0..span.queries {
            let row = (span.query + i) * stride + shared;
            let dout = &dout[(span.query + i) * width + column..][..head];
            for j in 0..=span.tokens - span.queries + i {
                let value = (span.token + j) * 2 * width + width + column;
                dp[row + j] = dot(dout, &kv[value..][..head]);
                add_scaled(&mut dkv[value..][..head], p[row + j], dout);
            }
        }
    }

    /// Gradients of a sequence's queries and own keys.
    #[inline(always)]
    fn keys_back(&self, span: Span, kept: Kept<'_>, ds: &[f32], dq: &mut [f32], dkv: &mut [f32]) {
        let (q, kv) = (kept.q, kept.kv);
        let column = span.column;
        let (width, head) = (self.width, self.width / self.heads);
        let (shared, stride) = (self.shared_rows(), self.stride());
        for i in 0..span.queries {
            let row = (span.query + i) * stride + shared;
            let query = (span.query + i) * width + column;
            for j in 0..=span.tokens - span.queries + i {
                let key = (span.token + j) * 2 * width + column;
                add_scaled(&mut dq[query..][..head], ds[row + j], &kv[key..][..head]);
                add_scaled(&mut dkv[key..][..head], ds[row + j], &q[query..][..head]);
            }
        }
    }
}

/// `dp` becomes the gradient of the scores before the softmax: `scale p (dp - sum p dp)`.
#[inline(always)]
fn softmax_back(p: &[f32], dp: &mut [f32], scale: f32) {
    let mean = dot(p, dp);
    for (d, p) in dp.iter_mut().zip(p) {
        *d = scale * p * (*d - mean);
    }
}

/// In fixed lanes, so that it does not depend on the instruction set.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0f32; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

#[inline(always)]
fn add_scaled(out: &mut [f32], factor: f32, x: &[f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out += factor * x;
    }
}
