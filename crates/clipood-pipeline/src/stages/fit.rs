//! Stage `fit`: fits the detectors of every prompt set on texts of no class and on the shots. One unit per prompt set.
//!
//! A detector that has learned something is stored in the run directory as JSON, [`FittedDetector`], so that scoring,
//! other workers and other programs can use it; detectors that learn nothing are created again where they are needed.

use std::collections::BTreeMap;

use bytes::Bytes;
use clipood_core::FingerprintBuilder;
use clipood_ood::{
    Classifier, DetectorSpec, DualPatternScaling, FitInputs, FittedDetector, Matrix, fit,
};
use clipood_store::{Created, Error as StoreError, Seal, Unit, check_json_seal, seal_json};
use serde_json::json;

use super::claims::share_units;
use super::train::TRAIN;
use super::{ExplainedUnit, Stage};
use crate::columns::{ColumnPurpose, DUAL_BASE, DUAL_NEG_MIN_KL};
use crate::dual_pattern::train_ranges;
use crate::error::{PipelineError, Result};
use crate::experiment::{Experiment, RESULTS_VERSION};
use crate::inputs::recorded;
use crate::job::Job;
use crate::negative::{NegativeTexts, with_negatives};
use crate::places::Shelf;
use crate::planned::Planned;
use crate::prompts::data::shot_features;
use crate::prompts::file::{PromptSet, read_prompt};
use crate::prompts::trainers::PlannedPrompt;

/// Name of the stage in the ledger of the run.
const FIT: &str = "fit";
/// Key of the ranges of the dual-pattern score in a commit record, as JSON text.
const RANGES: &str = "train_ranges";

/// See the head of this file.
pub static STAGE: Stage = Stage {
    name: FIT,
    needs: &["negative", "train"],
    uses_devices: false,
    ledgers: |_| &[(Shelf::Run, FIT)],
    units: |job, planned| {
        let prompts = planned.prompts.iter();
        prompts.map(|prompt| fit_unit(job, prompt)).collect()
    },
    explained: |job, planned| {
        let explain = |prompt: &PlannedPrompt| {
            Ok(ExplainedUnit {
                name: prompt.key.name(),
                shelf: Shelf::Run,
                stage: FIT,
                unit: fit_unit(job, prompt)?,
                inputs: fit_inputs(job, prompt)?.inputs().clone(),
                prompt: None,
            })
        };
        planned.prompts.iter().map(explain).collect()
    },
    run,
    // Runs that were scored before fitting became a separate stage have no commits of it.
    serves: Some("score"),
};

/// A prompt set with its fitted detectors.
pub struct FittedPrompt<'a> {
    /// Which one it is.
    pub prompt: &'a PlannedPrompt,
    /// Its text features, or its probe.
    pub set: PromptSet,
    /// The detectors of the columns that are defined for it, in the order of the columns.
    pub detectors: Vec<FittedDetector>,
    /// For each column whether it is defined.
    pub defined: Vec<bool>,
    /// Ranges of the dual-pattern score over the training crops.
    pub train_ranges: Option<DualPatternScaling>,
}

fn fit_inputs(job: &Job, prompt: &PlannedPrompt) -> Result<FingerprintBuilder> {
    let columns = column_specs(&job.experiment, prompt)?;
    let builder = FingerprintBuilder::new(FIT)
        .field("results", &RESULTS_VERSION)
        .field("features", &job.places.features.fingerprint)
        .field("prompt", &prompt.unit.fingerprint)
        .field("columns", &columns);
    with_negatives(&job.experiment, prompt, builder)
}

fn fit_unit(job: &Job, prompt: &PlannedPrompt) -> Result<Unit> {
    Ok(Unit {
        key: prompt.key.name(),
        fingerprint: fit_inputs(job, prompt)?.finish()?.to_string(),
    })
}

/// Every column with its detector for a prompt set; `None` where it has none.
///
/// # Errors
/// None for an experiment that was opened.
pub fn column_specs<'a>(
    experiment: &'a Experiment,
    prompt: &PlannedPrompt,
) -> Result<Vec<(&'a str, Option<DetectorSpec>)>> {
    let columns = experiment.columns.iter();
    columns
        .map(|column| Ok((column.name.as_str(), column.spec(prompt.key.method)?)))
        .collect()
}

/// The specification of each column for a prompt set; `None` also for detectors that are fitted on shots if the prompt
/// set has none.
fn fitted_specs<'a>(
    experiment: &'a Experiment,
    prompt: &PlannedPrompt,
) -> Result<Vec<(&'a str, Option<DetectorSpec>)>> {
    let mut columns = column_specs(experiment, prompt)?;
    if prompt.key.shots.is_none() {
        for (_, spec) in &mut columns {
            *spec = spec.take().filter(|spec| !spec.needs().shots);
        }
    }
    Ok(columns)
}

