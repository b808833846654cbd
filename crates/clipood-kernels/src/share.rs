//! How work is shared out among the threads of the current rayon pool.

use rayon::prelude::*;

use crate::matrix::Map;

/// Rows that a thread needs to be kept busy by a product: with fewer, reading the weight takes most of its time.
const BUSY_ROWS: usize = 24;
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

    /// All columns of `map` for rows `x`, into `out`: as [`Map::apply`], or [`Map::apply_relu`] if `relu` is set.
    pub fn apply<M: Map>(self, map: &M, x: &[f32], out: &mut [f32], add: bool, relu: bool) {
        let output = map.bias().len();
        if out.is_empty() {
            return;
        }
        let rows = out.len() / output;
        let input = x.len() / rows;
        let one = |x: &[f32], from: usize, columns: usize, out: &mut [f32], add: bool| match relu {
            true => map.apply_relu(x, from, columns, out, add),
            false => map.apply(x, from, columns, out, add),
        };
        let threads = rayon::current_num_threads();
        if self == Self::One || threads == 1 {
            one(x, 0, output, out, add);
        } else if rows >= BUSY_ROWS * threads || output < 2 * COLUMNS {
            let share = rows.div_ceil(threads);
            self.chunks(out, share * output, |i, out| {
                let x = &x[i * share * input..];
                one(&x[..out.len() / output * input], 0, output, out, add);
            });
        } else {
            columns(x, output, out, add, one);
        }
    }
}

/// Few rows: every thread takes some columns, whose part of the weight nobody else reads, and the parts are put together.
fn columns(
    x: &[f32],
    output: usize,
    out: &mut [f32],
    add: bool,
    one: impl Fn(&[f32], usize, usize, &mut [f32], bool) + Sync,
) {
    let parts = rayon::current_num_threads().min(output.div_ceil(COLUMNS));
    let share = output.div_ceil(parts).next_multiple_of(COLUMNS);
    let found: Vec<(usize, usize, Vec<f32>)> = (0..output)
        .into_par_iter()
        .step_by(share)
        .map(|from| {
            let count = share.min(output - from);
            let mut part = vec![0.0; out.len() / output * count];
            if add {
                for (part, out) in part.chunks_exact_mut(count).zip(out.chunks_exact(output)) {
                    part.copy_from_slice(&out[from..from + count]);
                }
            }
            one(x, from, count, &mut part, add);
            (from, count, part)
        })
        .collect();
    for (from, count, part) in found {
        for (out, part) in out.chunks_exact_mut(output).zip(part.chunks_exact(count)) {
            out[from..from + count].copy_from_slice(part);
        }
    }
}
