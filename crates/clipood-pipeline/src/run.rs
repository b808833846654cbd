//! A whole run: plan, extract, train, score, aggregate, report.

use std::collections::BTreeMap;

use clipood_store::Unit;
use serde_json::json;

use crate::aggregate::{Metrics, aggregate, read_metrics};
use crate::error::Result;
use crate::extract::{GLOBAL, extract, feature_index, ledger_unit};
use crate::job::Job;
use crate::plan::{Purpose, plan};
use crate::prompts::{PromptKey, TRAIN, prompt_keys, prompt_sets, prompt_unit};
use crate::quarantine::{keep_quarantine, kept_quarantine, quarantine};
use crate::report::write_html;
use crate::score::score;
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
    if let Some(outcome) = finished(job)? {
        return Ok(outcome);
    }
    let outcome = run_stages(job);
    job.journal.end(&outcome);
    outcome
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
    let features = index.units.iter().map(|unit| ledger_unit(job, unit));
    let account = Account {
        planned,
        scored: planned - lost,
        features: features.map(|unit| unit.key).collect(),
        prompts: sets.iter().map(|set| set.fingerprint.clone()).collect(),
    };
    let extra = BTreeMap::from([(ACCOUNT.to_string(), json!(account))]);
    let ledger = job.run.ledger();
    ledger.commit_without_part(STAGE, &unit(job), extra)?;
    Ok(Outcome {
        metrics,
        planned,
        scored: planned - lost,
        quarantined: quarantined.iter().flat_map(|d| d.rows().cloned()).collect(),
    })
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
    // Somebody may have removed what is shared, or tables to have them made again.
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
