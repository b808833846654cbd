//! A pre-norm residual block at inference: attention, then a two-layer perceptron (`ResidualAttentionBlock` of
//! openai/CLIP's `clip/model.py`).
//!
//! A batch is cut into groups of whole sequences that the threads of the current rayon pool share. A group is small
//! enough that intermediate values stay in the last-level cache. With fewer sequences than threads, or a few that do not
//! divide evenly, each thread takes some rows instead, and with few rows the threads share the columns of each map.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use rayon::prelude::*;

use crate::activation::Activation;
use crate::attention::Attention;
use crate::matrix::{Affine, Map};
use crate::norm::Norm;
use crate::share::{BUSY_ROWS, Share, Then, of_batch};

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

/// Intermediate values of a block.
#[derive(Default)]
struct Scratch {
    normed: Vec<f32>,
    projected: Vec<f32>,
    scores: Vec<f32>,
    attended: Vec<f32>,
}

/// Memory for intermediate values, reused from block to block of a pass: fresh memory costs a page fault every 4 KiB.
#[derive(Default)]
pub struct Buffers(Mutex<Vec<Scratch>>);

/// A [`Scratch`] that goes back when it is dropped.
struct Lent<'a> {
    scratch: Scratch,
    owner: &'a Buffers,
}

impl Buffers {
    fn lend(&self) -> Lent<'_> {
        let held = self.0.lock().ok().and_then(|mut held| held.pop());
        Lent {
            scratch: held.unwrap_or_default(),
            owner: self,
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Ok(mut held) = self.owner.0.lock() {
            held.push(std::mem::take(&mut self.scratch));
        }
    }
}

