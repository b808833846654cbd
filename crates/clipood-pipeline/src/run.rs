//! A whole run: plan, extract, train, score, aggregate, report.

use std::collections::BTreeMap;

use clipood_store::Unit;
use serde_json::json;

use crate::aggregate::{Metrics, aggregate, read_metrics};
use crate::devices::guarded;
use crate::error::{PipelineError, Result};
use crate::extract::{FeatureIndex, GLOBAL, LOCAL, extract, feature_index, ledger_unit};
use crate::job::Job;
use crate::plan::{Plan, Purpose, plan};
use crate::prompts::{PromptKey, PromptSet, TRAIN, prompt_keys, prompt_sets, prompt_unit};
use crate::quarantine::{keep_quarantine, kept_quarantine, quarantine};
use crate::report::write_html;
use crate::score::{STAGE as SCORE, score, score_unit, shards};
use crate::tables::QuarantineRow;

/// Stage of the one unit that is committed when all others are.
const STAGE: &str = "finish";

/// What a finished run has to say.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The metric tables.
    pub metrics: Metrics,
    /// Test images planned.
    pub planned: usize,
    /// Test images scored under every prompt set.
    pub scored: usize,
    /// Images in quarantine, training images included.
    pub quarantined: Vec<QuarantineRow>,
}

/// Runs every stage of `job`; what is in the store or the run directory already is not done again.
///
/// # Errors
/// The first error of a stage. Everything that was committed stays, and the same call goes on from there.
pub fn run(job: &Job) -> Result<Outcome> {
    sweep(job)?;
    if let Some(outcome) = finished(job)? {
        let outcome = Ok(outcome);
        job.journal.end(&outcome);
        return outcome;
    }
    let outcome = guarded("run", || run_stages(job));
    job.journal.end(&outcome);
    outcome
}

/// Removes what killed writers left beside parts, which readers of a table's folder would take for parts.
fn sweep(job: &Job) -> Result<()> {
    let tables = ["images", "scores", "validation", "metrics"];
    job.run.ledger().sweep(&tables)?;
    job.features.ledger.sweep(&[GLOBAL, LOCAL])?;
    Ok(())
}

fn run_stages(job: &Job) -> Result<Outcome> {
    let _span =
        tracing::info_span!("run", at = job.run_location, worker = job.share.index).entered();
    let plan = plan(job)?;
    job.interrupt.check()?;
    let index = feature_index(job, &plan);
    let keys = prompt_keys(job);
    extract(job, &index, needs_patches(job)?)?;
    let quarantined = quarantine(job, &plan, &index)?;
    keep_quarantine(job, &quarantined)?;
    let sets = prompt_sets(job, &plan, &index)?;
    score(job, &plan, &index, &keys, &sets)?;
    let metrics = aggregate(job, &plan, &index, &keys, &sets)?;
    write_html(job, &metrics)?;
    let planned = plan.test_images();
    let tested = quarantined.iter().filter(|d| d.purpose == Purpose::Test);
    let lost: usize = tested.map(|d| d.scored.len()).sum();
    let scored = count_scored(job, &plan, &index, &keys, &sets)?;
    if scored + lost != planned {
        return Err(PipelineError::Inconsistent(format!(
            "{}: {planned} test images planned, {scored} scored, {lost} in quarantine; `clipood status --audit` names them",
            job.run_location
        )));
    }
    let features = index.units.iter().map(|unit| ledger_unit(job, unit));
    let account = Account {
        planned,
        scored,
        features: features.map(|unit| unit.key).collect(),
        prompts: sets.iter().map(|set| set.fingerprint.clone()).collect(),
    };
    let extra = BTreeMap::from([(ACCOUNT.to_string(), json!(account))]);
    let ledger = job.run.ledger();
    ledger.commit_without_part(STAGE, &unit(job), extra)?;
    Ok(Outcome {
        metrics,
        planned,
        scored,
        quarantined: quarantined.iter().flat_map(|d| d.rows().cloned()).collect(),
    })
}

/// Counts the test images that have scores, by the records of the parts: under the prompt set that has fewest.
fn count_scored(
    job: &Job,
    plan: &Plan,
    index: &FeatureIndex,
    keys: &[PromptKey],
    sets: &[PromptSet],
) -> Result<usize> {
    let shards = shards(plan, index);
    let tested = || shards.iter().filter(|s| s.dataset.purpose == Purpose::Test);
    let mut fewest = None;
    for (key, set) in keys.iter().zip(sets) {
        let units = tested().map(|shard| score_unit(job, key, &set.fingerprint, shard));
        let units = units.collect::<Result<Vec<_>>>()?;
        let records = job.run.ledger().records_of(SCORE, &units)?;
        let rows: u64 = records.iter().flatten().map(|record| record.rows).sum();
        fewest = Some(fewest.map_or(rows, |fewest: u64| fewest.min(rows)));
    }
    Ok(fewest.unwrap_or_default() as usize)
}

/// Where the record of a finished run keeps its [`Account`].
const ACCOUNT: &str = "account";

/// What a finished run consists of.
#[derive(serde::Serialize, serde::Deserialize)]
struct Account {
    planned: usize,
    scored: usize,
    /// Keys of the units of its features.
    features: Vec<String>,
    /// Fingerprints of its prompt sets.
    prompts: Vec<String>,
}

fn unit(job: &Job) -> Unit {
    Unit {
        key: "run".to_string(),
        fingerprint: job.fingerprint.to_string(),
    }
}

/// What the run has to say if all of it is done, without a look at its plan: three listings and a few small files, however
/// many images it has.
fn finished(job: &Job) -> Result<Option<Outcome>> {
    let Some(record) = job.run.ledger().record(STAGE, &unit(job))? else {
        return Ok(None);
    };
    let account = record.extra.get(ACCOUNT).cloned().unwrap_or_default();
    let Ok(account) = serde_json::from_value::<Account>(account) else {
        return Ok(None);
    };
    // Somebody may have removed what is shared.
    let features = job.features.ledger.committed(GLOBAL)?;
    for key in account.features {
        let fingerprint = job.features.fingerprint.to_string();
        if !features.contains(&Unit { key, fingerprint })? {
            return Ok(None);
        }
    }
    let prompts = job.prompts.committed(TRAIN)?;
    for fingerprint in account.prompts {
        if !prompts.contains(&prompt_unit(fingerprint))? {
            return Ok(None);
        }
    }
    let Some(metrics) = read_metrics(job.run.store())? else {
        return Ok(None);
    };
    write_html(job, &metrics)?;
    Ok(Some(Outcome {
        metrics,
        planned: account.planned,
        scored: account.scored,
        quarantined: kept_quarantine(job)?,
    }))
}

/// Whether a detector or a method of the recipe works on patches, so that their features are extracted too.
///
/// # Errors
/// None for a job that was opened.
pub fn needs_patches(job: &Job) -> Result<bool> {
    let trains = |key: &PromptKey| key.method.uses_patches();
    Ok(job.detectors_use_patches()? || prompt_keys(job).iter().any(trains))
}
