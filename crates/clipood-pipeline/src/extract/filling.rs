//! Views of one unit on their way into batches, in key order.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;

use super::flow::News;
use super::workers::{Batch, Clock, timed};
use crate::plan::PlannedImage;
use crate::tables::QuarantineRow;

/// What has been decoded of a unit.
pub(super) struct Filling<'a> {
    batches: &'a Sender<Batch>,
    clock: &'a Clock,
    /// Views of a full batch.
    full: usize,
    /// The batch that is being filled.
    batch: Batch,
    /// Images that could not be read.
    pub quarantined: Vec<QuarantineRow>,
}

impl<'a> Filling<'a> {
    /// Begins unit number `unit`.
    pub fn new(unit: usize, full: usize, batches: &'a Sender<Batch>, clock: &'a Clock) -> Self {
        Self {
            batches,
            clock,
            full,
            batch: Batch {
                unit,
                sequence: 0,
                rows: Vec::new(),
                pixels: Vec::new(),
            },
            quarantined: Vec::new(),
        }
    }

    /// Views of a full batch.
    pub fn full(&self) -> usize {
        self.full
    }

    /// Adds the view `row` (image and view); a batch that is full is sent. `false` once nobody receives any more.
    pub fn add(&mut self, row: (usize, i16), pixels: Vec<u8>) -> bool {
        if self.batch.rows.is_empty() {
            // All views are of one size. Without this the batch would be copied each time it doubles.
            self.batch.pixels.reserve_exact(self.full * pixels.len());
        }
        self.batch.rows.push(row);
        self.batch.pixels.extend(pixels);
        if self.batch.rows.len() < self.full {
            return true;
        }
        let next = Batch {
            unit: self.batch.unit,
            sequence: self.batch.sequence + 1,
            rows: Vec::new(),
            pixels: Vec::new(),
        };
        self.send(next)
    }

    /// Sends what is left and tells the writer what the unit consists of, of its `images`; `None` once nobody receives any
    /// more.
    pub fn end(mut self, images: Arc<[PlannedImage]>) -> Option<News> {
        let unit = self.batch.unit;
        let mut batches = self.batch.sequence;
        if !self.batch.rows.is_empty() {
            batches += 1;
            let empty = Batch {
                unit,
                sequence: batches,
                rows: Vec::new(),
                pixels: Vec::new(),
            };
            if !self.send(empty) {
                return None;
            }
        }
        Some(News::End {
            unit,
            images,
            batches,
            quarantined: self.quarantined,
        })
    }

    fn send(&mut self, next: Batch) -> bool {
        let batch = std::mem::replace(&mut self.batch, next);
        self.clock.queued.fetch_add(1, Ordering::Relaxed);
        timed(&self.clock.decoding_waited, || self.batches.send(batch)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_full_but_for_the_last() {
        for views in 0..8usize {
            let (send, receive) = crossbeam_channel::bounded(8);
            let clock = Clock::default();
            let mut filling = Filling::new(5, 3, &send, &clock);
            for view in 0..views {
                assert!(filling.add((view, 0), vec![view as u8; 2]));
            }
            let end = filling.end(Arc::new([]));
            drop(send);
            let sent: Vec<Batch> = receive.iter().collect();
            let sizes: Vec<usize> = sent.iter().map(|batch| batch.rows.len()).collect();
            assert_eq!(sizes.iter().sum::<usize>(), views);
            assert!(
                sizes.iter().rev().skip(1).all(|size| *size == 3),
                "{sizes:?}"
            );
            assert!(
                sent.iter()
                    .enumerate()
                    .all(|(i, batch)| batch.sequence == i)
            );
            let Some(News::End { unit, batches, .. }) = end else {
                panic!("no end");
            };
            assert_eq!((unit, batches), (5, sent.len()));
        }
    }

    #[test]
    fn nobody_to_send_to_ends_it() {
        let (send, receive) = crossbeam_channel::bounded(8);
        drop(receive);
        let clock = Clock::default();
        let mut filling = Filling::new(0, 1, &send, &clock);
        assert!(!filling.add((0, 0), vec![1]));
        let mut filling = Filling::new(0, 2, &send, &clock);
        assert!(filling.add((0, 0), vec![1]));
        assert!(filling.end(Arc::new([])).is_none());
    }
}
