//! How work is shared out among the threads of the current rayon pool.

use std::ops::Range;

use rayon::prelude::*;

use crate::matrix::Map;

/// Rows that a thread needs to be kept busy by a product: with fewer, reading the weight takes most of its time.
pub(crate) const BUSY_ROWS: usize = 24;
/// Most rows that one thread takes at a time.
const ROWS: usize = 192;
/// Columns of a weight that are not worth dividing.
const COLUMNS: usize = 64;

/// Who does a piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// The calling thread; the others have pieces of their own.
    One,
    /// All threads.
    All,
}

/// How `batch` independent items are shared out: whole items to each thread where all threads get about as many, otherwise
/// all threads work on all items.
pub(crate) fn of_batch(batch: usize) -> Share {
    let threads = rayon::current_num_threads();
    match batch >= 4 * threads || (batch >= threads && batch.is_multiple_of(threads)) {
        true => Share::One,
        false => Share::All,
    }
}

/// `work` on a thread of the pool. From another thread every step that is shared out would wait for the pool to wake up, 10 to 20
/// microseconds each, and that thread would compete with those of the pool.
pub(crate) fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

impl Share {
    /// Calls `work` with the chunks of `out`, `size` values each (the last may be shorter), and their numbers.
    pub fn chunks(self, out: &mut [f32], size: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
        let size = size.max(1);
        match self {
            Self::One => {
                for (i, out) in out.chunks_mut(size).enumerate() {
                    work(i, out);
                }
            }
            Self::All => (out.par_chunks_mut(size).enumerate()).for_each(|(i, out)| work(i, out)),
        }
    }

    /// Rows of a chunk so that every thread gets as many, at most `most`.
    pub fn rows(self, rows: usize, most: usize) -> usize {
        let parts = match self {
            Self::One => 1,
            Self::All => rayon::current_num_threads(),
        };
        let rounds = rows.div_ceil(parts * most).max(1);
        rows.div_ceil(parts * rounds).max(1)
    }

    /// Some columns of `map` for rows `x`, and what follows, into `out` `[n, columns.len()]`.
    pub fn apply<M: Map>(
        self,
        map: &M,
        x: &[f32],
        columns: Range<usize>,
        out: &mut [f32],
        then: Then,
    ) {
        let output = columns.len();
        if out.is_empty() {
            return;
        }
        let rows = out.len() / output;
        let input = x.len() / rows;
        let threads = rayon::current_num_threads();
        if self == Self::One || threads == 1 {
            then.apply(map, x, columns, out);
        } else if rows >= BUSY_ROWS * threads || output < 2 * COLUMNS {
            let share = self.rows(rows, ROWS);
            self.chunks(out, share * output, |i, out| {
                let x = &x[i * share * input..];
                let x = &x[..out.len() / output * input];
                then.apply(map, x, columns.clone(), out);
            });
        } else {
            by_columns(map, x, columns, out, then);
        }
    }
}

/// What follows a product and its bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Nothing.
    Nothing,
    /// What the output holds is added.
    Add,
    /// Negative values become 0.
    Relu,
    /// What the output holds is added, then negative values become 0.
    AddRelu,
}

impl Then {
    fn adds(self) -> bool {
        matches!(self, Self::Add | Self::AddRelu)
    }

    /// On the calling thread.
    fn apply<M: Map>(self, map: &M, x: &[f32], columns: Range<usize>, out: &mut [f32]) {
        let (from, output) = (columns.start, columns.len());
        match self {
            Self::Nothing | Self::Add => map.apply(x, from, output, out, self.adds()),
            Self::Relu | Self::AddRelu => map.apply_relu(x, from, output, out, self.adds()),
        }
    }
}

/// Few rows: every thread takes some columns, whose part of the weight nobody else reads, and the parts are put together.
fn by_columns<M: Map>(map: &M, x: &[f32], columns: Range<usize>, out: &mut [f32], then: Then) {
    let output = columns.len();
    let parts = rayon::current_num_threads().min(output.div_ceil(COLUMNS));
    let share = output.div_ceil(parts).next_multiple_of(COLUMNS);
    let found: Vec<(usize, usize, Vec<f32>)> = (0..output.div_ceil(share))
        .into_par_iter()
        .map(|i| {
            let from = i * share;
            let count = share.min(output - from);
            let mut part = vec![0.0; out.len() / output * count];
            if then.adds() {
                for (part, out) in part.chunks_exact_mut(count).zip(out.chunks_exact(output)) {
                    part.copy_from_slice(&out[from..from + count]);
                }
            }
            let start = columns.start + from;
            then.apply(map, x, start..start + count, &mut part);
            (from, count, part)
        })
        .collect();
    for (from, count, part) in found {
        for (out, part) in out.chunks_exact_mut(output).zip(part.chunks_exact(count)) {
            out[from..from + count].copy_from_slice(part);
        }
    }
}
