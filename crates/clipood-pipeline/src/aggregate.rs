//! Stage `aggregate`: from scores to metrics, each pair of ID and OOD set and their average.

use std::collections::BTreeMap;

use bytes::Bytes;
use clipood_core::FingerprintBuilder;
use clipood_ood::Prediction;
use clipood_ood::metrics::{
    BootstrapOptions, MetricIntervals, OodMetrics, ScorePair, Selection, average, bootstrap,
    expected_calibration_error, ood_metrics,
};
use clipood_store::{Part, Unit};

use crate::error::{PipelineError, Result};
use crate::extract::FeatureIndex;
use crate::job::Job;
use crate::plan::Plan;
use crate::prompts::{PromptKey, PromptSet};
use crate::score::{Shard, TOP5_HITS, part_path, score_unit, shards};
use crate::tables::{
    AccuracyRow, FileMeta, OodRow, QuarantineRow, Scores, read_accuracy, read_footer, read_ood,
    read_scores, store_footer, write_accuracy, write_ood,
};

const STAGE: &str = "aggregate";
const OOD_PATH: &str = "metrics/ood.parquet";
const ACCURACY_PATH: &str = "metrics/accuracy.parquet";
/// Bins of the expected calibration error.
const ECE_BINS: usize = 15;
/// Name of the rows that average over the OOD sets.
pub const AVERAGE: &str = "average";

/// The two metric tables of a run.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// One row a prompt set, detector and OOD set, and one for their average.
    pub ood: Vec<OodRow>,
    /// One row a prompt set.
    pub accuracy: Vec<AccuracyRow>,
}

/// Makes the metric tables, or reads them if this run has them.
///
/// # Errors
/// An interruption, scores that do not fit the plan, scores that are NaN.
pub fn aggregate(
    job: &Job,
    plan: &Plan,
    index: &FeatureIndex,
    keys: &[PromptKey],
    sets: &[PromptSet],
) -> Result<Metrics> {
    let shards = shards(plan, index);
    let mut scored = Vec::new();
    for (key, set) in keys.iter().zip(sets) {
        for shard in &shards {
            scored.push(score_unit(job, key, set, shard)?.fingerprint);
        }
    }
    let fingerprint = FingerprintBuilder::new(STAGE)
        .field("run", &job.fingerprint)
        .field("scores", &scored)
        .finish()?
        .to_string();
    let unit = |name: &str| Unit {
        key: name.to_string(),
        fingerprint: fingerprint.clone(),
    };
    let ledger = job.run.ledger();
    let done = ledger.committed(STAGE)?;
    let mut missing = false;
    for (name, path) in [("ood", OOD_PATH), ("accuracy", ACCURACY_PATH)] {
        missing |= !done.contains(&unit(name))?
            && ledger
                .recover_part(STAGE, &unit(name), path, &store_footer)?
                .is_none();
    }
    if missing {
        let mut progress = job.reporting.stage(STAGE, "prompt sets", keys.len() as u64);
        let mut metrics = Metrics {
            ood: Vec::new(),
            accuracy: Vec::new(),
        };
        for key in keys {
            job.interrupt.check()?;
            measure(job, plan, key, &shards, &mut metrics)?;
            progress.add(1);
        }
        progress.finish();
        let meta = FileMeta {
            fingerprint: fingerprint.clone(),
            recipe: job.recipe.name.clone(),
            quarantined: Vec::new(),
            extra: BTreeMap::new(),
        };
        for (name, path, bytes) in [
            ("ood", OOD_PATH, write_ood(&metrics.ood, &meta)?),
            (
                "accuracy",
                ACCURACY_PATH,
                write_accuracy(&metrics.accuracy, &meta)?,
            ),
        ] {
            let part = Part {
                path: path.to_string(),
                bytes: Bytes::from(bytes),
                extra: BTreeMap::new(),
            };
            ledger.commit_part(STAGE, &unit(name), part, &store_footer)?;
        }
        ledger.sweep(&["images", "metrics"])?;
    }
    Ok(Metrics {
        ood: read_ood(fetch(job, OOD_PATH)?, OOD_PATH)?,
        accuracy: read_accuracy(fetch(job, ACCURACY_PATH)?, ACCURACY_PATH)?,
    })
}