fn run(job: &Job, planned: &Planned) -> Result<()> {
    // If a run is scored already, nothing is fitted again.
    if STAGE.is_done(job, planned)? {
        return Ok(());
    }
    name_empty_columns(job, planned)?;
    let dim = job.experiment.dim();
    let negatives = NegativeTexts::read(&job.places, &planned.negatives, dim)?;
    let units = (STAGE.units)(job, planned)?;
    let total = planned.prompts.len() as u64;
    let mut progress = job.worker.progress(FIT, "prompt sets", total);
    let ledger = job.places.run.ledger();
    share_units(job, ledger, FIT, &units, |place| {
        let prompt = &planned.prompts[place];
        let ranges = fit_prompt(job, planned, prompt, &negatives)?;
        let mut extra = recorded(fit_inputs(job, prompt)?.inputs());
        if let Some(ranges) = ranges {
            let json = serde_json::to_string(&ranges)
                .map_err(|e| PipelineError::Inconsistent(format!("{RANGES}: {e}")))?;
            extra.insert(RANGES.to_string(), json!(json));
        }
        ledger.commit_without_part(FIT, &units[place], extra)?;
        progress.add(1);
        Ok(())
    })?;
    progress.finish();
    Ok(())
}

/// Reports which of the recipe's detectors stay empty for a prompt set because it lacks their inputs.
fn name_empty_columns(job: &Job, planned: &Planned) -> Result<()> {
    let experiment = &job.experiment;
    for method in &experiment.recipe.methods {
        let mut empty: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let listed = experiment.all_columns();
        for column in listed.filter(|c| c.purpose == ColumnPurpose::Listed) {
            if let Some(reason) = column.lack(*method) {
                empty.entry(reason).or_default().push(&column.name);
            }
        }
        for (reason, columns) in empty {
            job.worker.reporting.say(&format!(
                "{method}: {reason}, so these stay empty: {}",
                columns.join(", ")
            ));
        }
    }
    for prompt in &planned.prompts {
        let all = column_specs(experiment, prompt)?;
        for ((name, all), (_, left)) in all.iter().zip(fitted_specs(experiment, prompt)?) {
            if all.is_some() && left.is_none() {
                job.worker.reporting.say(&format!(
                    "{}: {name} is fitted on shots and stays empty",
                    prompt.key.name()
                ));
            }
        }
    }
    Ok(())
}

/// Fits the detectors of a prompt set and stores them; returns the ranges of its dual-pattern score.
fn fit_prompt(
    job: &Job,
    planned: &Planned,
    prompt: &PlannedPrompt,
    negatives: &NegativeTexts,
) -> Result<Option<DualPatternScaling>> {
    let dim = job.experiment.dim();
    let set = read_prompt(&job.places.prompts, TRAIN, &prompt.unit)?;
    let text = Matrix::new("text features", set.class_rows(), set.classes.len(), dim)?;
    let specs = fitted_specs(&job.experiment, prompt)?;
    let on_shots = |(_, spec): &(&str, Option<DetectorSpec>)| {
        spec.as_ref().is_some_and(|spec| spec.needs().shots)
    };
    let shots = match specs.iter().any(on_shots) {
        true => Some(shot_features(job, planned, &prompt.key)?),
        false => None,
    };
    let train = match &shots {
        Some((features, labels)) => Some(Matrix::new("shots", features, labels.len(), dim)?),
        None => None,
    };
    let mut others = Vec::new();
    if !prompt.members.is_empty() {
        for member in planned.members_of(&prompt.key) {
            others.push(read_prompt(&job.places.prompts, TRAIN, &member.unit)?);
        }
    }
    let mut classifiers = Vec::new();
    for other in &others {
        let rows = other.classes.len();
        classifiers.push(match &other.probe {
            Some(probe) => Classifier::Probe(probe),
            None => Classifier::Texts(Matrix::new("other texts", &other.text, rows, dim)?),
        });
    }
    let (mut base, mut neg_min_kl) = (None, None);
    for (column, spec) in &specs {
        let Some(spec) = spec else { continue };
        let own = negatives.of(&job.experiment, spec, (&prompt.key, &set))?;
        let own = own.map(|texts| Matrix::new("negative texts", texts, texts.len() / dim, dim));
        let inputs = FitInputs {
            text,
            negative_text: own.transpose()?,
            train,
            train_labels: shots.as_ref().map(|(_, labels)| labels.as_slice()),
            classifiers: &classifiers,
        };
        let detector = fit(spec, &inputs)?;
        for note in detector.notes() {
            let prompt = prompt.key.name();
            job.worker
                .reporting
                .say(&format!("{prompt}, {column}: {note}"));
        }
        if spec.needs().is_fitted() {
            keep(job, prompt, column, &detector)?;
        }
        match *column {
            DUAL_BASE => base = Some(detector),
            DUAL_NEG_MIN_KL => neg_min_kl = Some(detector),
            _ => {}
        }
    }
    match (base, neg_min_kl) {
        (Some(base), Some(neg_min_kl)) => {
            let halves = [base, neg_min_kl];
            train_ranges(job, planned, prompt, &text, &halves).map(Some)
        }
        _ => Ok(None),
    }
}

