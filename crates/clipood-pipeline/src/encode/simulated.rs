//! A device that waits and computes nothing, for tests and benchmarks of everything around the model; never for
//! results.

use std::cell::Cell;
use std::time::{Duration, Instant};

use clipood_clip::config::ClipConfig;
use clipood_clip::model::{EncodedImages, LaunchedImages};
use clipood_core::SplitMix64;

use super::batch::Batch;
use super::device::EncodeDevice;
use crate::error::Result;

/// Largest delay after a sleep that is made up for: threads wake up late, and a device whose next batch is waiting
/// already would lose that time.
const OVERSLEPT: Duration = Duration::from_millis(2);

/// A device that pretends to encode `rate` images per second.
pub(super) struct SimulatedDevice<'a> {
    config: &'a ClipConfig,
    local: bool,
    rate: u32,
    /// When it finished its last batch.
    busy: Cell<Option<Instant>>,
}

impl<'a> SimulatedDevice<'a> {
    /// Features have the sizes of `config`; with `local` there are patch features as well.
    pub(super) fn new(config: &'a ClipConfig, local: bool, rate: u32) -> Self {
        Self {
            config,
            local,
            rate,
            busy: Cell::new(None),
        }
    }

    /// Made-up features of a batch. They depend only on the pixels, so that every attempt at a unit produces the same
    /// part.
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