fn fetch(job: &Job, path: &str) -> Result<Bytes> {
    let store = job.run.store();
    store.get(path)?.ok_or_else(|| {
        PipelineError::Inconsistent(format!("{}: committed but missing", store.display(path)))
    })
}

/// All scores of one prompt set on one dataset.
struct DatasetScores {
    scores: Scores,
    top5_hits: u64,
    quarantined: Vec<QuarantineRow>,
}

fn read_dataset(
    job: &Job,
    key: &PromptKey,
    shards: &[Shard<'_>],
    dataset: &str,
) -> Result<DatasetScores> {
    let mut all = DatasetScores {
        scores: Scores::default(),
        top5_hits: 0,
        quarantined: Vec::new(),
    };
    for shard in shards.iter().filter(|s| s.dataset.name == dataset) {
        let path = part_path(key, shard);
        let bytes = fetch(job, &path)?;
        let footer = read_footer(&bytes, &path)?;
        let hits = footer.meta.extra.get(TOP5_HITS);
        all.top5_hits += hits.and_then(|h| h.parse::<u64>().ok()).ok_or_else(|| {
            PipelineError::Inconsistent(format!("{path}: no `{TOP5_HITS}` in its metadata"))
        })?;
        all.quarantined.extend(footer.meta.quarantined);
        let part = read_scores(bytes, &path)?;
        if all.scores.detectors.is_empty() {
            all.scores.detectors = part.detectors;
        } else {
            for (whole, more) in all.scores.detectors.iter_mut().zip(part.detectors) {
                whole.values.extend(more.values);
            }
        }
        all.scores.rows.extend(part.rows);
    }
    if all.scores.rows.is_empty() {
        return Err(PipelineError::Inconsistent(format!(
            "{dataset}: no image of it could be scored ({} in quarantine)",
            all.quarantined.len()
        )));
    }
    Ok(all)
}

fn measure(
    job: &Job,
    plan: &Plan,
    key: &PromptKey,
    shards: &[Shard<'_>],
    metrics: &mut Metrics,
) -> Result<()> {
    let id = read_dataset(job, key, shards, &plan.id().name)?;
    let classes_hash = FingerprintBuilder::new("classes")
        .field("names", &plan.classes)
        .finish()?
        .short();
    let weights_hash = job.model.hash[..12].to_string();
    let views = key.shots.map(|_| job.recipe.train.views as u32);
    metrics.accuracy.push(accuracy_row(
        job,
        key,
        &id,
        &classes_hash,
        &weights_hash,
        views,
    )?);
    let mut sets = Vec::new();
    for dataset in plan.datasets.iter().filter(|d| !d.is_id) {
        let ood = read_dataset(job, key, shards, &dataset.name)?;
        sets.push((dataset.name.clone(), ood));
    }
    let blank = OodRow {
        prompt: key.name(),
        method: key.method.to_string(),
        shots: key.shots.map(|s| s as u32),
        seed: key.seed,
        id_dataset: plan.id().name.clone(),
        selection: Selection::Fixed.as_str().to_string(),
        views,
        classes_hash,
        weights_hash,
        ..OodRow::default()
    };
    // All detectors of one pair share their resamples; the loop over pairs is outermost for that.
    let mut by_detector: BTreeMap<usize, Vec<OodMetrics>> = BTreeMap::new();
    let mut excluded = 0;
    for (name, ood) in &sets {
        let pairs: Vec<ScorePair<'_>> = id
            .scores
            .detectors
            .iter()
            .zip(&ood.scores.detectors)
            .map(|(id, ood)| ScorePair {
                id: &id.values,
                ood: &ood.values,
            })
            .collect();
        let section = &job.recipe.metrics;
        let intervals = match section.bootstrap {
            0 => vec![None; pairs.len()],
            resamples => bootstrap(
                &pairs,
                &BootstrapOptions {
                    resamples,
                    seed: section.bootstrap_seed,
                    ..BootstrapOptions::default()
                },
            )?
            .into_iter()
            .map(Some)
            .collect(),
        };
        let left_out = (id.quarantined.len() + ood.quarantined.len()) as u64;
        excluded += ood.quarantined.len() as u64;
        for (d, (pair, interval)) in pairs.iter().zip(intervals).enumerate() {
            let figures = ood_metrics(pair.id, pair.ood)?;
            metrics.ood.push(ood_row(
                &blank,
                name,
                &id.scores.detectors[d].detector,
                &figures,
                interval,
                left_out,
            ));
            by_detector.entry(d).or_default().push(figures);
        }
    }
    for (d, figures) in by_detector {
        let detector = &id.scores.detectors[d].detector;
        if let Some(mean) = average(&figures) {
            let left_out = excluded + id.quarantined.len() as u64;
            let mut row = ood_row(&blank, AVERAGE, detector, &mean, None, left_out);
            row.threshold95 = None;
            metrics.ood.push(row);
        }
    }
    Ok(())
}

fn ood_row(
    blank: &OodRow,
    ood_dataset: &str,
    detector: &str,
    m: &OodMetrics,
    interval: Option<MetricIntervals>,
    n_excluded: u64,
) -> OodRow {
    OodRow {
        ood_dataset: ood_dataset.to_string(),
        detector: detector.to_string(),
        n_id: m.n_id,
        n_ood: m.n_ood,
        n_excluded,
        auroc: m.auroc,
        aupr_in: m.aupr_in,
        aupr_out: m.aupr_out,
        fpr95: m.fpr95,
        fpr95_openood: m.fpr95_openood,
        aupr_in_openood: m.aupr_in_openood,
        aupr_out_openood: m.aupr_out_openood,
        threshold95: Some(m.threshold95),
        detection_accuracy: m.detection_accuracy,
        balanced_accuracy: m.balanced_accuracy,
        ties: m.ties,
        auroc_lo: interval.map(|i| i.auroc.lo),
        auroc_hi: interval.map(|i| i.auroc.hi),
        fpr95_lo: interval.map(|i| i.fpr95.lo),
        fpr95_hi: interval.map(|i| i.fpr95.hi),
        ..blank.clone()
    }
}

fn accuracy_row(
    job: &Job,
    key: &PromptKey,
    id: &DatasetScores,
    classes_hash: &str,
    weights_hash: &str,
    views: Option<u32>,
) -> Result<AccuracyRow> {
    let rows = &id.scores.rows;
    let mut labels = Vec::with_capacity(rows.len());
    let mut predictions = Vec::with_capacity(rows.len());
    for row in rows {
        let label = row.label.ok_or_else(|| {
            PipelineError::Inconsistent(format!("{}: no label in its scores", row.image_key))
        })?;
        labels.push(label as u32);
        predictions.push(Prediction {
            class: row.pred as u32,
            probability: row.prob,
            top5: [u32::MAX; 5],
        });
    }
    let hits = predictions
        .iter()
        .zip(&labels)
        .filter(|(p, label)| p.class == **label)
        .count();
    let n = rows.len() as f64;
    Ok(AccuracyRow {
        prompt: key.name(),
        method: key.method.to_string(),
        shots: key.shots.map(|s| s as u32),
        seed: key.seed,
        id_dataset: job.id.name.clone(),
        n: rows.len() as u64,
        top1: hits as f64 / n,
        top5: id.top5_hits as f64 / n,
        ece: expected_calibration_error(&predictions, &labels, ECE_BINS)?,
        views,
        classes_hash: classes_hash.to_string(),
        weights_hash: weights_hash.to_string(),
    })
}
