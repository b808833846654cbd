//! A device that takes its time and computes nothing: for tests and benches of the flow around the model, never for results.

use std::cell::Cell;
use std::time::{Duration, Instant};

use clipood_clip::config::ClipConfig;
use clipood_clip::model::{EncodedImages, LaunchedImages};
use clipood_core::SplitMix64;

use super::batch::Batch;
use super::device::EncodeDevice;
use crate::error::Result;

/// A thread that sleeps wakes up late. A device whose next batch waits already does not lose that time.
const OVERSLEPT: Duration = Duration::from_millis(2);

/// A device that pretends to encode `rate` images per second.
pub(super) struct SimulatedDevice<'a> {
    config: &'a ClipConfig,
    local: bool,
    rate: u32,
    /// When it was done with its last batch.
    busy: Cell<Option<Instant>>,
}

impl<'a> SimulatedDevice<'a> {
    /// With features of the sizes in `config`, of patches too if `local`.
    pub(super) fn new(config: &'a ClipConfig, local: bool, rate: u32) -> Self {
        Self {
            config,
            local,
            rate,
            busy: Cell::new(None),
        }
    }

    /// Made-up features of a batch. They depend on the pixels alone, so that every attempt at a unit makes the same part.
    fn pretend(&self, batch: &Batch) -> EncodedImages {
        let rows = batch.rows.len();
        let (dim, patches) = (self.config.embed_dim, self.config.image.positions());
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
            if self.local {
                features.local.extend((0..dim * patches).map(|_| value()));
            }
        }
        features
    }
}

impl EncodeDevice for SimulatedDevice<'_> {
    fn launch(&self, batch: &Batch) -> Result<LaunchedImages> {
        let now = Instant::now();
        let start = match self.busy.get() {
            Some(end) if now.saturating_duration_since(end) < OVERSLEPT => end,
            _ => now,
        };
        let features = self.pretend(batch);
        let rows = batch.rows.len();
        let whole = Duration::from_secs_f64(rows as f64 / f64::from(self.rate.max(1)));
        std::thread::sleep((start + whole).saturating_duration_since(Instant::now()));
        self.busy.set(Some(start + whole));
        Ok(features.into())
    }
}
