//! What a worker says while it waits for units of other workers: which ones, who has claimed them, and for how long.

use std::time::{Duration, Instant};

use clipood_store::Unit;

use crate::error::Result;
use crate::job::Job;
use crate::journal::StageReport;
use crate::planned::Planned;
use crate::stages::{Stage, UnitCounts};

/// Time between two checks for the units of others.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time between two messages.
const SAY_EVERY: Duration = Duration::from_secs(30);
/// Units that a message names.
const NAMED: usize = 3;

/// A wait of one stage.
pub struct Waiting<'a> {
    job: &'a Job,
    stage: &'static str,
    since: Instant,
    said: Option<Instant>,
}

impl<'a> Waiting<'a> {
    /// Begins to wait in `stage`; nothing is said yet.
    pub fn new(job: &'a Job, stage: &'static str) -> Self {
        Self {
            job,
            stage,
            since: Instant::now(),
            said: None,
        }
    }

    /// Waits a moment. `what` says at the beginning, and then every half a minute, how many units it waits for and
    /// which; it is told how long the wait has taken.
    ///
    /// # Errors
    /// An interruption; the errors of `what`.
    pub fn pause(&mut self, what: impl FnOnce() -> Result<(usize, String)>) -> Result<()> {
        self.job.worker.interrupt.check()?;
        if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            let (units, text) = what()?;
            let waited = match self.said {
                None => String::new(),
                Some(_) => format!(" (for {} s now)", self.since.elapsed().as_secs()),
            };
            let (stage, worker) = (self.stage, &self.job.worker);
            worker
                .reporting
                .say(&format!("{stage:>9} waiting for {text}{waited}"));
            worker.journal.waits(StageReport {
                name: stage.to_string(),
                unit: "units of other workers".to_string(),
                total: units as u64,
                ..StageReport::default()
            });
            self.said = Some(Instant::now());
        }
        std::thread::sleep(LOOK_EVERY);
        Ok(())
    }
}

/// Waits until every unit of `stage`, which other workers do, is done.
///
/// # Errors
/// An interruption, commits that cannot be read.
pub fn wait_for_stage(job: &Job, planned: &Planned, stage: &Stage) -> Result<()> {
    let mut waiting = Waiting::new(job, stage.name);
    loop {
        let counts = stage.count(job, planned)?;
        let UnitCounts {
            units,
            done,
            claimed,
            missing,
        } = counts;
        if done == units {
            return Ok(());
        }
        waiting.pause(|| {
            let open = units - done;
            let text = format!(
                "{open} of {units} units of this stage, of which other workers have claimed {claimed} and nobody {missing}"
            );
            Ok((open, text))
        })?;
    }
}

/// The first of `open` by their names, each with the worker that `claimant` says.
///
/// # Errors
/// Those of `claimant`.
pub fn claimed_by(
    open: &[(String, &Unit)],
    claimant: impl Fn(&Unit) -> Result<Option<String>>,
) -> Result<String> {
    let mut named = Vec::new();
    for (name, unit) in open.iter().take(NAMED) {
        named.push(match claimant(unit)? {
            Some(worker) => format!("{name} ({worker})"),
            None => name.clone(),
        });
    }
    if open.len() > NAMED {
        named.push(format!("{} more", open.len() - NAMED));
    }
    Ok(named.join(", "))
}
