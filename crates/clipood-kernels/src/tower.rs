//! A causal transformer of frozen weights, read at the last token of texts that share their first tokens, and the gradient
//! of its input: what a prompt's training step runs.
//!
//! The shared tokens (start and learned context) go through the blocks once. Every text adds the few tokens up to its own
//! end, packed without padding, and attends to the keys and values of the shared ones (CoOp's prompts are
//! `[start] [context] [name] . [end]`; the rest of the 77 tokens has no effect, because attention is causal). In the last
//! block only the last token of each text is a query. No weight gets a gradient, so a backward pass costs as much as a forward one.

use rayon::prelude::*;

use crate::block::{Block, sized};
use crate::matrix::Map;
use crate::ragged::{Gradients, Kept, Queries, Ragged};

/// Most rows of a group of texts, unless a single text is longer.
const GROUP_ROWS: usize = 800;

/// The blocks, all of one width.
#[derive(Debug, Clone)]
pub struct Tower<'a> {
    /// In their order; at least one.
    pub blocks: Vec<Block<'a>>,
}

/// What a forward pass leaves for the backward pass. Keep it from step to step: its memory is reused.
#[derive(Debug, Clone, Default)]
pub struct Tape {
    shared: Group,
    groups: Vec<Group>,
}

/// Some of the texts.
#[derive(Debug, Clone, Default)]
struct Group {
    lengths: Vec<usize>,
    layers: Vec<Layer>,
    /// What the last block wrote, `[queries, width]`.
    out: Vec<f32>,
    scratch: Scratch,
}

/// One block's values; `tokens` are all of the group, `queries` those whose output is wanted.
#[derive(Debug, Clone, Default)]
struct Layer {
    /// Input `[tokens, width]`.
    x: Vec<f32>,
    /// `[queries, width]`.
    q: Vec<f32>,
    /// `[tokens, 2 width]`.
    kv: Vec<f32>,
    probabilities: Vec<f32>,
    /// After attention `[queries, width]`.
    middle: Vec<f32>,
    /// Before the activation `[queries, hidden]`.
    hidden: Vec<f32>,
}

/// Values between two products.
#[derive(Debug, Clone, Default)]
struct Scratch {
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    d: Vec<f32>,
    scores: Vec<f32>,
}

