//! Images that could not be read, by dataset, and the limit of the recipe for them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use clipood_store::Unit;

use crate::error::{PipelineError, Result};
use crate::extract::FeatureIndex;
use crate::features::read_quarantine_of;
use crate::job::Job;
use crate::plan::{Plan, Purpose};
use crate::planned::Planned;
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

    /// Whether these are more of the dataset's images than `fraction` allows.
    pub fn over(&self, fraction: f64) -> bool {
        self.rows().count() > allowed_images(fraction, self.planned)
    }
}

/// How many of `planned` images may be unreadable under `engine.max_quarantine_fraction`: that fraction of them, but at
/// least one unless it is 0, and never all of them unless it is 1.
pub fn allowed_images(fraction: f64, planned: usize) -> usize {
    let share = (fraction * planned as f64).floor() as usize;
    match fraction {
        0.0 => 0,
        1.0 => planned,
        _ => share.max(1).min(planned.saturating_sub(1)),
    }
}

/// The error for a dataset with more unreadable images than `fraction` allows; `example` is one of them with its reason.
pub fn over_limit(
    dataset: &str,
    quarantined: usize,
    planned: usize,
    fraction: f64,
    example: String,
) -> PipelineError {
    PipelineError::Quarantine {
        dataset: dataset.to_string(),
        quarantined,
        planned,
        images: allowed_images(fraction, planned),
        allowed: fraction,
        example,
    }
}

/// One unreadable image with its reason, for messages.
fn example_of(row: &QuarantineRow) -> String {
    format!("{}: {}, {}", row.image_key, row.error_kind, row.message)
}

/// The unreadable images of each dataset while features are extracted, so that a run that will fail on the limit of the
/// recipe fails as soon as that is certain.
pub struct Tally {
    fraction: f64,
    datasets: Vec<TallyOf>,
    /// The entry of `datasets` that each unit of the features counts for.
    of_unit: BTreeMap<String, usize>,
}

struct TallyOf {
    name: String,
    planned: usize,
    keys: BTreeSet<String>,
}

impl Tally {
    /// The unreadable images of the units that are done.
    ///
    /// # Errors
    /// As [`quarantine`].
    pub fn begin(job: &Job, planned: &Planned) -> Result<Self> {
        let index = &planned.features;
        let known = quarantine(job, &planned.plan, index)?;
        let datasets = known.iter().map(|dataset| TallyOf {
            name: dataset.dataset.clone(),
            planned: dataset.planned,
            keys: dataset.rows().map(|row| row.image_key.clone()).collect(),
        });
        let mut of_unit = BTreeMap::new();
        // Shots count for the first entry, the in-distribution dataset.
        for (_, unit) in index.train.values().flatten() {
            of_unit.insert(index.units[*unit].key.clone(), 0);
        }
        for (dataset, units) in index.scored.iter().enumerate() {
            for unit in units {
                of_unit.insert(index.units[*unit].key.clone(), dataset);
            }
        }
        Ok(Self {
            fraction: job.experiment.recipe.engine.max_quarantine_fraction,
            datasets: datasets.collect(),
            of_unit,
        })
    }

    /// Counts an image of the unit called `unit`.
    ///
    /// # Errors
    /// [`PipelineError::Quarantine`] if its dataset has more of them now than the recipe allows.
    pub fn add(&mut self, unit: &str, row: &QuarantineRow) -> Result<()> {
        let dataset = self.of_unit.get(unit);
        let Some(dataset) = dataset.and_then(|place| self.datasets.get_mut(*place)) else {
            return Ok(());
        };
        dataset.keys.insert(row.image_key.clone());
        let (found, planned) = (dataset.keys.len(), dataset.planned);
        match found > allowed_images(self.fraction, planned) {
            true => Err(over_limit(
                &dataset.name,
                found,
                planned,
                self.fraction,
                example_of(row),
            )),
            false => Ok(()),
        }
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
        let found = dataset.rows().count();
        return Err(over_limit(
            &dataset.dataset,
            found,
            dataset.planned,
            allowed,
            example_of(first),
        ));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_set_may_lose_one_image_but_not_all() {
        for (fraction, planned, allowed) in [
            (0.01, 7, 1),
            (0.01, 1, 0),
            (0.01, 2, 1),
            (0.01, 250, 2),
            (0.0, 1000, 0),
            (1.0, 3, 3),
            (0.5, 0, 0),
            (0.9, 1, 0),
        ] {
            assert_eq!(
                allowed_images(fraction, planned),
                allowed,
                "{fraction} of {planned}"
            );
        }
    }
}
