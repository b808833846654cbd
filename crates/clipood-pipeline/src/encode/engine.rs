//! [`Engine`]: a source of batches, the devices, and a consumer of features.

use std::sync::atomic::Ordering;

use clipood_clip::model::{Device, Devices, EncodedImages, Model};
use crossbeam_channel::{Receiver, Sender, bounded};

use super::batch::{Batch, BatchBuilder, EncodeEvent};
use super::device::{DeviceLoop, EncodeDevice, STAGE};
use super::queue::{Clock, Queue, timed};
use super::tower::Towers;
use crate::devices::{is_fatal, on_devices, report_lost_device};
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::panics::{guarded, joined};
use crate::progress::Reporting;

/// A model with the devices that it runs on.
#[derive(Debug, Clone)]
pub struct Engine<'a> {
    /// The model, whose image tower runs.
    pub model: &'a Model,
    /// Devices, one thread each, and number format.
    pub devices: &'a Devices,
    /// Whether patch features are computed as well.
    pub local: bool,
    /// Views of a full batch, at least one.
    pub full: usize,
    /// Where a device that fails is reported.
    pub reporting: Reporting,
    /// Ends a run with [`PipelineError::Interrupted`](crate::PipelineError::Interrupted).
    pub interrupt: Interrupt,
}

/// A message to the consumer.
enum Message<E> {
    Event(EncodeEvent<E>),
    /// No device is left; the source may still be waiting for an event that will not come.
    Failed,
}

/// Receives the units of a source.
#[derive(Debug)]
pub struct BatchSink<'a, E> {
    batches: Sender<Batch>,
    events: Sender<Message<E>>,
    clock: &'a Clock,
    full: usize,
}

/// Receives the views of one unit.
#[derive(Debug)]
pub struct UnitSink<'a, E> {
    sink: &'a BatchSink<'a, E>,
    unit: usize,
    builder: BatchBuilder,
}

impl<E> BatchSink<'_, E> {
    /// Views of a full batch.
    pub fn full(&self) -> usize {
        self.full
    }

    /// Begins unit number `unit`; the number must be unique in this run of the engine.
    pub fn begin(&self, unit: usize) -> UnitSink<'_, E> {
        UnitSink {
            sink: self,
            unit,
            builder: BatchBuilder::new(unit, self.full),
        }
    }

    /// Sends a batch; waits until the queue has room.
    fn send(&self, batch: Batch) -> bool {
        self.clock.to_encode.fetch_add(1, Ordering::Relaxed);
        timed(&self.clock.decoding_waited, || self.batches.send(batch)).is_ok()
    }
}

impl<E> UnitSink<'_, E> {
    /// Adds a view (image and view) with its pixels `[side, side, 3]`; a full batch is sent. `false` if there is no
    /// receiver any more: the source should end then.
    #[must_use]
    pub fn add(&mut self, row: (usize, i16), pixels: &[u8]) -> bool {
        match self.builder.add(row, pixels) {
            Some(batch) => self.sink.send(batch),
            None => true,
        }
    }

    /// Sends the views that are there without waiting for a full batch; `false` if there is no receiver any more.
    #[must_use]
    pub fn flush(&mut self) -> bool {
        match self.builder.flush() {
            Some(batch) => self.sink.send(batch),
            None => true,
        }
    }

    /// Sends the last batch, and `end` to the consumer; `false` if there is no receiver any more.
    #[must_use]
    pub fn end(self, end: E) -> bool {
        let (last, batches) = self.builder.finish();
        if last.is_some_and(|batch| !self.sink.send(batch)) {
            return false;
        }
        let end = EncodeEvent::End {
            unit: self.unit,
            batches,
            end,
        };
        self.sink.events.send(Message::Event(end)).is_ok()
    }
}

