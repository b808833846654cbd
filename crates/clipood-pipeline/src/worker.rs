//! A [`Worker`]: devices, share of the units, progress, and the flag that signals set.

use std::path::PathBuf;
use std::time::Duration;

use clipood_clip::model::{Device, Devices};
use clipood_store::Share;

use crate::interrupt::Interrupt;
use crate::journal::Journal;
use crate::progress::{Reporting, StageProgress};

/// The process that computes, and how it reports.
#[derive(Debug)]
pub struct Worker {
    /// Where the model runs, and in which number format.
    pub devices: Devices,
    /// Which units this process prefers.
    pub share: Share,
    /// How long this worker waits without a report of another one before it does the trainings that the other one has claimed;
    /// zero repeats those of living workers too.
    pub patience: Duration,
    /// Whether a stage waits for the earlier ones that it needs and that others do, instead of failing.
    pub waits: bool,
    /// Progress on standard error.
    pub reporting: Reporting,
    /// Progress for `clipood status`.
    pub journal: Journal,
    /// The command that decodes a suspected image in a process of its own, `PROGRAM judge-image`; without one an image
    /// that may have killed processes stops the run instead of being judged.
    pub judge: Option<PathBuf>,
    /// Set by signals.
    pub interrupt: Interrupt,
}

/// [`Worker::patience`] of a worker of several, unless it is told otherwise. A living worker reports at least every ten seconds.
pub const PATIENCE: Duration = Duration::from_secs(600);

impl Worker {
    /// The device for work that needs only one.
    pub fn device(&self) -> Device {
        self.devices.first()
    }

    /// Begins to report a stage of `total` pieces called `unit`.
    pub fn progress(&self, stage: &'static str, unit: &'static str, total: u64) -> StageProgress {
        let progress = self.reporting.stage(stage, unit, total);
        progress.with_journal(&self.journal)
    }
}