impl Deref for Lent<'_> {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        &self.scratch
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Scratch {
        &mut self.scratch
    }
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
    pub fn forward(&self, x: &mut [f32], tokens: usize, buffers: &Buffers) {
        let width = self.width();
        let rows = x.len() / width;
        if of_batch(rows / tokens.max(1)) == Share::All {
            return match rows >= BUSY_ROWS * rayon::current_num_threads() {
                true => self.forward_by_rows(x, tokens, buffers),
                false => self.forward_by_columns(x, tokens),
            };
        }
        x.par_chunks_mut(self.group(rows, tokens)).for_each_init(
            || buffers.lend(),
            |scratch, x| {
                let mut qkv = std::mem::take(&mut scratch.projected);
                let normed = sized(&mut scratch.normed, x.len());
                self.ln_1.apply(x, normed);
                let all = sized(&mut qkv, 3 * x.len());
                self.in_proj.apply(normed, 0, 3 * width, all, false);
                self.after_projection(x, 0, tokens, all, scratch);
                scratch.projected = qkv;
                self.perceptron(x, scratch);
            },
        );
    }

    /// As [`Block::forward`], where each thread takes some rows, whatever sequences they belong to.
    fn forward_by_rows(&self, x: &mut [f32], tokens: usize, buffers: &Buffers) {
        let width = self.width();
        let share = Share::All.rows(x.len() / width, GROUP_ROWS);
        let mut all = buffers.lend();
        let qkv = sized(&mut all.projected, 3 * x.len());
        (qkv.par_chunks_mut(3 * share * width))
            .zip(x.par_chunks(share * width))
            .for_each_init(
                || buffers.lend(),
                |scratch, (qkv, x)| {
                    let normed = sized(&mut scratch.normed, x.len());
                    self.ln_1.apply(x, normed);
                    self.in_proj.apply(normed, 0, 3 * width, qkv, false);
                },
            );
        let qkv = &*qkv;
        (x.par_chunks_mut(share * width).enumerate()).for_each_init(
            || buffers.lend(),
            |scratch, (part, x)| {
                self.after_projection(x, part * share, tokens, qkv, scratch);
                self.perceptron(x, scratch);
            },
        );
    }

    /// Attention of the rows `x` `[n, width]` and the projection after it, added to them. They are the rows from `first` on
    /// of sequences whose queries, keys and values are `qkv` `[batch, tokens, 3 width]`.
    fn after_projection(
        &self,
        x: &mut [f32],
        first: usize,
        tokens: usize,
        qkv: &[f32],
        scratch: &mut Scratch,
    ) {
        let width = self.width();
        let end = first + x.len() / width;
        let attended = sized(&mut scratch.attended, x.len());
        let mut row = first;
        while row < end {
            let (sequence, query) = (row / tokens, row % tokens);
            let count = (tokens - query).min(end - row);
            self.attention.within(
                &qkv[3 * sequence * tokens * width..3 * (sequence + 1) * tokens * width],
                query,
                &mut scratch.scores,
                &mut attended[(row - first) * width..(row - first + count) * width],
            );
            row += count;
        }
        self.out_proj.apply(attended, 0, width, x, true);
    }

    /// As [`Block::forward`], with all threads at the columns of each map.
    fn forward_by_columns(&self, x: &mut [f32], tokens: usize) {
        let width = self.width();
        let normed = self.normed(&self.ln_1, x);
        let mut qkv = vec![0.0; 3 * x.len()];
        Share::All.apply(
            &self.in_proj,
            &normed,
            0..3 * width,
            &mut qkv,
            Then::Nothing,
        );
        // Some queries of one sequence at a time.
        let mut attended = normed;
        let queries = tokens.div_ceil(rayon::current_num_threads());
        let sequences = attended.par_chunks_mut(tokens * width);
        (sequences.zip(qkv.par_chunks(3 * tokens * width))).for_each(|(attended, qkv)| {
            let parts = attended.par_chunks_mut(queries * width).enumerate();
            parts.for_each_init(Vec::new, |scores, (part, attended)| {
                self.attention.within(qkv, part * queries, scores, attended);
            });
        });
        Share::All.apply(&self.out_proj, &attended, 0..width, x, Then::Add);
        self.perceptron_shared(x);
    }

    /// The norm of all rows, by all threads.
    fn normed(&self, norm: &Norm<'_>, x: &[f32]) -> Vec<f32> {
        let width = self.width();
        let rows = Share::All.rows(x.len() / width, GROUP_ROWS);
        let mut normed = vec![0.0; x.len()];
        Share::All.chunks(&mut normed, rows * width, |i, out| {
            let from = i * rows * width;
            norm.apply(&x[from..from + out.len()], out);
        });
        normed
    }

    fn perceptron_shared(&self, x: &mut [f32]) {
        let (width, hidden) = (self.width(), self.c_fc.bias().len());
        let rows = x.len() / width;
        let normed = self.normed(&self.ln_2, x);
        let mut between = vec![0.0; rows * hidden];
        Share::All.apply(&self.c_fc, &normed, 0..hidden, &mut between, Then::Nothing);
        let share = between.len().div_ceil(rayon::current_num_threads());
        Share::All.chunks(&mut between, share, |_, part| self.activation.apply(part));
        Share::All.apply(&self.c_proj, &between, 0..width, x, Then::Add);
    }

    /// The block's output for one row of each sequence of `x` `[batch, tokens, width]`: row `at[i]` of sequence `i`, as
    /// `[batch, width]`. Only keys and values are computed for the other rows.
    ///
    /// # Panics
    /// `at` is not as long as the batch, or points outside a sequence.
    pub fn forward_at(
        &self,
        x: &[f32],
        tokens: usize,
        at: &[usize],
        buffers: &Buffers,
    ) -> Vec<f32> {
        let width = self.width();
        let sequence = tokens * width;
        assert_eq!(at.len() * sequence, x.len(), "one row for each sequence");
        let mut out = rows_at(x, sequence, width, at);
        let mut attended = vec![0.0; out.len()];
        match of_batch(at.len()) {
            Share::One => self.attended_at(x, tokens, at, &mut attended, buffers),
            Share::All => self.attended_at_shared(x, tokens, at, &mut attended),
        }
        if at.len() < rayon::current_num_threads() * GROUP_ROWS {
            Share::All.apply(&self.out_proj, &attended, 0..width, &mut out, Then::Add);
            self.perceptron_shared(&mut out);
            return out;
        }
        let share = self.group(at.len(), 1);
        (out.par_chunks_mut(share).zip(attended.par_chunks(share))).for_each_init(
            || buffers.lend(),
            |scratch, (out, attended)| {
                self.out_proj.apply(attended, 0, width, out, true);
                self.perceptron(out, scratch);
            },
        );
        out
    }

    /// What the rows `at` attend to, before the projection; whole sequences for each thread.
    fn attended_at(
        &self,
        x: &[f32],
        tokens: usize,
        at: &[usize],
        attended: &mut [f32],
        buffers: &Buffers,
    ) {
        let width = self.width();
        let sequence = tokens * width;
        let group = self.group(x.len() / width, tokens);
        let sequences = group / sequence;
        (x.par_chunks(group))
            .zip(attended.par_chunks_mut(sequences * width))
            .zip(at.par_chunks(sequences))
            .for_each_init(
                || buffers.lend(),
                |scratch, ((x, attended), at)| {
                    let scratch = &mut **scratch;
                    let normed = sized(&mut scratch.normed, x.len());
                    self.ln_1.apply(x, normed);
                    let kv = sized(&mut scratch.projected, 2 * x.len());
                    self.in_proj.apply(normed, width, 2 * width, kv, false);
                    let queries = sized(&mut scratch.attended, attended.len());
                    let read = rows_at(normed, sequence, width, at);
                    self.in_proj.apply(&read, 0, width, queries, false);
                    for (i, at) in at.iter().enumerate() {
                        let row = i * width..(i + 1) * width;
                        let kv = &kv[2 * i * sequence..2 * (i + 1) * sequence];
                        let scores = &mut scratch.scores;
                        let (query, out) = (&queries[row.clone()], &mut attended[row]);
                        self.attention
                            .of_one(query, kv, self.seen(*at, tokens), scores, out);
                    }
                },
            );
    }

    /// As [`Block::attended_at`], with all threads at each step.
    fn attended_at_shared(&self, x: &[f32], tokens: usize, at: &[usize], attended: &mut [f32]) {
        let width = self.width();
        let sequence = tokens * width;
        let normed = self.normed(&self.ln_1, x);
        let mut kv = vec![0.0; 2 * x.len()];
        Share::All.apply(
            &self.in_proj,
            &normed,
            width..3 * width,
            &mut kv,
            Then::Nothing,
        );
        let read = rows_at(&normed, sequence, width, at);
        let mut queries = vec![0.0; read.len()];
        Share::All.apply(&self.in_proj, &read, 0..width, &mut queries, Then::Nothing);
        Share::All.chunks(attended, width, |i, out| {
            let query = &queries[i * width..(i + 1) * width];
            let kv = &kv[2 * i * sequence..2 * (i + 1) * sequence];
            let seen = self.seen(at[i], tokens);
            self.attention.of_one(query, kv, seen, &mut Vec::new(), out);
        });
    }

    /// Keys that the query at a position sees.
    fn seen(&self, at: usize, tokens: usize) -> usize {
        match self.attention.causal {
            true => at + 1,
            false => tokens,
        }
    }

    /// Rows `x` `[n, width]` through the value path alone, in place: `v = x + out_proj(V(ln_1(x)))`, `v + mlp(ln_2(v))`.
    pub fn forward_values(&self, x: &mut [f32], buffers: &Buffers) {
        let width = self.width();
        let group = self.group(x.len() / width, 1);
        x.par_chunks_mut(group).for_each_init(
            || buffers.lend(),
            |scratch, x| {
                let scratch = &mut **scratch;
                let normed = sized(&mut scratch.normed, x.len());
                self.ln_1.apply(x, normed);
                let values = sized(&mut scratch.projected, x.len());
                self.in_proj.apply(normed, 2 * width, width, values, false);
                self.out_proj.apply(values, 0, width, x, true);
                self.perceptron(x, scratch);
            },
        );
    }

    fn perceptron(&self, x: &mut [f32], scratch: &mut Scratch) {
        let width = self.width();
        let normed = sized(&mut scratch.normed, x.len());
        self.ln_2.apply(x, normed);
        let hidden = self.c_fc.bias().len();
        let between = sized(&mut scratch.projected, x.len() / width * hidden);
        self.c_fc.apply(normed, 0, hidden, between, false);
        self.activation.apply(between);
        self.c_proj.apply(between, 0, width, x, true);
    }
}

