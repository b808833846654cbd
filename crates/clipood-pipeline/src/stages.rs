//! The stages of a run, as one list, which runs, workers, `status`, `explain`, the audit and `gc` iterate over.
//!
//! # How to add a stage
//! Write a file in `stages/` with a [`Stage`], and add a line to [`STAGES`] at the position where it runs. The units of
//! a stage must follow from [`Planned`] alone, so that every worker knows them before anything is computed. Its `run`
//! does the units that are not committed, and nothing if all are.

pub mod aggregate;
mod claims;
pub mod extract;
pub mod fit;
pub mod negative;
pub mod plan;
pub mod report;
pub mod score;
pub mod stream;
mod take_over;
pub mod train;
mod waiting;

use std::collections::{BTreeMap, HashSet};

use clipood_core::nearest;
use clipood_store::Unit;

use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::places::Shelf;
use crate::planned::Planned;

/// Every stage, in the order in which they run.
pub static STAGES: [&Stage; 9] = [
    &plan::STAGE,
    &extract::STAGE,
    &negative::STAGE,
    &train::STAGE,
    &fit::STAGE,
    &score::STAGE,
    &stream::STAGE,
    &aggregate::STAGE,
    &report::STAGE,
];

/// One stage: its units, where they are committed, and how they are computed.
#[derive(Debug)]
pub struct Stage {
    /// Its name in commands and messages.
    pub name: &'static str,
    /// Names of the earlier stages whose results its units read.
    pub needs: &'static [&'static str],
    /// Whether its units run the model, so that they need devices as those that the run was planned for. The other stages
    /// run on any machine.
    pub uses_devices: bool,
    /// Where its units are committed: shelves, with the name of the stage there. A unit is done when it is in all of
    /// them.
    pub ledgers: fn(&Planned) -> &'static [(Shelf, &'static str)],
    /// Its units, each once.
    pub units: fn(&Job, &Planned) -> Result<Vec<Unit>>,
    /// Its units with their inputs, for `explain` and the audit; if a unit stands for several commits, these commits
    /// instead.
    pub explained: fn(&Job, &Planned) -> Result<Vec<ExplainedUnit>>,
    /// Does every unit that is not done. Units that other workers have claimed come last. On return all units are done,
    /// by this worker or by others.
    pub run: fn(&Job, &Planned) -> Result<()>,
    /// Name of the only later stage that uses these units: once that stage is done, they are not needed any more.
    pub serves: Option<&'static str>,
}

/// A commit with its inputs.
#[derive(Debug, Clone)]
pub struct ExplainedUnit {
    /// Name of the unit, which users give after that of the stage.
    pub name: String,
    /// Where it is committed.
    pub shelf: Shelf,
    /// Name of the stage there.
    pub stage: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// The inputs of its fingerprint.
    pub inputs: BTreeMap<String, String>,
    /// For prompt sets the name that is the same for all fingerprints, to find the most similar one; other units have
    /// the same key instead.
    pub prompt: Option<String>,
}

/// Number of units of a stage in each state; `units = done + claimed + missing`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnitCounts {
    /// All units.
    pub units: usize,
    /// Units that are committed, or not needed any more.
    pub done: usize,
    /// Units that a worker has started and not committed: in progress, or left by a dead worker.
    pub claimed: usize,
    /// Units that no worker has started.
    pub missing: usize,
}

impl Stage {
    /// Counts the units by their state.
    ///
    /// # Errors
    /// Commits or claims that cannot be read.
    pub fn count(&self, job: &Job, planned: &Planned) -> Result<UnitCounts> {
        let units = (self.units)(job, planned)?;
        let mut counts = count_units(job, &units, (self.ledgers)(planned))?;
        if counts.done < counts.units
            && let Some(later) = STAGES.iter().find(|s| Some(s.name) == self.serves)
            && later.is_done(job, planned)?
        {
            counts = UnitCounts {
                units: counts.units,
                done: counts.units,
                ..UnitCounts::default()
            };
        }
        Ok(counts)
    }

    /// Whether all units are done.
    ///
    /// # Errors
    /// Commits that cannot be read.
    pub fn is_done(&self, job: &Job, planned: &Planned) -> Result<bool> {
        let counts = self.count(job, planned)?;
        Ok(counts.done == counts.units)
    }
}

/// Counts `units` by their state in all of `ledgers`.
///
/// # Errors
/// Commits or claims that cannot be read.
pub fn count_units(
    job: &Job,
    units: &[Unit],
    ledgers: &[(Shelf, &'static str)],
) -> Result<UnitCounts> {
    let mut committed = Vec::new();
    let mut claimed = HashSet::new();
    for (shelf, name) in ledgers {
        let ledger = job.places.ledger(*shelf);
        committed.push(ledger.committed(name)?);
        claimed.extend(ledger.claimed(name)?);
    }
    let mut counts = UnitCounts {
        units: units.len(),
        ..UnitCounts::default()
    };
    for unit in units {
        let mut done = true;
        for committed in &committed {
            done &= committed.contains(unit)?;
        }
        match done {
            true => counts.done += 1,
            false if claimed.contains(&unit.key) => counts.claimed += 1,
            false => counts.missing += 1,
        }
    }
    Ok(counts)
}

/// The stages with these names, in the order in which they run.
///
/// # Errors
/// [`PipelineError::Usage`] for an unknown name, with the nearest known one.
pub fn stages_called(names: &[String]) -> Result<Vec<&'static Stage>> {
    let known = || STAGES.iter().map(|stage| stage.name);
    for name in names {
        if !known().any(|known| known == name) {
            let hint = match nearest(name, known()) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("the stages are {}", known().collect::<Vec<_>>().join(", ")),
            };
            return Err(PipelineError::Usage(format!("no stage `{name}`; {hint}")));
        }
    }
    let wanted = |stage: &&&Stage| names.iter().any(|name| name == stage.name);
    Ok(STAGES.iter().filter(wanted).copied().collect())
}

/// Runs the `wanted` stages. What they need of other stages has to be done, unless the worker waits for it.
///
/// # Errors
/// [`PipelineError::StageNotDone`] for a stage that a wanted one needs, that is not wanted itself and that has open units,
/// if the worker does not wait; the first error of a stage.
pub fn run_stages(job: &Job, planned: &Planned, wanted: &[&Stage]) -> Result<()> {
    let is_wanted = |stage: &Stage| wanted.iter().any(|other| other.name == stage.name);
    for stage in STAGES.into_iter().filter(|stage| is_wanted(stage)) {
        job.worker.interrupt.check()?;
        let needed = STAGES
            .iter()
            .filter(|other| stage.needs.contains(&other.name));
        for needed in needed.filter(|needed| !is_wanted(needed)) {
            if job.worker.waits {
                waiting::wait_for_stage(job, planned, needed)?;
            }
            let UnitCounts { units, done, .. } = needed.count(job, planned)?;
            if done < units {
                return Err(PipelineError::StageNotDone {
                    stage: needed.name,
                    open: units - done,
                    units,
                });
            }
            // Computes nothing, but checks the results, such as the number of unreadable images against its limit.
            (needed.run)(job, planned)?;
        }
        (stage.run)(job, planned)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