impl Tower<'_> {
    fn width(&self) -> usize {
        self.blocks.first().map_or(0, |b| b.attention.width)
    }

    /// Embedded tokens with their positions, `[shared + sum of lengths, width]`: the shared ones, then those of each text.
    /// Returns the last block's output at the last token of each text, `[texts, width]`.
    ///
    /// # Panics
    /// `x` has another size, or a text has no token.
    pub fn forward(
        &self,
        x: &[f32],
        shared: usize,
        lengths: &[usize],
        tape: &mut Tape,
    ) -> Vec<f32> {
        let width = self.width();
        let tokens: usize = lengths.iter().sum();
        assert_eq!(x.len(), (shared + tokens) * width, "rows of the input");
        assert!(lengths.iter().all(|n| *n > 0), "a text without a token");
        let (first, rest) = x.split_at(shared * width);
        tape.shared.lengths = if shared > 0 { vec![shared] } else { vec![] };
        self.run(&mut tape.shared, first, Sight::NOTHING);
        let parts = partition(lengths);
        tape.groups.resize_with(parts.len(), Group::default);
        let (mut from, mut text, mut inputs) = (0, 0, Vec::with_capacity(parts.len()));
        for (group, texts) in tape.groups.iter_mut().zip(&parts) {
            group.lengths = lengths[text..text + texts].to_vec();
            let rows: usize = group.lengths.iter().sum();
            inputs.push(&rest[from * width..(from + rows) * width]);
            text += texts;
            from += rows;
        }
        let left = &tape.shared.layers;
        (tape.groups.par_iter_mut().zip(inputs))
            .for_each(|(group, x)| self.run(group, x, Sight::of(left)));
        tape.groups
            .iter()
            .flat_map(|group| &group.out)
            .copied()
            .collect()
    }

    /// The gradient of the input of [`Tower::forward`], given that of what it returned, `[texts, width]`.
    ///
    /// # Panics
    /// `tape` was left by another input.
    pub fn backward(&self, tape: &mut Tape, dout: &[f32]) -> Vec<f32> {
        let width = self.width();
        let shared: usize = tape.shared.lengths.iter().sum();
        let texts: usize = tape.groups.iter().map(|g| g.lengths.len()).sum();
        assert_eq!(dout.len(), texts * width, "rows of the gradient");
        let mut rest = dout;
        let mut inputs = Vec::with_capacity(tape.groups.len());
        for group in &tape.groups {
            let (own, after) = rest.split_at(group.lengths.len() * width);
            inputs.push(own);
            rest = after;
        }
        let left = &tape.shared.layers;
        let found: Vec<(Vec<f32>, Vec<Vec<f32>>)> = (tape.groups.par_iter_mut().zip(inputs))
            .map(|(group, dout)| {
                let mut dshared = vec![vec![0.0; 2 * shared * width]; self.blocks.len()];
                let dx = self.run_back(group, dout.to_vec(), Sight::of(left), &mut dshared, &[]);
                (dx, dshared)
            })
            .collect();
        let mut dshared = vec![vec![0.0; 2 * shared * width]; self.blocks.len()];
        for (_, part) in &found {
            for (all, part) in dshared.iter_mut().zip(part) {
                for (all, part) in all.iter_mut().zip(part) {
                    *all += part;
                }
            }
        }
        let mut none = vec![Vec::new(); self.blocks.len()];
        let group = &mut tape.shared;
        let mut dx = self.run_back(group, Vec::new(), Sight::NOTHING, &mut none, &dshared);
        for (part, _) in found {
            dx.extend(part);
        }
        dx
    }

    /// Which tokens of a text are queries in block `layer`: all, in the last block those of `last`.
    fn queries(&self, layer: usize, last: Queries) -> Queries {
        if layer + 1 == self.blocks.len() {
            last
        } else {
            Queries::All
        }
    }

    /// The group's texts through all blocks.
    fn run(&self, group: &mut Group, x: &[f32], sight: Sight<'_>) {
        let width = self.width();
        group.layers.resize_with(self.blocks.len(), Layer::default);
        copy(&mut group.layers[0].x, x);
        for (i, block) in self.blocks.iter().enumerate() {
            let ragged = self.ragged(i, &group.lengths, sight);
            let rows = ragged.rows();
            let (done, next) = group.layers.split_at_mut(i + 1);
            let layer = &mut done[i];
            let scratch = &mut group.scratch;
            let normed = sized(&mut scratch.a, layer.x.len());
            block.ln_1.apply(&layer.x, normed);
            let kv = fresh(&mut layer.kv, 2 * layer.x.len());
            block.in_proj.apply(normed, width, 2 * width, kv, false);
            let asking = sized(&mut scratch.b, rows * width);
            gather(normed, &ragged, width, asking);
            let q = fresh(&mut layer.q, rows * width);
            block.in_proj.apply(asking, 0, width, q, false);
            let attended = sized(&mut scratch.b, rows * width);
            ragged.forward(&layer.q, &layer.kv, &mut layer.probabilities, attended);
            let middle = fresh(&mut layer.middle, rows * width);
            gather(&layer.x, &ragged, width, middle);
            block.out_proj.apply(attended, 0, width, middle, true);
            let normed = sized(&mut scratch.a, rows * width);
            block.ln_2.apply(middle, normed);
            let hidden = block.c_fc.bias.len();
            let before = fresh(&mut layer.hidden, rows * hidden);
            block.c_fc.apply(normed, 0, hidden, before, false);
            let after = sized(&mut scratch.c, rows * hidden);
            block.activation.map(before, after);
            let out = match next.first_mut() {
                Some(next) => &mut next.x,
                None => &mut group.out,
            };
            copy(out, &layer.middle);
            block.c_proj.apply(after, 0, width, out, true);
        }
    }

    /// From the gradient of the last block's output to that of the group's input. Gradients of the shared keys and values of
    /// each block are added to `dshared`; `more` holds further gradients of the group's own keys and values in each block.
    fn run_back(
        &self,
        group: &mut Group,
        mut dout: Vec<f32>,
        sight: Sight<'_>,
        dshared: &mut [Vec<f32>],
        more: &[Vec<f32>],
    ) -> Vec<f32> {
        let width = self.width();
        for (i, block) in self.blocks.iter().enumerate().rev() {
            let ragged = self.ragged(i, &group.lengths, sight);
            let (layer, scratch) = (&group.layers[i], &mut group.scratch);
            let rows = ragged.rows();
            let hidden = block.c_fc.bias.len();
            let dhidden = sized(&mut scratch.c, rows * hidden);
            block.c_proj.backward(&dout, 0, width, dhidden, false);
            block.activation.backward(&layer.hidden, dhidden);
            let dnormed = sized(&mut scratch.a, rows * width);
            block.c_fc.backward(dhidden, 0, hidden, dnormed, false);
            // What goes around the perceptron stays in `dout`.
            block.ln_2.backward(&layer.middle, dnormed, &mut dout);
            let dattended = sized(&mut scratch.a, rows * width);
            block.out_proj.backward(&dout, 0, width, dattended, false);
            let dq = sized(&mut scratch.b, rows * width);
            let dkv = sized(&mut scratch.d, layer.kv.len());
            let kept = Kept {
                q: &layer.q,
                kv: &layer.kv,
                probabilities: &layer.probabilities,
            };
            let gradients = Gradients {
                q: &mut *dq,
                kv: &mut *dkv,
                shared: &mut dshared[i],
            };
            ragged.backward(kept, dattended, &mut scratch.scores, gradients);
            if let Some(more) = more.get(i) {
                for (d, more) in dkv.iter_mut().zip(more) {
                    *d += more;
                }
            }
            let dasking = sized(&mut scratch.a, rows * width);
            block.in_proj.backward(dq, 0, width, dasking, false);
            let dnormed = sized(&mut scratch.b, layer.x.len());
            block
                .in_proj
                .backward(dkv, width, 2 * width, dnormed, false);
            scatter_add(dasking, &ragged, width, dnormed);
            let mut dx = vec![0.0; layer.x.len()];
            scatter_add(&dout, &ragged, width, &mut dx);
            block.ln_1.backward(&layer.x, dnormed, &mut dx);
            dout = dx;
        }
        dout
    }

    fn ragged<'a>(&self, layer: usize, lengths: &'a [usize], sight: Sight<'a>) -> Ragged<'a> {
        let attention = &self.blocks[layer].attention;
        Ragged {
            heads: attention.heads,
            width: attention.width,
            shared: sight.left.get(layer).map_or(&[], |layer| &layer.kv),
            lengths,
            queries: self.queries(layer, sight.last),
        }
    }
}

