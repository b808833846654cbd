//! The trait of devices that encode batches, and the loop that feeds one.
//!
//! Every device has its own thread, which launches the next batch before it waits for the previous one. A device that
//! fails returns its batches to the queue.

use std::time::{Duration, Instant};

use clipood_clip::model::{Device, EncodedImages, LaunchedImages};

use super::batch::Batch;
use super::queue::{Clock, Queue};
use crate::error::{PipelineError, Result};
use crate::interrupt::Interrupt;
use crate::panics::guarded;

/// Name under which panics of a device thread are reported.
pub(super) const STAGE: &str = "encode";

/// Encodes batches on one device; created and used in the thread of that device.
pub(super) trait EncodeDevice {
    /// Starts to encode a batch. A device that computes asynchronously, as a GPU does, may return before it has
    /// finished.
    fn launch(&self, batch: &Batch) -> Result<LaunchedImages>;

    /// Waits for the features of a batch that was launched.
    fn wait(&self, images: LaunchedImages, _batch: &Batch) -> Result<EncodedImages> {
        Ok(images.wait()?)
    }
}

/// A batch that the device may still be computing.
struct InHand {
    batch: Batch,
    images: LaunchedImages,
    launched: Instant,
}

/// The loop of a device thread.
pub(super) struct DeviceLoop<'a> {
    pub device: Device,
    pub encoder: &'a dyn EncodeDevice,
    pub queue: &'a Queue,
    pub clock: &'a Clock,
    pub interrupt: &'a Interrupt,
}

impl DeviceLoop<'_> {
    /// Encodes the batches of the queue and calls `deliver` with each batch, its features and the time that the device
    /// spent on it, until the queue is empty and closed, or `deliver` returns `false`.
    ///
    /// # Errors
    /// An interruption; a device that fails, after its batches were returned to the queue.
    pub(super) fn run(
        &self,
        mut deliver: impl FnMut(Batch, EncodedImages, Duration) -> bool,
    ) -> Result<()> {
        let mut in_hand: Option<InHand> = None;
        let mut last_done: Option<Instant> = None;
        loop {
            self.interrupt.check()?;
            // A batch is launched already: its result must not wait for the next batch to be decoded.
            let next = match in_hand {
                Some(_) => self.queue.ready(self.clock),
                None => self.queue.next(self.clock),
            };
            let mut next_in_hand = None;
            if let Some(batch) = next {
                let launched = Instant::now();
                match guarded(STAGE, || self.launch(&batch)) {
                    Ok(images) => {
                        next_in_hand = Some(InHand {
                            batch,
                            images,
                            launched,
                        });
                    }
                    Err(error) => {
                        let open = in_hand.map(|open| open.batch);
                        return Err(self.failed(error, open.into_iter().chain([batch])));
                    }
                }
            } else if in_hand.is_none() {
                return Ok(());
            }
            let Some(open) = std::mem::replace(&mut in_hand, next_in_hand) else {
                continue;
            };
            let (batch, images) = (open.batch, open.images);
            let features = match guarded(STAGE, || self.encoder.wait(images, &batch)) {
                Ok(features) => features,
                Err(error) => {
                    let next = in_hand.map(|next| next.batch);
                    return Err(self.failed(error, next.into_iter().chain([batch])));
                }
            };
            let done = Instant::now();
            let began = last_done.map_or(open.launched, |last| last.max(open.launched));
            last_done = Some(done);
            if !deliver(batch, features, done - began) {
                return Ok(());
            }
        }
    }

    fn launch(&self, batch: &Batch) -> Result<LaunchedImages> {
        let views = batch.rows.len();
        let span = tracing::trace_span!("encode", device = %self.device, views);
        let _span = span.entered();
        self.encoder.launch(batch)
    }

    /// Returns the batches that are not finished to the queue, for the other devices.
    fn failed(&self, error: PipelineError, batches: impl Iterator<Item = Batch>) -> PipelineError {
        self.queue.returned().extend(batches);
        error
    }
}
