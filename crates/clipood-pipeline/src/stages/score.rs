//! Stage `score`: scores the images of a shard under every prompt set, in one pass over the features of the shard. One
//! unit per shard, one part per shard and prompt set.

use std::collections::BTreeMap;

use bytes::Bytes;
use clipood_clip::patch_scores::{PatchInputs, best_patches};
use clipood_core::FingerprintBuilder;
use clipood_ood::{
    FittedDetector, LocalFeatures, Matrix, PatchBest, ScoreInputs, score_all, score_linear,
};
use clipood_store::{Part, Unit, passes};

use super::fit::{FittedPrompt, column_specs};
use super::{ExplainedUnit, Stage};
use crate::agreement::compare_scores;
use crate::dual_pattern::TRAIN_RANGES;
use crate::error::{PipelineError, Result};
use crate::experiment::RESULTS_VERSION;
use crate::extract::EVAL_VIEW;
use crate::features::{FeatureBlock, read_features};
use crate::heap::trim_heap;
use crate::inputs::recorded;
use crate::job::Job;
use crate::negative::with_negatives;
use crate::panics::guarded;
use crate::places::Shelf;
use crate::plan::{PlannedImage, Purpose};
use crate::planned::{Planned, Shard};
use crate::prompts::key::PromptKey;
use crate::prompts::trainers::PlannedPrompt;
use crate::tables::{DetectorScores, FileMeta, ScoreRow, Scores, store_footer, write_scores};

/// Stage of the parts, one per shard and prompt set, in the ledger of the run.
pub const SCORE: &str = "score";
/// Stage whose units are the shards; a shard is done when it is scored under every prompt set. Workers claim whole
/// shards, so that the features of a shard are read once.
pub const SHARDS: &str = "shards";
/// File metadata: number of ID images whose label is among the five most likely classes.
pub const TOP5_HITS: &str = "clipood.top5_hits";
/// File metadata: notes of detectors on their fit, a JSON object by column; absent if there are none.
pub const NOTES: &str = "clipood.notes";

/// See the head of this file.
pub static STAGE: Stage = Stage {
    name: "score",
    needs: &["extract", "fit"],
    ledgers: |_| &[(Shelf::Run, SHARDS)],
    units: |job, planned| {
        let shards = planned.shards().into_iter();
        shards
            .map(|shard| shard_unit(job, planned, &shard))
            .collect()
    },
    explained,
    run,
    serves: None,
};

fn explained(job: &Job, planned: &Planned) -> Result<Vec<ExplainedUnit>> {
    let mut all = Vec::new();
    for shard in planned.shards() {
        for prompt in &planned.prompts {
            let unit = score_unit(job, prompt, &shard)?;
            all.push(ExplainedUnit {
                name: unit.key.clone(),
                shelf: Shelf::Run,
                stage: SCORE,
                unit,
                inputs: score_inputs(job, prompt, &shard)?.inputs().clone(),
                prompt: None,
            });
        }
    }
    Ok(all)
}

