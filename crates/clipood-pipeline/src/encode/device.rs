//! What encodes batches on one device, and the loop that feeds it.
//!
//! Every device has a thread of its own, which launches the next batch before it waits for the last one. A device that fails
//! returns its batches to the queue.

use std::time::{Duration, Instant};

use clipood_clip::model::{Device, EncodedImages, LaunchedImages};

use super::batch::Batch;
use super::queue::{Clock, Queue};
use crate::error::{PipelineError, Result};
use crate::interrupt::Interrupt;
use crate::panics::guarded;

/// What panics of a device thread are reported under.
pub(super) const STAGE: &str = "encode";

/// What encodes batches on one device; it is made and used in the thread of that device.
pub(super) trait EncodeDevice {
    /// Begins to encode a batch. What can go on by itself, as a GPU does, need not be done on return.
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
    /// Encodes what the queue has and calls `deliver` with each batch, its features and the time that the device spent on it,
    /// until the queue is empty and closed, or `deliver` returns `false`.
    ///
    /// # Errors
    /// An interruption; a device that fails, whose batches are back in the queue then.
    pub(super) fn run(
        &self,
        mut deliver: impl FnMut(Batch, EncodedImages, Duration) -> bool,
    ) -> Result<()> {
        let mut in_hand: Option<InHand> = None;
        let mut last_done: Option<Instant> = None;
        loop {
            self.interrupt.check()?;
            // With a batch in hand the device has work: its result must not wait for a batch that is not decoded yet.
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

    /// Leaves the batches in hand to the other devices.
    fn failed(&self, error: PipelineError, batches: impl Iterator<Item = Batch>) -> PipelineError {
        self.queue.returned().extend(batches);
        error
    }
}
