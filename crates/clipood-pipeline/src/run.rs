//! A whole run: plan, extract, train, score, aggregate, report.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

use crate::aggregate::{Metrics, aggregate};
use crate::error::{PipelineError, Result};
use crate::extract::{FeatureIndex, extract, feature_index};
use crate::features::read_quarantine_of;
use crate::job::Job;
use crate::plan::{Plan, Purpose, plan};
use crate::prompts::{PromptKey, prompt_keys, prompt_sets};
use crate::report::write_html;
use crate::score::score;
use crate::tables::{FileMeta, QuarantineRow, write_quarantine};

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
    let plan = plan(job)?;
    job.interrupt.check()?;
    let index = feature_index(job, &plan);
    let keys = prompt_keys(job);
    extract(job, &index, needs_patches(job)?)?;
    let quarantined = quarantine(job, &plan, &index)?;
    let sets = prompt_sets(job, &plan, &index)?;
    score(job, &plan, &index, &keys, &sets)?;
    let metrics = aggregate(job, &plan, &index, &keys, &sets)?;
    write_html(job, &metrics)?;
    let planned = plan.test_images();
    let lost = quarantined
        .iter()
        .filter(|row| is_test(&plan, &row.image_key))
        .count();
    Ok(Outcome {
        metrics,
        planned,
        scored: planned - lost,
        quarantined,
    })
}

/// Whether a detector or a method of the recipe works on patches, so that their features are extracted too.
///
/// # Errors
/// None for a job that was opened.
pub fn needs_patches(job: &Job) -> Result<bool> {
    let trains = |key: &PromptKey| key.method.uses_patches();
    Ok(job.detectors_use_patches()? || prompt_keys(job).iter().any(trains))
}

fn is_test(plan: &Plan, key: &str) -> bool {
    plan.datasets_for(Purpose::Test)
        .any(|d| d.scored.iter().any(|image| image.key == key))
}

/// Collects the images that could not be read, keeps them as a table, and checks the recipe's limit for each dataset.
fn quarantine(job: &Job, plan: &Plan, index: &FeatureIndex) -> Result<Vec<QuarantineRow>> {
    let rows = read_quarantine_of(job, &index.units)?;
    if rows.is_empty() {
        return Ok(rows);
    }
    let meta = FileMeta {
        fingerprint: job.fingerprint.to_string(),
        recipe: job.recipe.name.clone(),
        quarantined: Vec::new(),
        extra: BTreeMap::new(),
    };
    job.run.store().put(
        "_run/quarantine/extract.parquet",
        Bytes::from(write_quarantine(&rows, &meta)?),
    )?;
    let allowed = job.recipe.engine.max_quarantine_fraction;
    for dataset in &plan.datasets {
        let keys: HashSet<&str> = dataset
            .scored
            .iter()
            .chain(&dataset.train)
            .map(|image| image.key.as_str())
            .collect();
        let planned = keys.len();
        let own: Vec<&QuarantineRow> = rows
            .iter()
            .filter(|row| keys.contains(row.image_key.as_str()))
            .collect();
        if let Some(first) = own.first()
            && own.len() as f64 > allowed * planned as f64
        {
            return Err(PipelineError::Quarantine {
                dataset: dataset.name.clone(),
                quarantined: own.len(),
                planned,
                allowed,
                example: format!(
                    "{}: {}, {}",
                    first.image_key, first.error_kind, first.message
                ),
            });
        }
    }
    Ok(rows)
}
