//! Stage `score`: every test image of a shard under every prompt set, one pass over the shard's features.

use std::collections::BTreeMap;

use bytes::Bytes;
use clipood_core::FingerprintBuilder;
use clipood_ood::{
    DetectorSpec, DualPatternScaling, FitInputs, FittedDetector, LocalFeatures, Matrix,
    ScoreInputs, fit, score_all, score_linear,
};
use clipood_store::{Part, Unit, passes};

use crate::agreement::compare_scores;
use crate::columns::{DUAL_BASE, DUAL_NEG_MIN_KL};
use crate::dual_pattern::{TRAIN_RANGES, train_ranges};
use crate::error::{PipelineError, Result};
use crate::extract::{EVAL_VIEW, ExtractUnit, FeatureIndex};
use crate::features::{FeatureBlock, read_features};
use crate::inputs::recorded;
use crate::job::{Job, RESULTS_VERSION};
use crate::memory::give_back;
use crate::negative::{NegativeTexts, negative_texts, section};
use crate::plan::{Plan, PlannedDataset, PlannedImage, Purpose};
use crate::prompts::{PromptKey, PromptSet, shot_features};
use crate::tables::{DetectorScores, FileMeta, ScoreRow, Scores, store_footer, write_scores};

/// Name of the stage in the ledger of the run.
pub const STAGE: &str = "score";
/// Stage whose units are the shards, each done when it is scored under every prompt set: workers share out shards, so that
/// the features of one are read once.
pub const SHARDS: &str = "shards";
/// File metadata: ID images whose label is among the five likeliest classes.
pub const TOP5_HITS: &str = "clipood.top5_hits";
/// File metadata: what detectors say of their fit, a JSON object by column; absent where none has anything to say.
pub const NOTES: &str = "clipood.notes";

/// A prompt set with its detectors fitted.
struct Fitted<'a> {
    key: &'a PromptKey,
    set: &'a PromptSet,
    /// The detectors of the columns that are defined for it, in their order.
    detectors: Vec<FittedDetector>,
    /// By column, whether it is.
    defined: Vec<bool>,
    /// Ranges of the dual-pattern score over the training crops.
    train_ranges: Option<DualPatternScaling>,
}

/// One shard of one dataset.
#[derive(Debug, Clone, Copy)]
pub struct Shard<'a> {
    /// The dataset.
    pub dataset: &'a PlannedDataset,
    /// Its number.
    pub number: usize,
    /// Unit of its features.
    pub features: &'a ExtractUnit,
}

/// The shards of a plan, dataset by dataset.
pub fn shards<'a>(plan: &'a Plan, index: &'a FeatureIndex) -> Vec<Shard<'a>> {
    plan.datasets
        .iter()
        .zip(&index.scored)
        .flat_map(|(dataset, units)| {
            units.iter().enumerate().map(move |(number, unit)| Shard {
                dataset,
                number,
                features: &index.units[*unit],
            })
        })
        .collect()
}

/// Path of a part, relative to the run directory.
pub fn part_path(key: &PromptKey, shard: &Shard<'_>) -> String {
    // Apart from the test scores, so that whoever opens `scores` sees tested images only.
    let folder = match shard.dataset.purpose {
        Purpose::Test => "scores",
        Purpose::Validation => "validation",
    };
    format!(
        "{folder}/prompt={}/dataset={}/part-{:05}.parquet",
        key.name(),
        shard.dataset.name,
        shard.number
    )
}

/// The unit of one prompt set and shard.
pub fn score_unit(job: &Job, key: &PromptKey, prompt: &str, shard: &Shard<'_>) -> Result<Unit> {
    let purpose = match shard.dataset.purpose {
        Purpose::Test => "",
        Purpose::Validation => "validation.",
    };
    Ok(Unit {
        key: format!(
            "{purpose}{}.{}.{:05}",
            key.name(),
            shard.dataset.name,
            shard.number
        ),
        fingerprint: score_inputs(job, key, prompt, shard)?.finish()?.to_string(),
    })
}

/// Everything that decides the scores of one prompt set, known by its fingerprint, on one shard.
pub fn score_inputs(
    job: &Job,
    key: &PromptKey,
    prompt: &str,
    shard: &Shard<'_>,
) -> Result<FingerprintBuilder> {
    let columns = job
        .columns
        .iter()
        .map(|column| Ok((&column.name, column.spec(key.method)?)))
        .collect::<Result<Vec<_>>>()?;
    let builder = FingerprintBuilder::new(STAGE)
        .field("results", &RESULTS_VERSION)
        .field("features", &job.features.fingerprint)
        .field("unit", &shard.features.key)
        .field("prompt", prompt)
        .field("columns", &columns);
    // The prompt set stands for the classes that the words are compared with.
    Ok(match section(job)? {
        None => builder,
        Some(section) => builder
            .field("negative_labels", &section)
            .field("words", &job.words),
    })
}

