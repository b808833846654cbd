//! A pre-norm residual block at inference: attention, then a two-layer perceptron (`ResidualAttentionBlock` of
//! openai/CLIP's `clip/model.py`).
//!
//! A batch is cut into groups of whole sequences that the threads of the current rayon pool share. A group is small
//! enough that intermediate values stay in the last-level cache and their memory is reused.

use rayon::prelude::*;

use crate::activation::Activation;
use crate::attention::Attention;
use crate::matrix::{Affine, Map};
use crate::norm::Norm;

/// Most rows of a group, unless a single sequence is longer.
const GROUP_ROWS: usize = 800;

/// Parameters of a block, whose maps are [`Affine`] or keep their weights in another format.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a, M = Affine<'a>> {
    /// Norm before attention.
    pub ln_1: Norm<'a>,
    /// Queries, keys and values, `[width, 3 width]`.
    pub in_proj: M,
    /// After attention, `[width, width]`.
    pub out_proj: M,
    /// Norm before the perceptron.
    pub ln_2: Norm<'a>,
    /// First layer of the perceptron, `[width, hidden]`.
    pub c_fc: M,
    /// Second layer, `[hidden, width]`.
    pub c_proj: M,
    /// Between the two.
    pub activation: Activation,
    /// Heads and masking; its width is the block's.
    pub attention: Attention,
}

/// Intermediate values of a block, reused from group to group.
#[derive(Default)]
struct Scratch {
    normed: Vec<f32>,
    projected: Vec<f32>,
    scores: Vec<f32>,
    attended: Vec<f32>,
}

impl<M: Map> Block<'_, M> {
    fn width(&self) -> usize {
        self.attention.width
    }

    /// Number of values in the sequences that one thread takes at a time, of `rows` rows in sequences of `tokens`.
    fn group(&self, rows: usize, tokens: usize) -> usize {
        let sequences = rows.div_ceil(tokens.max(1));
        let share = sequences.div_ceil(rayon::current_num_threads());
        let group = share.min(GROUP_ROWS / tokens.max(1)).max(1);
        group * tokens.max(1) * self.width()
    }

    /// Sequences `x` `[batch, tokens, width]`, in place.
    pub fn forward(&self, x: &mut [f32], tokens: usize) {
        let width = self.width();
        let group = self.group(x.len() / width, tokens);
        x.par_chunks_mut(group)
            .for_each_init(Scratch::default, |scratch, x| {
                let rows = x.len() / width;
                let normed = sized(&mut scratch.normed, x.len());
                self.ln_1.apply(x, normed);
                let qkv = sized(&mut scratch.projected, 3 * x.len());
                self.in_proj.apply(normed, 0, 3 * width, qkv, false);
                let attended = sized(&mut scratch.attended, x.len());
                for first in (0..rows).step_by(tokens) {
                    self.attention.within(
                        &qkv[first * 3 * width..(first + tokens) * 3 * width],
                        &mut scratch.scores,
                        &mut attended[first * width..(first + tokens) * width],
                    );
                }
                self.out_proj.apply(attended, 0, width, x, true);
                self.perceptron(x, scratch);
            });
    }

    /// The block's output for one row of each sequence of `x` `[batch, tokens, width]`: row `at[i]` of sequence `i`, as
    /// `[batch, width]`. Only keys and values are computed for the other rows.
    ///
    /// # Panics
    /// `at` is not as long as the batch, or points outside a sequence.
    pub fn forward_at(&self, x: &[f32], tokens: usize, at: &[usize]) -> Vec<f32> {
        let width = self.width();
        let sequence = tokens * width;
        assert_eq!(at.len() * sequence, x.len(), "one row for each sequence");
        let mut out: Vec<f32> = (x.chunks_exact(sequence).zip(at))
            .flat_map(|(x, at)| &x[at * width..(at + 1) * width])
            .copied()
            .collect();
        let mut attended = vec![0.0; out.len()];
        let group = self.group(x.len() / width, tokens);
        let sequences = group / sequence;
        (x.par_chunks(group))
            .zip(attended.par_chunks_mut(sequences * width))
            .zip(at.par_chunks(sequences))
            .for_each_init(Scratch::default, |scratch, ((x, attended), at)| {
                let normed = sized(&mut scratch.normed, x.len());
                self.ln_1.apply(x, normed);
                let kv = sized(&mut scratch.projected, 2 * x.len());
                self.in_proj.apply(normed, width, 2 * width, kv, false);
                let queries = sized(&mut scratch.attended, attended.len());
                let read: Vec<f32> = (normed.chunks_exact(sequence).zip(at))
                    .flat_map(|(normed, at)| &normed[at * width..(at + 1) * width])
                    .copied()
                    .collect();
                self.in_proj.apply(&read, 0, width, queries, false);
                for (i, at) in at.iter().enumerate() {
                    self.attention.of_one(
                        &queries[i * width..(i + 1) * width],
                        &kv[2 * i * sequence..2 * (i + 1) * sequence],
                        if self.attention.causal {
                            at + 1
                        } else {
                            tokens
                        },
                        &mut scratch.scores,
                        &mut attended[i * width..(i + 1) * width],
                    );
                }
            });
        let share = self.group(at.len(), 1);
        (out.par_chunks_mut(share).zip(attended.par_chunks(share))).for_each_init(
            Scratch::default,
            |scratch, (out, attended)| {
                self.out_proj.apply(attended, 0, width, out, true);
                self.perceptron(out, scratch);
            },
        );
        out
    }

    /// Rows `x` `[n, width]` through the value path alone, in place: `v = x + out_proj(V(ln_1(x)))`, `v + mlp(ln_2(v))`.
    pub fn forward_values(&self, x: &mut [f32]) {
        let width = self.width();
        let group = self.group(x.len() / width, 1);
        x.par_chunks_mut(group)
            .for_each_init(Scratch::default, |scratch, x| {
                let normed = sized(&mut scratch.normed, x.len());
                self.ln_1.apply(x, normed);
                let values = sized(&mut scratch.projected, x.len());
                self.in_proj.apply(normed, 2 * width, width, values, false);
                self.out_proj.apply(values, 0, width, x, true);
                self.perceptron(x, scratch);
            });
    }

    fn perceptron(&self, x: &mut [f32], scratch: &mut Scratch) {
        let width = self.width();
        let normed = sized(&mut scratch.normed, x.len());
        self.ln_2.apply(x, normed);
        let hidden = self.c_fc.bias().len();
        let between = sized(&mut scratch.projected, x.len() / width * hidden);
        self.c_fc.multiply(normed, 0, hidden, between, false);
        self.activation.apply_with_bias(between, self.c_fc.bias());
        self.c_proj.apply(between, 0, width, x, true);
    }
}

/// The first `length` values of a scratch vector, with arbitrary contents.
pub(crate) fn sized(scratch: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if scratch.len() < length {
        scratch.resize(length, 0.0);
    }
    &mut scratch[..length]
}
