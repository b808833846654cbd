//! Progress of the stages of a run.

use std::collections::BTreeMap;

use serde::Serialize;

use super::pace::{Pace, paces};
use crate::error::Result;
use crate::job::Job;
use crate::journal::{WorkerStatus, worker_statuses};
use crate::places::Shelf;
use crate::plan::{Purpose, plan_units};
use crate::planned::Planned;
use crate::quarantine::{DatasetQuarantine, quarantine};
use crate::stages::{STAGES, UnitCounts, count_units, plan};
use crate::tables::QuarantineRow;

/// Progress of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Location of the run directory.
    pub run: String,
    /// Name of the recipe.
    pub recipe: String,
    /// Fingerprint of recipe, manifests and model.
    pub fingerprint: String,
    /// Whether every unit of every stage is done.
    pub finished: bool,
    /// The last status of each worker.
    pub workers: Vec<WorkerStatus>,
    /// Rate and remaining time of the stages that workers are in, all workers together.
    pub paces: Vec<Pace>,
    /// The stages in their order; only the stage `plan` if there is no plan yet.
    pub stages: Vec<StageStatus>,
    /// The datasets with the images that could not be read.
    pub datasets: Vec<DatasetStatus>,
    /// Reasons of the quarantine, the most frequent first.
    pub quarantine: Vec<ReasonCount>,
}

/// Progress of one stage; `units = done + claimed + missing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StageStatus {
    /// Name of the stage.
    pub stage: &'static str,
    /// Units of the stage.
    pub units: usize,
    /// Committed units.
    pub done: usize,
    /// Units that a worker has started and not committed: in progress, or left by a dead worker.
    pub claimed: usize,
    /// Units that no worker has started.
    pub missing: usize,
}

impl StageStatus {
    fn new(stage: &'static str, counts: UnitCounts) -> Self {
        let UnitCounts {
            units,
            done,
            claimed,
            missing,
        } = counts;
        Self {
            stage,
            units,
            done,
            claimed,
            missing,
        }
    }
}

/// The images of one dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatasetStatus {
    /// Name of the dataset.
    pub dataset: String,
    /// `test` or `validation`: what its scored images are used for.
    pub purpose: &'static str,
    /// Planned images, training images included.
    pub planned: usize,
    /// Images that could not be read, as far as features have been extracted.
    pub quarantined: usize,
    /// Whether these are more than the recipe allows, which fails the run.
    pub over_limit: bool,
}

/// Images that share a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReasonCount {
    /// Kind of error.
    pub reason: String,
    /// Images.
    pub images: usize,
    /// One of them and its message.
    pub example: String,
}

/// Reads the commits and claims of every stage; the model is opened for its hash only.
///
/// # Errors
/// A run directory or store that cannot be read.
pub fn status(job: &Job) -> Result<Status> {
    status_of(job, Planned::read(job)?.as_ref())
}

/// As [`status`], with the plan of the run if it has been read already: a plan does not change.
///
/// # Errors
/// A run directory or store that cannot be read.
pub fn status_of(job: &Job, planned: Option<&Planned>) -> Result<Status> {
    let mut stages = Vec::new();
    let (mut datasets, mut reasons) = (Vec::new(), Vec::new());
    match planned {
        // Without a plan only the units of the stage `plan` are known.
        None => {
            let ledgers = &[(Shelf::Run, plan::STAGE.name)];
            let counts = count_units(job, &plan_units(job)?, ledgers)?;
            stages.push(StageStatus::new(plan::STAGE.name, counts));
        }
        Some(planned) => {
            for stage in STAGES {
                let counts = stage.count(job, planned)?;
                stages.push(StageStatus::new(stage.name, counts));
            }
            let unread = quarantine(job, &planned.plan, &planned.features)?;
            datasets = unread.iter().map(|d| dataset_status(job, d)).collect();
            let rows: Vec<&QuarantineRow> = unread.iter().flat_map(|d| d.rows()).collect();
            reasons = count_reasons(&rows);
        }
    }
    let workers = worker_statuses(job.places.run.store())?;
    Ok(Status {
        run: job.places.run_location.clone(),
        recipe: job.experiment.recipe.name.clone(),
        fingerprint: job.experiment.fingerprint.to_string(),
        finished: planned.is_some() && stages.iter().all(|s| s.done == s.units),
        paces: paces(&workers),
        workers,
        stages,
        datasets,
        quarantine: reasons,
    })
}

fn dataset_status(job: &Job, unread: &DatasetQuarantine) -> DatasetStatus {
    DatasetStatus {
        dataset: unread.dataset.clone(),
        purpose: match unread.purpose {
            Purpose::Test => "test",
            Purpose::Validation => "validation",
        },
        planned: unread.planned,
        quarantined: unread.rows().count(),
        over_limit: unread.over(job.experiment.recipe.engine.max_quarantine_fraction),
    }
}

fn count_reasons(rows: &[&QuarantineRow]) -> Vec<ReasonCount> {
    let mut by_kind: BTreeMap<&str, (usize, &QuarantineRow)> = BTreeMap::new();
    for row in rows {
        by_kind.entry(&row.error_kind).or_insert((0, row)).0 += 1;
    }
    let mut counts: Vec<ReasonCount> = by_kind
        .into_iter()
        .map(|(kind, (images, row))| ReasonCount {
            reason: kind.to_string(),
            images,
            example: format!("{}: {}", row.image_key, row.message),
        })
        .collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.images));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_sorted() {
        let row = |key: &str, kind: &str| QuarantineRow {
            image_key: key.into(),
            error_kind: kind.into(),
            message: "why".into(),
            ..QuarantineRow::default()
        };
        let rows = [
            row("a", "panic"),
            row("b", "truncated"),
            row("c", "truncated"),
        ];
        let counts = count_reasons(&rows.iter().collect::<Vec<_>>());
        let short: Vec<_> = counts
            .iter()
            .map(|c| (c.reason.as_str(), c.images))
            .collect();
        assert_eq!(short, [("truncated", 2), ("panic", 1)]);
        assert_eq!(counts[0].example, "b: why");
    }
}