/// The unit that stands for a shard under all prompt sets, whose fingerprints are `prompts`.
pub fn shard_unit(
    job: &Job,
    keys: &[PromptKey],
    prompts: &[&str],
    shard: &Shard<'_>,
) -> Result<Unit> {
    let mut scored = Vec::with_capacity(keys.len());
    for (key, prompt) in keys.iter().zip(prompts) {
        scored.push(score_unit(job, key, prompt, shard)?.fingerprint);
    }
    let purpose = match shard.dataset.purpose {
        Purpose::Test => "",
        Purpose::Validation => "validation.",
    };
    Ok(Unit {
        key: format!("{purpose}{}.{:05}", shard.dataset.name, shard.number),
        fingerprint: FingerprintBuilder::new(SHARDS)
            .field("scores", &scored)
            .finish()?
            .to_string(),
    })
}

/// Scores whatever is not scored yet. Shards that other workers hold come last, so at the end all of them are scored.
///
/// # Errors
/// An interruption, features that cannot be read, a detector that lacks its data, a run directory that cannot be written.
pub fn score(
    job: &Job,
    plan: &Plan,
    index: &FeatureIndex,
    keys: &[PromptKey],
    sets: &[PromptSet],
) -> Result<()> {
    let shards = shards(plan, index);
    let ledger = job.run.ledger();
    let prompts: Vec<&str> = sets.iter().map(|set| set.fingerprint.as_str()).collect();
    let units = shards
        .iter()
        .map(|shard| shard_unit(job, keys, &prompts, shard))
        .collect::<Result<Vec<_>>>()?;
    let local = job.detectors_use_patches()?;
    // Detectors are fitted when the first shard wants them.
    let mut work = None;
    for turn in passes(ledger, SHARDS, &units, job.share) {
        let turn = turn?;
        let shard = &shards[turn.unit];
        let missing = missing_prompts(job, keys, &prompts, shard)?;
        if !missing.is_empty() {
            let (fitted, progress) = match &mut work {
                Some(work) => work,
                None => {
                    name_empty_columns(job)?;
                    let negative = negative_texts(job, plan)?;
                    let fitted = keys
                        .iter()
                        .zip(sets)
                        .map(|(key, set)| fit_detectors(job, plan, index, &negative, key, set))
                        .collect::<Result<Vec<_>>>()?;
                    let total = open_images(job, &shards, &units)? * keys.len();
                    work.insert((fitted, job.stage(STAGE, "images", total as u64)))
                }
            };
            let images = shard.features.images;
            progress.add((images * (keys.len() - missing.len())) as u64);
            let dataset = shard.dataset.name.as_str();
            let span = tracing::debug_span!("score", dataset, shard = shard.number, images);
            let _span = span.entered();
            let block = read_features(job, shard.features, local)?;
            let listed = shard.features.list(job)?;
            let by_key = listed.iter().map(|image| (image.key.as_str(), image));
            let by_key: BTreeMap<&str, &PlannedImage> = by_key.collect();
            for p in missing {
                job.interrupt.check()?;
                score_shard(job, plan, shard, &block, &by_key, &fitted[p])?;
                progress.add(images as u64);
            }
            give_back();
        }
        ledger.commit_without_part(SHARDS, &units[turn.unit], BTreeMap::new())?;
    }
    if let Some((_, progress)) = work {
        progress.finish();
        ledger.sweep(&["scores", "validation"])?;
    }
    Ok(())
}

/// Says which of the recipe's detectors a method leaves empty because it has no texts.
fn name_empty_columns(job: &Job) -> Result<()> {
    for method in &job.recipe.methods {
        let mut empty = Vec::new();
        for column in &job.columns[..job.recipe.detectors.len()] {
            if column.spec(*method)?.is_none() {
                empty.push(column.name.as_str());
            }
        }
        if !empty.is_empty() {
            job.reporting.say(&format!(
                "{method}: has no texts to compare with, so these stay empty: {}",
                empty.join(", ")
            ));
        }
    }
    Ok(())
}