/// Path of a part, relative to the run directory.
pub fn part_path(key: &PromptKey, shard: &Shard<'_>) -> String {
    // Separate from the test scores, so that readers of `scores` see test images only.
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

/// Prefix of the keys of units of validation images.
fn prefix(shard: &Shard<'_>) -> &'static str {
    match shard.dataset.purpose {
        Purpose::Test => "",
        Purpose::Validation => "validation.",
    }
}

/// The unit of one prompt set and shard.
///
/// # Errors
/// None for an experiment that was opened.
pub fn score_unit(job: &Job, prompt: &PlannedPrompt, shard: &Shard<'_>) -> Result<Unit> {
    Ok(Unit {
        key: format!(
            "{}{}.{}.{:05}",
            prefix(shard),
            prompt.key.name(),
            shard.dataset.name,
            shard.number
        ),
        fingerprint: score_inputs(job, prompt, shard)?.finish()?.to_string(),
    })
}

/// Everything that determines the scores of one prompt set on one shard.
fn score_inputs(
    job: &Job,
    prompt: &PlannedPrompt,
    shard: &Shard<'_>,
) -> Result<FingerprintBuilder> {
    let builder = FingerprintBuilder::new(SCORE)
        .field("results", &RESULTS_VERSION)
        .field("features", &job.places.features.fingerprint)
        .field("unit", &shard.features.key)
        .field("prompt", &prompt.unit.fingerprint)
        .field("columns", &column_specs(&job.experiment, prompt)?);
    with_negatives(&job.experiment, builder)
}

/// The unit of a shard under all prompt sets.
fn shard_unit(job: &Job, planned: &Planned, shard: &Shard<'_>) -> Result<Unit> {
    let mut scored = Vec::with_capacity(planned.prompts.len());
    for prompt in &planned.prompts {
        scored.push(score_unit(job, prompt, shard)?.fingerprint);
    }
    Ok(Unit {
        key: format!(
            "{}{}.{:05}",
            prefix(shard),
            shard.dataset.name,
            shard.number
        ),
        fingerprint: FingerprintBuilder::new(SHARDS)
            .field("scores", &scored)
            .finish()?
            .to_string(),
    })
}

/// Counts the test images with scores from the records of the parts, for the prompt set with the fewest.
///
/// # Errors
/// Records that cannot be read.
pub fn count_scored(job: &Job, planned: &Planned) -> Result<usize> {
    let shards = planned.shards_for(Purpose::Test);
    let mut fewest = None;
    for prompt in &planned.prompts {
        let units = shards.iter().map(|shard| score_unit(job, prompt, shard));
        let units = units.collect::<Result<Vec<_>>>()?;
        let records = job.places.run.ledger().records_of(SCORE, &units)?;
        let rows: u64 = records.iter().flatten().map(|record| record.rows).sum();
        fewest = Some(fewest.map_or(rows, |fewest: u64| fewest.min(rows)));
    }
    Ok(fewest.unwrap_or_default() as usize)
}

/// Scores the shards that are not scored yet. Shards that other workers have claimed come last. On return all are
/// scored.
///
/// # Errors
/// An interruption, features that cannot be read, a detector that lacks its data, a run directory that cannot be
/// written.
fn run(job: &Job, planned: &Planned) -> Result<()> {
    let shards = planned.shards();
    let ledger = job.places.run.ledger();
    let units = (STAGE.units)(job, planned)?;
    let local = job.experiment.detectors_use_patches()?;
    // Detectors are read when the first shard needs them.
    let mut work = None;
    for turn in passes(ledger, SHARDS, &units, job.worker.share) {
        let turn = turn?;
        let shard = &shards[turn.unit];
        let missing = missing_prompts(job, planned, shard)?;
        if !missing.is_empty() {
            let (fitted, progress) = match &mut work {
                Some(work) => work,
                None => {
                    let prompts = planned.prompts.iter();
                    let fitted = prompts
                        .map(|prompt| FittedPrompt::read(job, prompt))
                        .collect::<Result<Vec<_>>>()?;
                    let total = open_images(job, &shards, &units)? * planned.prompts.len();
                    let progress = job.worker.progress(STAGE.name, "images", total as u64);
                    work.insert((fitted, progress))
                }
            };
            let images = shard.features.images;
            progress.add((images * (planned.prompts.len() - missing.len())) as u64);
            let dataset = shard.dataset.name.as_str();
            let span = tracing::debug_span!("score", dataset, shard = shard.number, images);
            let _span = span.entered();
            let listed = shard.features.list(job)?;
            let loaded = LoadedShard {
                shard: *shard,
                block: read_features(job, shard.features, local)?,
                images: listed
                    .iter()
                    .map(|image| (image.key.as_str(), image))
                    .collect(),
            };
            for place in missing {
                job.worker.interrupt.check()?;
                score_shard(job, &planned.plan.classes, &loaded, &fitted[place])?;
                progress.add(images as u64);
            }
            trim_heap();
        }
        ledger.commit_without_part(SHARDS, &units[turn.unit], BTreeMap::new())?;
    }
    if let Some((_, progress)) = work {
        progress.finish();
        ledger.sweep(&["scores", "validation"])?;
    }
    Ok(())
}

/// Images of the shards that are not done.
fn open_images(job: &Job, shards: &[Shard<'_>], units: &[Unit]) -> Result<usize> {
    let done = job.places.run.ledger().committed(SHARDS)?;
    let mut images = 0;
    for (shard, unit) in shards.iter().zip(units) {
        if !done.contains(unit)? {
            images += shard.features.images;
        }
    }
    Ok(images)
}

/// The prompt sets (indices) under which a shard has no scores yet.
fn missing_prompts(job: &Job, planned: &Planned, shard: &Shard<'_>) -> Result<Vec<usize>> {
    let ledger = job.places.run.ledger();
    let mut missing = Vec::new();
    for (place, prompt) in planned.prompts.iter().enumerate() {
        let unit = score_unit(job, prompt, shard)?;
        let path = part_path(&prompt.key, shard);
        let stands = ledger.is_done(SCORE, &unit)?
            || ledger
                .recover_part(SCORE, &unit, &path, &store_footer)?
                .is_some();
        if !stands {
            missing.push(place);
        }
    }
    Ok(missing)
}

/// A shard with the inputs of its scores.
struct LoadedShard<'a> {
    shard: Shard<'a>,
    block: FeatureBlock,
    /// Its images by key.
    images: BTreeMap<&'a str, &'a PlannedImage>,
}

/// Scores one shard under one prompt set and commits its part.
fn score_shard(
    job: &Job,
    classes: &[String],
    loaded: &LoadedShard<'_>,
    fitted: &FittedPrompt<'_>,
) -> Result<()> {
    let (prompt, shard) = (fitted.prompt, &loaded.shard);
    let unit = score_unit(job, prompt, shard)?;
    let inputs = score_inputs(job, prompt, shard)?;
    let (scores, top5) = score_block(job, classes, loaded, fitted)?;
    let mut extra = BTreeMap::from([(TOP5_HITS.to_string(), top5.to_string())]);
    if let Some(ranges) = &fitted.train_ranges {
        let json = serde_json::to_string(ranges)
            .map_err(|e| PipelineError::Inconsistent(format!("{TRAIN_RANGES}: {e}")))?;
        extra.insert(TRAIN_RANGES.to_string(), json);
    }
    let notes = fitted.notes(&job.experiment);
    if !notes.is_empty() {
        let json = serde_json::to_string(&notes)
            .map_err(|e| PipelineError::Inconsistent(format!("{NOTES}: {e}")))?;
        extra.insert(NOTES.to_string(), json);
    }
    let meta = FileMeta {
        fingerprint: unit.fingerprint.clone(),
        recipe: job.experiment.recipe.name.clone(),
        quarantined: loaded.block.quarantined.clone(),
        extra,
    };
    let path = part_path(&prompt.key, shard);
    let bytes = Bytes::from(write_scores(&scores, &meta)?);
    let part = Part {
        path: path.clone(),
        bytes: bytes.clone(),
        extra: recorded(inputs.inputs()),
    };
    let ledger = job.places.run.ledger();
    let outcome = ledger.commit_part(SCORE, &unit, part, &store_footer)?;
    compare_scores(job, &path, bytes, &outcome)
}

/// What a GPU computes of the patches of a shard: the products of all patches with all class texts, which bind with many classes.
/// If it fails, the CPU does all of it.
fn best_on_device(
    job: &Job,
    loaded: &LoadedShard<'_>,
    fitted: &FittedPrompt<'_>,
) -> Result<Vec<PatchBest>> {
    let local = &loaded.block.local;
    let scales = (fitted.detectors.iter()).filter_map(FittedDetector::best_patch_scale);
    let mut scales: Vec<f64> = scales.collect();
    scales.sort_by(f64::total_cmp);
    scales.dedup();
    if local.is_empty() || scales.is_empty() || job.worker.devices.simulated.is_some() {
        return Ok(Vec::new());
    }
    let inputs = PatchInputs {
        local,
        patches: job.experiment.patches(),
        dim: job.experiment.dim(),
        text: &fitted.set.text,
    };
    let computed = guarded(SCORE, || {
        Ok(best_patches(job.worker.device(), &inputs, &scales)?)
    });
    match computed {
        Ok(found) => {
            let found = found.unwrap_or_default().into_iter();
            let pairs = scales.into_iter().zip(found);
            Ok(pairs
                .map(|(scale, best)| PatchBest { scale, best })
                .collect())
        }
        Err(PipelineError::Interrupted) => Err(PipelineError::Interrupted),
        Err(error) => {
            let device = job.worker.device();
            let lost = format!("{device}: patches are scored on the CPU: {error}");
            job.worker.reporting.say(&lost);
            Ok(Vec::new())
        }
    }
}

/// Scores of one shard under one prompt set, and the number of ID images whose label is among their five most likely
/// classes.
fn score_block(
    job: &Job,
    classes: &[String],
    loaded: &LoadedShard<'_>,
    fitted: &FittedPrompt<'_>,
) -> Result<(Scores, usize)> {
    let (dim, patches) = (job.experiment.dim(), job.experiment.patches());
    let block = &loaded.block;
    let rows = block.keys.len();
    let mut table = Scores {
        rows: Vec::with_capacity(rows),
        detectors: Vec::new(),
    };
    let names = job
        .experiment
        .columns
        .iter()
        .map(|column| column.name.clone());
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
    let best = match &fitted.set.probe {
        Some(_) => Vec::new(),
        None => best_on_device(job, loaded, fitted)?,
    };
    let local = match block.local.is_empty() {
        true => None,
        false => {
            let name = "local features";
            let local = LocalFeatures::new(name, &block.local, rows, patches, dim)?;
            Some(local.with_best(&best)?)
        }
    };
    let inputs = ScoreInputs {
        global: Matrix::new("global features", &block.global, rows, dim)?,
        local,
    };
    let scores = match &fitted.set.probe {
        Some(probe) => score_linear(&fitted.detectors, probe, &inputs)?,
        None => {
            let text = &fitted.set.text;
            let text = Matrix::new("text features", text, fitted.set.classes.len(), dim)?;
            score_all(&fitted.detectors, &text, &inputs)?
        }
    };
    let mut top5 = 0;
    for (row, prediction) in scores.predictions.iter().enumerate() {
        debug_assert_eq!(block.views[row], EVAL_VIEW);
        let key = block.keys[row].as_str();
        let image = loaded.images.get(key).ok_or_else(|| {
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
            pred_name: classes[prediction.class as usize].clone(),
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