/// What the tokens of a group can attend to beside each other, and which of them ask in the last block.
#[derive(Clone, Copy)]
struct Sight<'a> {
    /// The layers of the shared tokens; empty for the shared tokens themselves.
    left: &'a [Layer],
    /// Queries of the last block.
    last: Queries,
}

impl<'a> Sight<'a> {
    /// That of the shared tokens.
    const NOTHING: Sight<'static> = Sight {
        left: &[],
        last: Queries::None,
    };

    /// That of texts behind shared tokens.
    fn of(left: &'a [Layer]) -> Self {
        Self {
            left,
            last: Queries::Last,
        }
    }
}

/// Texts of each group: as many groups as threads, or more where that would exceed [`GROUP_ROWS`], of about the same rows.
fn partition(lengths: &[usize]) -> Vec<usize> {
    let rows: usize = lengths.iter().sum();
    let threads = rayon::current_num_threads();
    let groups = rows.div_ceil(GROUP_ROWS).next_multiple_of(threads).max(1);
    let share = rows.div_ceil(groups);
    let (mut parts, mut texts, mut held) = (Vec::new(), 0, 0);
    for length in lengths {
        texts += 1;
        held += length;
        if held >= share {
            parts.push(texts);
            (texts, held) = (0, 0);
        }
    }
    if texts > 0 {
        parts.push(texts);
    }
    parts
}

/// The rows of queries among all rows: the last ones of each text.
fn query_rows<'a>(ragged: &'a Ragged<'_>) -> impl Iterator<Item = usize> + 'a {
    let mut end = 0;
    ragged.lengths.iter().flat_map(move |length| {
        end += length;
        end - ragged.queries.of(*length)..end
    })
}

fn gather(all: &[f32], ragged: &Ragged<'_>, width: usize, out: &mut [f32]) {
    for (row, out) in query_rows(ragged).zip(out.chunks_exact_mut(width)) {
        out.copy_from_slice(&all[row * width..(row + 1) * width]);
    }
}

fn scatter_add(some: &[f32], ragged: &Ragged<'_>, width: usize, all: &mut [f32]) {
    for (row, some) in query_rows(ragged).zip(some.chunks_exact(width)) {
        for (all, some) in all[row * width..(row + 1) * width].iter_mut().zip(some) {
            *all += some;
        }
    }
}

/// `kept` resized to `length` values, with arbitrary contents.
fn fresh(kept: &mut Vec<f32>, length: usize) -> &mut [f32] {
    kept.resize(length, 0.0);
    kept
}

fn copy(to: &mut Vec<f32>, from: &[f32]) {
    to.clear();
    to.extend_from_slice(from);
}