/// Row `at[i]` of sequence `i`, each `width` values of `sequence`.
fn rows_at(x: &[f32], sequence: usize, width: usize, at: &[usize]) -> Vec<f32> {
    (x.chunks_exact(sequence).zip(at))
        .flat_map(|(x, at)| &x[at * width..(at + 1) * width])
        .copied()
        .collect()
}

/// The first `length` values of a scratch vector, with arbitrary contents.
pub(crate) fn sized(scratch: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if scratch.len() < length {
        scratch.resize(length, 0.0);
    }
    &mut scratch[..length]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WIDTH: usize = 8;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        let mix = |i: usize| ((i + seed) * 2_654_435_761) >> 5;
        (0..n)
            .map(|i| (mix(i) % 2001) as f32 / 1000.0 - 1.0)
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn sequences_do_not_depend_on_how_threads_share_them(
            batch in 1usize..10, tokens in 1usize..60, threads in 1usize..5, causal: bool,
        ) {
            let weights = values(12 * WIDTH * WIDTH, 1);
            let bias = values(4 * WIDTH, 2);
            let norm = Norm { gamma: &bias[..WIDTH], beta: &bias[WIDTH..2 * WIDTH] };
            let map = |input: usize, output: usize| Affine {
                weight: &weights[..input * output],
                bias: &bias[..output],
            };
            let block = Block {
                ln_1: norm,
                in_proj: map(WIDTH, 3 * WIDTH),
                out_proj: map(WIDTH, WIDTH),
                ln_2: norm,
                c_fc: map(WIDTH, 4 * WIDTH),
                c_proj: map(4 * WIDTH, WIDTH),
                activation: Activation::QuickGelu,
                attention: Attention { heads: 2, width: WIDTH, causal },
            };
            let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let x = values(batch * tokens * WIDTH, 3);
            let mut alone = x.clone();
            pool(1).install(|| {
                for x in alone.chunks_exact_mut(tokens * WIDTH) {
                    block.forward(x, tokens, &Buffers::default());
                }
            });
            // Memory that another batch has left behind.
            let buffers = Buffers::default();
            pool(threads).install(|| {
                block.forward(&mut values(2 * batch * tokens * WIDTH, 4), tokens, &buffers);
                let mut together = x.clone();
                block.forward(&mut together, tokens, &buffers);
                for (i, (found, expected)) in together.iter().zip(&alone).enumerate() {
                    prop_assert!((found - expected).abs() < 1e-3, "value {i}: {found} and {expected}");
                }
                let at: Vec<usize> = (0..batch).map(|i| i % tokens).collect();
                let read = block.forward_at(&x, tokens, &at, &buffers);
                let expected = rows_at(&alone, tokens * WIDTH, WIDTH, &at);
                for (i, (found, expected)) in read.iter().zip(&expected).enumerate() {
                    prop_assert!((found - expected).abs() < 1e-3, "read value {i}: {found} and {expected}");
                }
                Ok(())
            })?;
        }
    }
}
