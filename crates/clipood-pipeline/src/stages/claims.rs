//! Units that one worker should do while the others wait: texts of no class, fitted detectors, metric tables.

use std::time::Duration;

use clipood_store::{Ledger, Share, Unit, passes, wait_for};

use crate::error::Result;
use crate::job::Job;

/// How long a worker waits for units that others have claimed before it does them itself. Nothing depends on it: whoever waits
/// too short does work twice, and whoever waits too long for a worker that is gone loses the time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Does the units of a stage with `work`, which commits the unit at the given place, until all are committed. Units that other
/// workers have claimed are waited for, and done here when that takes long.
///
/// # Errors
/// An interruption, the errors of `work`, a ledger that cannot be read.
pub fn share_units(
    job: &Job,
    ledger: &Ledger,
    stage: &str,
    units: &[Unit],
    mut work: impl FnMut(usize) -> Result<()>,
) -> Result<()> {
    let mut rounds = |backups: bool, open: &[usize]| -> Result<()> {
        let wanted: Vec<Unit> = open.iter().map(|place| units[*place].clone()).collect();
        let share = Share {
            backups,
            ..job.worker.share
        };
        for turn in passes(ledger, stage, &wanted, share) {
            job.worker.interrupt.check()?;
            work(open[turn?.unit])?;
        }
        Ok(())
    };
    let all: Vec<usize> = (0..units.len()).collect();
    rounds(false, &all)?;
    let interrupted = || job.worker.interrupt.is_set();
    let open = wait_for(ledger, stage, units, PATIENCE, &interrupted)?;
    job.worker.interrupt.check()?;
    rounds(true, &open)
}
