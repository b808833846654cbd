//! The queue of decoded batches, and measurements of how long each step of the engine waited for another.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::batch::Batch;
use crate::sync::locked;

/// Batches to encode: new ones from decoding, and those that a failed device returned.
pub(super) struct Queue {
    decoded: Receiver<Batch>,
    returned: Mutex<Vec<Batch>>,
}

/// Waiting times of a run of the engine, and the current lengths of its queues.
#[derive(Debug, Default)]
pub struct Clock {
    /// Nanoseconds that decoding waited for room in the queue.
    pub(super) decoding_waited: AtomicU64,
    /// Nanoseconds that devices waited for a batch, summed over all of them.
    pub(super) devices_waited: AtomicU64,
    /// Batches that decoding has sent, or is waiting to send, and that no device has taken.
    pub(super) to_encode: AtomicUsize,
    /// Events that the consumer has not taken.
    pub(super) to_consume: AtomicUsize,
}

impl Clock {
    /// Batches that wait to be encoded, and events that wait for the consumer.
    pub fn backlog(&self) -> (usize, usize) {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (read(&self.to_encode), read(&self.to_consume))
    }

    /// The step that limits the speed of a run of duration `elapsed` on this many devices; `None` if the run was too
    /// short to tell.
    pub fn line(&self, elapsed: Duration, devices: usize) -> Option<String> {
        let seconds = elapsed.as_secs_f64();
        if seconds < 2.0 {
            return None;
        }
        let share = |waited: &AtomicU64| waited.load(Ordering::Relaxed) as f64 * 1e-9 / seconds;
        let decoding = share(&self.decoding_waited);
        let encoding = share(&self.devices_waited) / devices.max(1) as f64;
        let binds = match encoding > decoding {
            true => "decoding",
            false => "the image tower",
        };
        Some(format!(
            "{binds} sets the pace: decoding waited {:.0}% of the time, devices {:.0}%",
            100.0 * decoding,
            100.0 * encoding
        ))
    }
}

/// Calls `wait` and adds its time to `total`.
pub(super) fn timed<T>(total: &AtomicU64, wait: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = wait();
    total.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
    value
}

impl Queue {
    pub(super) fn new(decoded: Receiver<Batch>) -> Self {
        Self {
            decoded,
            returned: Mutex::default(),
        }
    }

    /// The batches of failed devices.
    pub(super) fn returned(&self) -> MutexGuard<'_, Vec<Batch>> {
        locked(&self.returned)
    }

    /// The next batch, waiting for it if necessary; `None` if none is left.
    pub(super) fn next(&self, clock: &Clock) -> Option<Batch> {
        if let Some(batch) = self.returned().pop() {
            return Some(batch);
        }
        match timed(&clock.devices_waited, || self.decoded.recv()) {
            Ok(batch) => {
                clock.to_encode.fetch_sub(1, Ordering::Relaxed);
                Some(batch)
            }
            Err(_) => self.returned().pop(),
        }
    }

    /// The next batch, if one is available without waiting.
    pub(super) fn ready(&self, clock: &Clock) -> Option<Batch> {
        if let Some(batch) = self.returned().pop() {
            return Some(batch);
        }
        let batch = self.decoded.try_recv().ok()?;
        clock.to_encode.fetch_sub(1, Ordering::Relaxed);
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_that_others_wait_for_sets_the_pace() {
        let clock = Clock::default();
        clock.devices_waited.store(8_000_000_000, Ordering::Relaxed);
        clock
            .decoding_waited
            .store(1_000_000_000, Ordering::Relaxed);
        let ten = Duration::from_secs(10);
        // Two workers waited 4 s each.
        assert_eq!(
            clock.line(ten, 2).as_deref(),
            Some("decoding sets the pace: decoding waited 10% of the time, devices 40%")
        );
        clock
            .decoding_waited
            .store(6_000_000_000, Ordering::Relaxed);
        let line = clock.line(ten, 2).unwrap_or_default();
        assert!(line.starts_with("the image tower"), "{line}");
        assert_eq!(clock.line(Duration::from_secs(1), 2), None);
    }

    #[test]
    fn returned_batches_are_taken_first() {
        let (send, decoded) = crossbeam_channel::bounded(2);
        let queue = Queue::new(decoded);
        let batch = |sequence| Batch {
            unit: 0,
            sequence,
            rows: Vec::new(),
            pixels: Vec::new(),
        };
        let clock = Clock::default();
        assert!(send.send(batch(1)).is_ok());
        clock.to_encode.store(1, Ordering::Relaxed);
        queue.returned().push(batch(2));
        drop(send);
        let order: Vec<usize> = std::iter::from_fn(|| queue.next(&clock))
            .map(|batch| batch.sequence)
            .collect();
        assert_eq!(order, [2, 1]);
        assert_eq!(clock.to_encode.into_inner(), 0);
    }
}
