//! How far each stage of a run is.

use std::collections::{BTreeMap, HashSet};

use clipood_store::{Ledger, Unit};
use serde::Serialize;

use crate::aggregate::{STAGE as AGGREGATE, table_units};
use crate::error::Result;
use crate::extract::{GLOBAL, LOCAL, feature_index, ledger_unit};
use crate::job::Job;
use crate::journal::{LastWord, last_words};
use crate::plan::{Purpose, STAGE as PLAN, plan_units, standing_plan};
use crate::prompts::{TRAIN, prompt_keys, prompt_units};
use crate::quarantine::{DatasetQuarantine, quarantine as quarantined};
use crate::run::needs_patches;
use crate::score::{SHARDS, shard_unit, shards};
use crate::tables::QuarantineRow;

/// How far a run is.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Where the run directory lies.
    pub run: String,
    /// Name of the recipe.
    pub recipe: String,
    /// Fingerprint of recipe, manifests and model.
    pub fingerprint: String,
    /// Whether every unit of every stage is done.
    pub finished: bool,
    /// What each worker last said of itself.
    pub workers: Vec<LastWord>,
    /// The stages in their order; only the plan before there is one.
    pub stages: Vec<StageStatus>,
    /// The datasets with the images that could not be read.
    pub datasets: Vec<DatasetStatus>,
    /// Reasons of the quarantine, the most frequent first.
    pub quarantine: Vec<ReasonCount>,
}

/// How far one stage is; `units = done + claimed + missing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StageStatus {
    /// Name of the stage.
    pub stage: &'static str,
    /// Units of the stage.
    pub units: usize,
    /// Committed units.
    pub done: usize,
    /// Units that a worker has started and not committed: in work, or left by a worker that is gone.
    pub claimed: usize,
    /// Units that nobody has started.
    pub missing: usize,
}

/// The images of one dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatasetStatus {
    /// Name of the dataset.
    pub dataset: String,
    /// `test` or `validation`: what its scored images serve for.
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

/// Looks at the commits and claims of every stage; the model is opened for its hash, and not run.
///
/// # Errors
/// A run directory or store that cannot be read.
pub fn status(job: &Job) -> Result<Status> {
    let ledger = job.run.ledger();
    let mut stages = vec![count(PLAN, &plan_units(job)?, &[(ledger, PLAN)])?];
    let mut datasets = Vec::new();
    let mut quarantine = Vec::new();
    let plan = standing_plan(job)?;
    if let Some(plan) = &plan {
        let index = feature_index(job, plan);
        let features: Vec<Unit> = index.units.iter().map(|u| ledger_unit(job, u)).collect();
        let global = (&job.features.ledger, GLOBAL);
        let tables = match needs_patches(job)? {
            true => vec![(&job.features.ledger, LOCAL), global],
            false => vec![global],
        };
        stages.push(count("extract", &features, &tables)?);
        let keys = prompt_keys(job);
        let mut prompts = prompt_units(job, plan, &keys)?;
        let fingerprints: Vec<String> = prompts.iter().map(|u| u.fingerprint.clone()).collect();
        let fingerprints: Vec<&str> = fingerprints.iter().map(String::as_str).collect();
        // A dual-pattern method shares the prompt set of its namesake.
        let mut known = HashSet::new();
        prompts.retain(|unit| known.insert(unit.key.clone()));
        stages.push(count(TRAIN, &prompts, &[(&job.prompts, TRAIN)])?);
        let shards = shards(plan, &index);
        let scored = shards
            .iter()
            .map(|shard| shard_unit(job, &keys, &fingerprints, shard))
            .collect::<Result<Vec<_>>>()?;
        stages.push(count("score", &scored, &[(ledger, SHARDS)])?);
        let tables = table_units(job, &keys, &fingerprints, &shards)?;
        stages.push(count(AGGREGATE, &tables, &[(ledger, AGGREGATE)])?);
        let unread = quarantined(job, plan, &index)?;
        datasets = unread.iter().map(|d| dataset_status(job, d)).collect();
        let rows: Vec<&QuarantineRow> = unread.iter().flat_map(|d| d.rows()).collect();
        quarantine = reasons(&rows);
    }
    Ok(Status {
        run: job.run_location.clone(),
        recipe: job.recipe.name.clone(),
        fingerprint: job.fingerprint.to_string(),
        finished: plan.is_some() && stages.iter().all(|s| s.done == s.units),
        workers: last_words(job.run.store())?,
        stages,
        datasets,
        quarantine,
    })
}

/// A unit is done when it is committed in each of `ledgers`, and claimed when it is in one of them.
fn count(stage: &'static str, units: &[Unit], ledgers: &[(&Ledger, &str)]) -> Result<StageStatus> {
    let mut committed = Vec::new();
    let mut claimed = HashSet::new();
    for (ledger, name) in ledgers {
        committed.push(ledger.committed(name)?);
        claimed.extend(ledger.claimed(name)?);
    }
    let mut status = StageStatus {
        stage,
        units: units.len(),
        done: 0,
        claimed: 0,
        missing: 0,
    };
    for unit in units {
        let mut done = true;
        for committed in &committed {
            done &= committed.contains(unit)?;
        }
        if done {
            status.done += 1;
        } else if claimed.contains(&unit.key) {
            status.claimed += 1;
        } else {
            status.missing += 1;
        }
    }
    Ok(status)
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
        over_limit: unread.over(job.recipe.engine.max_quarantine_fraction),
    }
}

fn reasons(rows: &[&QuarantineRow]) -> Vec<ReasonCount> {
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
        let counts = reasons(&rows.iter().collect::<Vec<_>>());
        let short: Vec<_> = counts
            .iter()
            .map(|c| (c.reason.as_str(), c.images))
            .collect();
        assert_eq!(short, [("truncated", 2), ("panic", 1)]);
        assert_eq!(counts[0].example, "b: why");
    }
}