/// Images of the shards that are not done.
fn open_images(job: &Job, shards: &[Shard<'_>], units: &[Unit]) -> Result<usize> {
    let done = job.run.ledger().committed(SHARDS)?;
    let mut images = 0;
    for (shard, unit) in shards.iter().zip(units) {
        if !done.contains(unit)? {
            images += shard.features.images;
        }
    }
    Ok(images)
}

/// The prompt sets, by position, under which a shard has no scores yet.
fn missing_prompts(
    job: &Job,
    keys: &[PromptKey],
    prompts: &[&str],
    shard: &Shard<'_>,
) -> Result<Vec<usize>> {
    let ledger = job.run.ledger();
    let mut missing = Vec::new();
    for (p, (key, prompt)) in keys.iter().zip(prompts).enumerate() {
        let unit = score_unit(job, key, prompt, shard)?;
        let path = part_path(key, shard);
        let stands = ledger.is_done(STAGE, &unit)?
            || ledger
                .recover_part(STAGE, &unit, &path, &store_footer)?
                .is_some();
        if !stands {
            missing.push(p);
        }
    }
    Ok(missing)
}

/// Scores one shard under one prompt set and commits its part.
fn score_shard(
    job: &Job,
    plan: &Plan,
    shard: &Shard<'_>,
    block: &FeatureBlock,
    images: &BTreeMap<&str, &PlannedImage>,
    fitted: &Fitted<'_>,
) -> Result<()> {
    let prompt = fitted.set.fingerprint.as_str();
    let unit = score_unit(job, fitted.key, prompt, shard)?;
    let inputs = score_inputs(job, fitted.key, prompt, shard)?;
    let (scores, top5) = score_block(job, plan, block, images, fitted)?;
    let mut extra = BTreeMap::from([(TOP5_HITS.to_string(), top5.to_string())]);
    if let Some(ranges) = &fitted.train_ranges {
        let json = serde_json::to_string(ranges)
            .map_err(|e| PipelineError::Inconsistent(format!("{TRAIN_RANGES}: {e}")))?;
        extra.insert(TRAIN_RANGES.to_string(), json);
    }
    let columns = (job.columns.iter().zip(&fitted.defined)).filter(|(_, defined)| **defined);
    let notes: BTreeMap<&str, String> = columns
        .zip(&fitted.detectors)
        .filter(|(_, detector)| !detector.notes().is_empty())
        .map(|((column, _), detector)| (column.name.as_str(), detector.notes().join("; ")))
        .collect();
    if !notes.is_empty() {
        let json = serde_json::to_string(&notes)
            .map_err(|e| PipelineError::Inconsistent(format!("{NOTES}: {e}")))?;
        extra.insert(NOTES.to_string(), json);
    }
    let meta = FileMeta {
        fingerprint: unit.fingerprint.clone(),
        recipe: job.recipe.name.clone(),
        quarantined: block.quarantined.clone(),
        extra,
    };
    let path = part_path(fitted.key, shard);
    let bytes = Bytes::from(write_scores(&scores, &meta)?);
    let part = Part {
        path: path.clone(),
        bytes: bytes.clone(),
        extra: recorded(inputs.inputs()),
    };
    let ledger = job.run.ledger();
    let outcome = ledger.commit_part(STAGE, &unit, part, &store_footer)?;
    compare_scores(job, &path, bytes, &outcome)
}

/// Keeps a detector that was fitted on something, so that others can score with it: [`FittedDetector`] as JSON.
fn keep(job: &Job, key: &PromptKey, column: &str, detector: &FittedDetector) -> Result<()> {
    if !detector.spec().needs().is_fitted() {
        return Ok(());
    }
    let path = fitted_path(&key.name(), column);
    let json = serde_json::to_vec(detector)
        .map_err(|e| PipelineError::Inconsistent(format!("{path}: {e}")))?;
    Ok(job.run.store().put(&path, Bytes::from(json))?)
}

/// Where a fitted detector lies in the run directory; `knn:k=5` is called `knn-3ak-3d5`, by the codes of `:` and `=`.
fn fitted_path(prompt: &str, column: &str) -> String {
    let mut name = String::new();
    for c in column.chars() {
        match c.is_ascii_alphanumeric() || c == '_' || c == '.' {
            true => name.push(c),
            false => name.push_str(&format!("-{:x}", u32::from(c))),
        }
    }
    format!("_run/fitted/prompt={prompt}/{name}.json")
}

fn fit_detectors<'a>(
    job: &Job,
    plan: &Plan,
    index: &FeatureIndex,
    negative: &NegativeTexts,
    key: &'a PromptKey,
    set: &'a PromptSet,
) -> Result<Fitted<'a>> {
    let dim = job.model.config.embed_dim;
    let text = Matrix::new("text features", set.class_rows(), set.classes.len(), dim)?;
    let specs = job
        .columns
        .iter()
        .map(|column| column.spec(key.method))
        .collect::<Result<Vec<_>>>()?;
    let on_shots = |spec: &DetectorSpec| spec.needs().shots;
    let shots = match (key.seed, key.shots) {
        (Some(seed), Some(shots)) if specs.iter().flatten().any(on_shots) => {
            Some(shot_features(job, plan, index, seed, shots)?)
        }
        _ => None,
    };
    let train = match &shots {
        Some((features, labels)) => Some(Matrix::new("shots", features, labels.len(), dim)?),
        None => None,
    };
    let inputs = FitInputs {
        text,
        negative_text: None,
        train,
        train_labels: shots.as_ref().map(|(_, labels)| labels.as_slice()),
    };
    let mut detectors = Vec::new();
    for (column, spec) in job.columns.iter().zip(&specs) {
        detectors.push(match spec {
            Some(spec) if on_shots(spec) && shots.is_none() => {
                job.reporting.say(&format!(
                    "{}: {} is fitted on shots and stays empty",
                    key.name(),
                    column.name
                ));
                None
            }
            Some(spec) => {
                let own = negative.of(spec);
                let own =
                    own.map(|texts| Matrix::new("negative texts", texts, texts.len() / dim, dim));
                let inputs = FitInputs {
                    negative_text: own.transpose()?,
                    ..inputs
                };
                Some(fit(spec, &inputs)?)
            }
            None => None,
        });
    }
    for (column, detector) in job.columns.iter().zip(&detectors) {
        if let Some(detector) = detector {
            keep(job, key, &column.name, detector)?;
        }
        for note in detector.iter().flat_map(|d| d.notes()) {
            job.reporting
                .say(&format!("{}, {}: {note}", key.name(), column.name));
        }
    }
    let half = |name: &str| {
        let column = job.columns.iter().position(|column| column.name == name);
        column.and_then(|c| detectors[c].clone())
    };
    let train_ranges = match (half(DUAL_BASE), half(DUAL_NEG_MIN_KL)) {
        (Some(base), Some(kl)) => {
            let halves = [base, kl];
            Some(train_ranges(job, plan, index, key, &text, &halves)?)
        }
        _ => None,
    };
    Ok(Fitted {
        key,
        set,
        defined: detectors.iter().map(Option::is_some).collect(),
        detectors: detectors.into_iter().flatten().collect(),
        train_ranges,
    })
}

