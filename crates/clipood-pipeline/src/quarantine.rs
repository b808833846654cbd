//! Images that could not be read, by dataset, and the limit of the recipe for them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use clipood_store::Unit;

use crate::error::{PipelineError, Result};
use crate::extract::FeatureIndex;
use crate::features::read_quarantine_of;
use crate::job::Job;
use crate::plan::{Plan, Purpose};
use crate::tables::{FileMeta, QuarantineRow, read_quarantine, write_quarantine};

/// The table of a run's quarantine.
const PATH: &str = "_run/quarantine/extract.parquet";

/// The images of one dataset that could not be read.
#[derive(Debug, Clone)]
pub struct DatasetQuarantine {
    /// Name of the dataset.
    pub dataset: String,
    /// What its scored images are used for.
    pub purpose: Purpose,
    /// Images planned, training images included.
    pub planned: usize,
    /// Images to score that could not be read.
    pub scored: Vec<QuarantineRow>,
    /// Training images that could not be read, each once.
    pub train: Vec<QuarantineRow>,
}

impl DatasetQuarantine {
    /// All of them.
    pub fn rows(&self) -> impl Iterator<Item = &QuarantineRow> {
        self.scored.iter().chain(&self.train)
    }

    /// Whether these are a larger share of the dataset's images than `allowed`.
    pub fn over(&self, allowed: f64) -> bool {
        let unread = self.rows().count();
        unread > 0 && unread as f64 > allowed * self.planned as f64
    }
}

/// The images that could not be read, by dataset, as far as features have been extracted.
///
/// # Errors
/// A record or part of the features that cannot be read.
pub fn quarantine(job: &Job, plan: &Plan, index: &FeatureIndex) -> Result<Vec<DatasetQuarantine>> {
    let by_unit = read_quarantine_of(job, &index.units)?;
    let of = |units: &mut dyn Iterator<Item = usize>| -> Vec<QuarantineRow> {
        let units: BTreeSet<usize> = units.collect();
        let rows = units.into_iter().flat_map(|unit| &by_unit[unit]);
        // The few-shot images of several seeds overlap.
        let rows: BTreeMap<&str, &QuarantineRow> =
            rows.map(|row| (row.image_key.as_str(), row)).collect();
        rows.into_values().cloned().collect()
    };
    let mut all = Vec::new();
    for (dataset, units) in plan.datasets.iter().zip(&index.scored) {
        // Training images are listed under the first entry of the in-distribution dataset.
        let mut train = index.train.values().flatten().map(|(_, unit)| *unit);
        let trains = !dataset.train.is_empty();
        all.push(DatasetQuarantine {
            dataset: dataset.name.clone(),
            purpose: dataset.purpose,
            planned: dataset.images() + dataset.train.len(),
            scored: of(&mut units.iter().copied()),
            train: match trains {
                true => of(&mut train),
                false => Vec::new(),
            },
        });
    }
    Ok(all)
}

/// Writes the quarantine as a table of the run and checks the recipe's limit for each dataset.
///
/// # Errors
/// [`PipelineError::Quarantine`] for a dataset above the limit; a run directory that cannot be written.
pub fn keep_quarantine(job: &Job, datasets: &[DatasetQuarantine]) -> Result<()> {
    let rows: Vec<QuarantineRow> = datasets.iter().flat_map(|d| d.rows().cloned()).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let meta = FileMeta {
        fingerprint: job.experiment.fingerprint.to_string(),
        recipe: job.experiment.recipe.name.clone(),
        quarantined: Vec::new(),
        extra: BTreeMap::new(),
    };
    let bytes = Bytes::from(write_quarantine(&rows, &meta)?);
    job.places.run.store().put(PATH, bytes)?;
    let allowed = job.experiment.recipe.engine.max_quarantine_fraction;
    for dataset in datasets.iter().filter(|d| d.over(allowed)) {
        let Some(first) = dataset.rows().next() else {
            continue;
        };
        return Err(PipelineError::Quarantine {
            dataset: dataset.dataset.clone(),
            quarantined: dataset.rows().count(),
            planned: dataset.planned,
            allowed,
            example: format!(
                "{}: {}, {}",
                first.image_key, first.error_kind, first.message
            ),
        });
    }
    Ok(())
}

/// The table that [`keep_quarantine`] has written before the unit `done` of `stage` was committed; empty if it has
/// written none.
///
/// # Errors
/// A table that cannot be read or is damaged.
pub fn kept_quarantine(job: &Job, stage: &str, done: &Unit) -> Result<Vec<QuarantineRow>> {
    match job.places.run.ledger().read_sealed(stage, done, PATH)? {
        Some(bytes) => Ok(read_quarantine(bytes, PATH)?),
        None => Ok(Vec::new()),
    }
}
