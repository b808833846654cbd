//! Sharing of short units, which one worker does while the others wait: texts of no class, fitted detectors, metric
//! tables.

use std::time::Duration;

use clipood_store::{Ledger, Share, Unit, passes, wait_for};

use super::waiting::claimed_by;
use crate::error::Result;
use crate::job::Job;

/// How long a worker waits for units that others have claimed before it does them itself. Results do not depend on it:
/// too short a wait repeats work, too long a wait for a dead worker costs time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Does the units of a stage with `work`, which commits the unit with the given index, until all are committed. Waits
/// for units that other workers have claimed, at most `PATIENCE`, and then does them here.
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
    say_waiting(job, ledger, stage, units)?;
    let interrupted = || job.worker.interrupt.is_set();
    let open = wait_for(ledger, stage, units, PATIENCE, &interrupted)?;
    job.worker.interrupt.check()?;
    rounds(true, &open)
}

/// Says which units of a stage are waited for, if there are any.
fn say_waiting(job: &Job, ledger: &Ledger, stage: &str, units: &[Unit]) -> Result<()> {
    let done = ledger.committed(stage)?;
    let mut open = Vec::new();
    for unit in units {
        if !done.contains(unit)? {
            open.push((unit.key.clone(), unit));
        }
    }
    if !open.is_empty() {
        job.worker.reporting.say(&format!(
            "{stage:>9} waiting up to {} s for {} units that other workers have claimed: {}; then this one does them",
            PATIENCE.as_secs(),
            open.len(),
            claimed_by(&open, |unit| Ok(ledger.claimant(stage, &unit.key)?))?
        ));
    }
    Ok(())
}