impl Engine<'_> {
    /// Encodes all views that `source` sends and passes the features to `consume`, until both are done. The source and
    /// each device run in separate threads, the consumer in the calling thread.
    ///
    /// A GPU that fails is reported and not used any more; its batches are encoded by the other devices.
    ///
    /// # Errors
    /// The first cause: an error of the consumer, which ends the others; no device left, a failure on the CPU or an
    /// interruption; an error or panic of the source.
    pub fn run<E: Send>(
        &self,
        clock: &Clock,
        source: impl FnOnce(&BatchSink<'_, E>) -> Result<()> + Send,
        consume: impl FnMut(EncodeEvent<E>) -> Result<()>,
    ) -> Result<()> {
        let encode = |lane: &Lane<'_, E>| {
            let towers = Towers::new(self.model, self.devices, self.local)?;
            lane.encode(&|device| towers.open(device))
        };
        self.run_with(clock, encode, source, consume)
    }

    /// [`Engine::run`] with the devices that `encode` opens.
    fn run_with<E: Send>(
        &self,
        clock: &Clock,
        encode: impl FnOnce(&Lane<'_, E>) -> Result<()> + Send,
        source: impl FnOnce(&BatchSink<'_, E>) -> Result<()> + Send,
        consume: impl FnMut(EncodeEvent<E>) -> Result<()>,
    ) -> Result<()> {
        let room = 2 * self.devices.workers.len() + 2;
        let (send_batch, decoded) = bounded::<Batch>(room);
        let (send_event, events) = bounded::<Message<E>>(room);
        std::thread::scope(|scope| {
            // Only the threads own senders and receivers of batches, so that the end of one step ends the next.
            let decoder = {
                let sink = BatchSink {
                    batches: send_batch,
                    events: send_event.clone(),
                    clock,
                    full: self.full.max(1),
                };
                let span = tracing::Span::current();
                scope.spawn(move || span.in_scope(|| source(&sink)))
            };
            let encoder = scope.spawn(move || {
                let lane = Lane {
                    workers: &self.devices.workers,
                    queue: Queue::new(decoded),
                    events: send_event,
                    clock,
                    reporting: self.reporting,
                    interrupt: &self.interrupt,
                };
                let end = guarded(STAGE, || encode(&lane));
                if end.is_err() {
                    // If the consumer has ended before, its error is the first cause.
                    let _ = lane.events.send(Message::Failed);
                }
                end
            });
            let consumed = consume_all(events, clock, consume);
            let decoded = joined("decode", decoder);
            let encoded = joined(STAGE, encoder);
            consumed.and(encoded).and(decoded)
        })
    }
}

/// Takes the receiver and the consumer by value: when they are dropped, the threads that wait for them end.
fn consume_all<E>(
    events: Receiver<Message<E>>,
    clock: &Clock,
    mut consume: impl FnMut(EncodeEvent<E>) -> Result<()>,
) -> Result<()> {
    for message in &events {
        let event = match message {
            Message::Event(event) => event,
            Message::Failed => break,
        };
        clock.to_consume.store(events.len(), Ordering::Relaxed);
        consume(event)?;
    }
    Ok(())
}

/// The devices between the queue of batches and the consumer.
struct Lane<'a, E> {
    workers: &'a [Device],
    queue: Queue,
    events: Sender<Message<E>>,
    clock: &'a Clock,
    reporting: Reporting,
    interrupt: &'a Interrupt,
}

impl<E: Send> Lane<'_, E> {
    /// Encodes every batch of the queue on the devices that `open` makes.
    fn encode<'d>(
        &self,
        open: &(dyn Fn(Device) -> Result<Box<dyn EncodeDevice + 'd>> + Sync),
    ) -> Result<()> {
        let left_over = || !self.queue.returned().is_empty();
        on_devices(
            STAGE,
            &mut self.workers.to_vec(),
            usize::MAX,
            left_over,
            |device| {
                let encode = || {
                    let encoder = guarded(STAGE, || open(device))?;
                    let work = DeviceLoop {
                        device,
                        encoder: &*encoder,
                        queue: &self.queue,
                        clock: self.clock,
                        interrupt: self.interrupt,
                    };
                    work.run(|batch, features, busy| {
                        let EncodedImages { global, local } = features;
                        let event = EncodeEvent::Encoded {
                            unit: batch.unit,
                            sequence: batch.sequence,
                            rows: batch.rows,
                            global,
                            local,
                            busy,
                        };
                        self.events.send(Message::Event(event)).is_ok()
                    })
                };
                encode().inspect_err(|error| {
                    if !is_fatal(device, error) {
                        report_lost_device(self.reporting, device, error);
                    }
                })
            },
        )
    }
}

#[cfg(test)]
mod tests;