/// Stores a detector that has learned something. If another worker has stored its own, equal up to rounding, that one
/// stays, so that all shards are scored with the same; a file that is no detector is replaced.
fn keep(job: &Job, prompt: &PlannedPrompt, column: &str, detector: &FittedDetector) -> Result<()> {
    let path = fitted_path(prompt, column);
    let json = serde_json::to_vec(detector)
        .map_err(|e| PipelineError::Inconsistent(format!("{path}: {e}")))?;
    let (store, json) = (job.places.run.store(), Bytes::from(seal_json(json)));
    match store.create(&path, json.clone())? {
        Created::New | Created::Identical => Ok(()),
        Created::Existed(found) if is_detector(&found) => Ok(()),
        Created::Existed(_) => Ok(store.put(&path, json)?),
    }
}

/// Whether a file holds a fitted detector as it was written.
fn is_detector(file: &[u8]) -> bool {
    !matches!(check_json_seal(file), Seal::Broken { .. })
        && serde_json::from_slice::<FittedDetector>(file).is_ok()
}

/// Path of a fitted detector in the run directory; `knn:k=5` is called `knn-3ak-3d5`, with the codes of `:` and `=`.
fn fitted_path(prompt: &PlannedPrompt, column: &str) -> String {
    let mut name = String::new();
    for c in column.chars() {
        match c.is_ascii_alphanumeric() || c == '_' || c == '.' {
            true => name.push(c),
            false => name.push_str(&format!("-{:x}", u32::from(c))),
        }
    }
    format!("_run/fitted/prompt={}/{name}.json", prompt.key.name())
}

impl<'a> FittedPrompt<'a> {
    /// Reads a prompt set and its detectors.
    ///
    /// # Errors
    /// A prompt set or detector that is missing or damaged.
    pub fn read(job: &Job, prompt: &'a PlannedPrompt) -> Result<Self> {
        let dim = job.experiment.dim();
        let set = read_prompt(&job.places.prompts, TRAIN, &prompt.unit)?;
        let unit = fit_unit(job, prompt)?;
        let record = job.places.run.ledger().record(FIT, &unit)?;
        let record = record.ok_or_else(|| {
            PipelineError::Inconsistent(format!("{}: not fitted yet", prompt.key.name()))
        })?;
        let train_ranges = match record.extra.get(RANGES).and_then(|json| json.as_str()) {
            None => None,
            Some(json) => Some(serde_json::from_str(json).map_err(|e| {
                let name = prompt.key.name();
                PipelineError::Inconsistent(format!("{name}: {RANGES}: {e}"))
            })?),
        };
        let specs = fitted_specs(&job.experiment, prompt)?;
        let inputs = FitInputs {
            text: Matrix::new("text features", set.class_rows(), set.classes.len(), dim)?,
            negative_text: None,
            train: None,
            train_labels: None,
            classifiers: &[],
        };
        let mut detectors = Vec::new();
        for (column, spec) in &specs {
            let Some(spec) = spec else { continue };
            detectors.push(match spec.needs().is_fitted() {
                false => fit(spec, &inputs)?,
                true => read_detector(job, &unit, &fitted_path(prompt, column))?,
            });
        }
        Ok(Self {
            prompt,
            defined: specs.iter().map(|(_, spec)| spec.is_some()).collect(),
            set,
            detectors,
            train_ranges,
        })
    }

    /// Notes of detectors on their fit, by column.
    pub fn notes(&self, experiment: &'a Experiment) -> BTreeMap<&'a str, String> {
        let columns = experiment.columns.iter().zip(&self.defined);
        columns
            .filter(|(_, defined)| **defined)
            .zip(&self.detectors)
            .filter(|(_, detector)| !detector.notes().is_empty())
            .map(|((column, _), detector)| (column.name.as_str(), detector.notes().join("; ")))
            .collect()
    }
}

fn read_detector(job: &Job, unit: &Unit, path: &str) -> Result<FittedDetector> {
    let ledger = job.places.run.ledger();
    let bytes = match ledger.read_sealed(FIT, unit, path)? {
        Some(bytes) => bytes,
        None => return Err(StoreError::from(ledger.missing_file(FIT, unit, path)?).into()),
    };
    serde_json::from_slice(&bytes)
        .map_err(|e| PipelineError::Inconsistent(format!("{}: {e}", ledger.store().display(path))))
}
