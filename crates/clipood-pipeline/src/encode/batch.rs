//! Batches of views that are sent to devices, and the events that the engine sends to its consumer.

use std::time::Duration;

/// The evaluation view: short side resized, centre cropped.
pub const EVAL_VIEW: i16 = -1;

/// Views that go through the image tower together, all of one unit.
#[derive(Debug)]
pub struct Batch {
    /// Number of the unit, given by the source.
    pub unit: usize,
    /// Place of the batch in its unit, from 0.
    pub sequence: usize,
    /// Image number, given by the source, and view of each row.
    pub rows: Vec<(usize, i16)>,
    /// `[rows, side, side, 3]`, RGB.
    pub pixels: Vec<u8>,
}

impl Batch {
    fn empty(unit: usize, sequence: usize) -> Self {
        Self {
            unit,
            sequence,
            rows: Vec::new(),
            pixels: Vec::new(),
        }
    }
}

/// Collects the views of one unit into batches, of which only the last may be smaller than the others.
#[derive(Debug)]
pub struct BatchBuilder {
    full: usize,
    batch: Batch,
}

impl BatchBuilder {
    /// Begins unit number `unit` with batches of `full` views (at least one).
    pub fn new(unit: usize, full: usize) -> Self {
        Self {
            full: full.max(1),
            batch: Batch::empty(unit, 0),
        }
    }

    /// Adds the view `row` (image and view) with its pixels `[side, side, 3]`; returns the batch if it is full now.
    pub fn add(&mut self, row: (usize, i16), pixels: &[u8]) -> Option<Batch> {
        let batch = &mut self.batch;
        if batch.rows.is_empty() {
            // All views have the same size. Without this, the batch would be copied each time it doubles.
            batch.pixels.reserve_exact(self.full * pixels.len());
        }
        batch.rows.push(row);
        batch.pixels.extend_from_slice(pixels);
        if batch.rows.len() < self.full {
            return None;
        }
        self.flush()
    }

    /// The batch as it is, if it has any view.
    pub fn flush(&mut self) -> Option<Batch> {
        if self.batch.rows.is_empty() {
            return None;
        }
        let next = Batch::empty(self.batch.unit, self.batch.sequence + 1);
        Some(std::mem::replace(&mut self.batch, next))
    }

    /// The last batch, if any views are left, and the number of batches of the unit.
    pub fn finish(self) -> (Option<Batch>, usize) {
        let sequence = self.batch.sequence;
        match self.batch.rows.is_empty() {
            true => (None, sequence),
            false => (Some(self.batch), sequence + 1),
        }
    }
}

/// An event of the engine for its consumer. The batches of a unit come in any order, before and after the event of its
/// end.
#[derive(Debug)]
pub enum EncodeEvent<E> {
    /// A batch was encoded.
    Encoded {
        /// Number of the unit.
        unit: usize,
        /// Place of the batch in its unit.
        sequence: usize,
        /// Image and view of each row.
        rows: Vec<(usize, i16)>,
        /// `[rows, D]`, before normalisation.
        global: Vec<f32>,
        /// `[rows, positions, D]`, before normalisation; empty unless asked for.
        local: Vec<f32>,
        /// Time that the device spent on the batch, without the time it waited for this batch or worked on the one
        /// before.
        busy: Duration,
    },
    /// The source has sent all batches of a unit.
    End {
        /// Number of the unit.
        unit: usize,
        /// How many batches it has.
        batches: usize,
        /// What the source adds about the unit.
        end: E,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flushed_batch_is_counted_and_an_empty_one_is_not_sent() {
        let mut builder = BatchBuilder::new(5, 3);
        assert!(builder.flush().is_none());
        assert!(builder.add((0, 0), &[1]).is_none());
        let first = builder.flush().unwrap();
        assert_eq!((first.rows.len(), first.sequence), (1, 0));
        assert!(builder.flush().is_none());
        assert!(builder.add((1, 0), &[2]).is_none());
        let (last, batches) = builder.finish();
        assert_eq!((last.unwrap().sequence, batches), (1, 2));
    }

    #[test]
    fn batches_are_full_but_for_the_last() {
        for views in 0..8usize {
            let mut builder = BatchBuilder::new(5, 3);
            let mut made: Vec<Batch> = (0..views)
                .filter_map(|view| builder.add((view, 0), &[view as u8; 2]))
                .collect();
            let (last, batches) = builder.finish();
            made.extend(last);
            assert_eq!(made.len(), batches);
            let sizes: Vec<usize> = made.iter().map(|batch| batch.rows.len()).collect();
            assert_eq!(sizes.iter().sum::<usize>(), views);
            let full = sizes.iter().rev().skip(1);
            assert!(full.clone().all(|size| *size == 3), "{sizes:?}");
            for (sequence, batch) in made.iter().enumerate() {
                assert_eq!((batch.unit, batch.sequence), (5, sequence));
                assert_eq!(batch.pixels.len(), 2 * batch.rows.len());
            }
            let rows = made.iter().flat_map(|batch| &batch.rows);
            assert!(rows.map(|row| row.0).eq(0..views));
        }
    }
}
