//! A device that takes its time and computes nothing: for tests and benches of the flow around the model, never for results.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clipood_clip::config::ClipConfig;
use clipood_clip::model::EncodedImages;
use clipood_core::SplitMix64;
use crossbeam_channel::bounded;

use super::decode::panic_message;
use super::units::EVAL_VIEW;
use super::workers::{Batch, Clock, encode_batches};
use crate::error::{PipelineError, Result};
use crate::job::Job;

/// A thread that sleeps wakes up late. A device whose next batch waits already does not lose that time.
const OVERSLEPT: Duration = Duration::from_millis(2);

/// Made-up features of a batch after the time that a device of `rate` images a second takes. They depend on the pixels
/// alone, so that every attempt at a unit gives the same part. `busy` is when the device was done with its last batch.
pub(super) fn pretend(
    config: &ClipConfig,
    batch: &Batch,
    local: bool,
    rate: u32,
    busy: &Cell<Option<Instant>>,
) -> EncodedImages {
    let now = Instant::now();
    let start = match busy.get() {
        Some(end) if now.saturating_duration_since(end) < OVERSLEPT => end,
        _ => now,
    };
    let rows = batch.rows.len();
    let (dim, patches) = (config.embed_dim, config.image.positions());
    let mut features = EncodedImages {
        global: Vec::with_capacity(rows * dim),
        local: Vec::new(),
    };
    let image = batch.pixels.len() / rows.max(1);
    for pixels in batch.pixels.chunks_exact(image.max(1)) {
        let sum: u64 = pixels.iter().map(|value| u64::from(*value)).sum();
        let mut rng = SplitMix64::keyed(sum, "simulated", 0);
        let mut value = || rng.unit() as f32 - 0.5;
        features.global.extend((0..dim).map(|_| value()));
        if local {
            features.local.extend((0..dim * patches).map(|_| value()));
        }
    }
    let whole = Duration::from_secs_f64(rows as f64 / f64::from(rate.max(1)));
    std::thread::sleep((start + whole).saturating_duration_since(Instant::now()));
    busy.set(Some(start + whole));
    features
}

/// Seconds that the job's workers take for `batches` batches of `full` grey images that are in memory already: the flow
/// without decoding and writing.
///
/// # Errors
/// A device that fails.
pub fn encode_from_memory(job: &Job, batches: usize, full: usize) -> Result<f64> {
    let workers = job.worker.devices.workers.len();
    let bytes = 3 * job.experiment.model.config.image.size * job.experiment.model.config.image.size;
    let clock = Clock::default();
    let (send_batch, decoded) = bounded::<Batch>(workers.max(2));
    let (send_news, news) = bounded(2 * workers);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let clock = &clock;
        scope.spawn(move || {
            for sequence in 0..batches {
                let batch = Batch {
                    unit: 0,
                    sequence,
                    rows: (0..full).map(|image| (image, EVAL_VIEW)).collect(),
                    pixels: vec![128; full * bytes],
                };
                clock.queued.fetch_add(1, Ordering::Relaxed);
                if send_batch.send(batch).is_err() {
                    return;
                }
            }
        });
        let encoder =
            scope.spawn(move || encode_batches(job, false, full, decoded, &send_news, clock));
        let encoded = news.iter().count();
        encoder.join().unwrap_or_else(|panic| {
            Err(PipelineError::Panicked {
                stage: "encode",
                message: panic_message(&*panic),
            })
        })?;
        if encoded != batches {
            return Err(PipelineError::Inconsistent(format!(
                "{encoded} of {batches} batches were encoded"
            )));
        }
        Ok(start.elapsed().as_secs_f64())
    })
}