/// Scores of one shard under one prompt set, and the number of ID images in their top five.
fn score_block(
    job: &Job,
    plan: &Plan,
    block: &FeatureBlock,
    images: &BTreeMap<&str, &PlannedImage>,
    fitted: &Fitted<'_>,
) -> Result<(Scores, usize)> {
    let config = &job.model.config;
    let (dim, patches) = (config.embed_dim, config.image.positions());
    let rows = block.keys.len();
    let mut table = Scores {
        rows: Vec::with_capacity(rows),
        detectors: Vec::new(),
    };
    let names = job.columns.iter().map(|column| column.name.clone());
    if rows == 0 {
        // Every image of the shard is in quarantine: an empty part with the same columns.
        table.detectors = names
            .map(|detector| DetectorScores {
                detector,
                values: Some(Vec::new()),
            })
            .collect();
        return Ok((table, 0));
    }
    let local = match block.local.is_empty() {
        true => None,
        false => Some(LocalFeatures::new(
            "local features",
            &block.local,
            rows,
            patches,
            dim,
        )?),
    };
    let inputs = ScoreInputs {
        global: Matrix::new("global features", &block.global, rows, dim)?,
        local,
    };
    let scores = match &fitted.set.probe {
        Some(probe) => score_linear(&fitted.detectors, probe, &inputs)?,
        None => {
            let classes = fitted.set.classes.len();
            let text = Matrix::new("text features", &fitted.set.text, classes, dim)?;
            score_all(&fitted.detectors, &text, &inputs)?
        }
    };
    let mut top5 = 0;
    for (row, prediction) in scores.predictions.iter().enumerate() {
        debug_assert_eq!(block.views[row], EVAL_VIEW);
        let key = block.keys[row].as_str();
        let image = images.get(key).ok_or_else(|| {
            PipelineError::Inconsistent(format!("{key}: has features but is not planned"))
        })?;
        if image.label.is_some_and(|l| prediction.top5.contains(&l)) {
            top5 += 1;
        }
        table.rows.push(ScoreRow {
            image_key: image.key.clone(),
            split: image.split.clone(),
            is_id: image.label.is_some(),
            label: image.label.map(|l| l as i32),
            class_name: image.class_name.clone(),
            pred: prediction.class as i32,
            pred_name: plan.classes[prediction.class as usize].clone(),
            prob: prediction.probability,
        });
    }
    let mut columns = scores.columns.into_iter();
    table.detectors = names
        .zip(&fitted.defined)
        .map(|(detector, defined)| DetectorScores {
            detector,
            values: defined.then(|| columns.next()).flatten(),
        })
        .collect();
    Ok((table, top5))
}
