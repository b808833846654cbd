//! Stage `aggregate`: from scores to metrics, each pair of ID and OOD set and their averages, summaries over seeds and
//! comparisons with zero-shot.

mod compare;
mod lines;
mod scores;

use std::collections::BTreeMap;

use bytes::Bytes;
use clipood_core::FingerprintBuilder;
use clipood_ood::metrics::{
    BootstrapOptions, MetricIntervals, OodMetrics, ScorePair, Selection, average, bootstrap,
    ood_metrics,
};
use clipood_store::{Part, Store, Unit};

use self::compare::{Baseline, compare, summarise};
use self::lines::{Line, lines};
use self::scores::{DatasetScores, fetch, read_scored};
use crate::error::{PipelineError, Result};
use crate::extract::FeatureIndex;
use crate::job::Job;
use crate::memory::give_back;
use crate::plan::{Plan, Purpose};
use crate::prompts::{PromptKey, PromptSet};
use crate::score::{Shard, score_unit, shards};
use crate::tables::{
    AccuracyRow, FileMeta, OodRow, PairedRow, SummaryRow, read_accuracy, read_ood, read_paired,
    read_summary, store_footer, write_accuracy, write_ood, write_paired, write_summary,
};

pub use self::lines::DUAL_PATTERN;

/// Name of the stage in the ledger of the run.
pub const STAGE: &str = "aggregate";
const OOD_PATH: &str = "metrics/ood.parquet";
const ACCURACY_PATH: &str = "metrics/accuracy.parquet";
const SUMMARY_PATH: &str = "metrics/summary.parquet";
const PAIRED_PATH: &str = "metrics/paired.parquet";
const TABLES: [(&str, &str); 4] = [
    ("ood", OOD_PATH),
    ("accuracy", ACCURACY_PATH),
    ("summary", SUMMARY_PATH),
    ("paired", PAIRED_PATH),
];
/// Name of the rows that average over the OOD sets; those of a group are `average:<group>`.
pub const AVERAGE: &str = "average";
/// Below this share of distinct scores, equal scores decide the figures and the report says so.
pub const LOW_RESOLUTION: f64 = 0.01;

/// The metric tables of a run.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// One row a prompt set, detector, selection and OOD set, and one for each average.
    pub ood: Vec<OodRow>,
    /// One row a prompt set.
    pub accuracy: Vec<AccuracyRow>,
    /// The rows of `ood` over seeds.
    pub summary: Vec<SummaryRow>,
    /// Each trained prompt set against zero-shot, with the first detector that both have; empty without zero-shot or
    /// intervals.
    pub paired: Vec<PairedRow>,
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
    let prompts: Vec<&str> = sets.iter().map(|set| set.fingerprint.as_str()).collect();
    let fingerprint = table_fingerprint(job, keys, &prompts, &shards)?;
    let unit = |name: &str| Unit {
        key: name.to_string(),
        fingerprint: fingerprint.clone(),
    };
    let ledger = job.run.ledger();
    let done = ledger.committed(STAGE)?;
    let mut missing = false;
    for (name, path) in TABLES {
        missing |= !done.contains(&unit(name))?
            && ledger
                .recover_part(STAGE, &unit(name), path, &store_footer)?
                .is_none();
    }
    if missing {
        let metrics = measure_all(job, plan, keys, &shards)?;
        let meta = FileMeta {
            fingerprint: fingerprint.clone(),
            recipe: job.recipe.name.clone(),
            quarantined: Vec::new(),
            extra: BTreeMap::new(),
        };
        let bytes = [
            write_ood(&metrics.ood, &meta)?,
            write_accuracy(&metrics.accuracy, &meta)?,
            write_summary(&metrics.summary, &meta)?,
            write_paired(&metrics.paired, &meta)?,
        ];
        for ((name, path), bytes) in TABLES.into_iter().zip(bytes) {
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
        summary: read_summary(fetch(job, SUMMARY_PATH)?, SUMMARY_PATH)?,
        paired: read_paired(fetch(job, PAIRED_PATH)?, PAIRED_PATH)?,
    })
}

/// Fingerprint of the metric tables: that of every score in them.
fn table_fingerprint(
    job: &Job,
    keys: &[PromptKey],
    prompts: &[&str],
    shards: &[Shard<'_>],
) -> Result<String> {
    let mut scored = Vec::new();
    for (key, prompt) in keys.iter().zip(prompts) {
        for shard in shards {
            scored.push(score_unit(job, key, prompt, shard)?.fingerprint);
        }
    }
    Ok(FingerprintBuilder::new(STAGE)
        .field("run", &job.fingerprint)
        .field("scores", &scored)
        .finish()?
        .to_string())
}

/// The units of the metric tables, one a table.
///
/// # Errors
/// None for a job that was opened.
pub fn table_units(
    job: &Job,
    keys: &[PromptKey],
    prompts: &[&str],
    shards: &[Shard<'_>],
) -> Result<Vec<Unit>> {
    let fingerprint = table_fingerprint(job, keys, prompts, shards)?;
    let unit = |(name, _): (&str, &str)| Unit {
        key: name.to_string(),
        fingerprint: fingerprint.clone(),
    };
    Ok(TABLES.into_iter().map(unit).collect())
}

/// Reads the metric tables of a finished run directory; `None` if one of them is not there yet.
///
/// # Errors
/// A table that cannot be read.
pub fn read_metrics(run: &Store) -> Result<Option<Metrics>> {
    let mut tables = Vec::new();
    for (_, path) in TABLES {
        let Some(bytes) = run.get(path)? else {
            return Ok(None);
        };
        tables.push(bytes);
    }
    let [ood, accuracy, summary, paired] = &tables[..] else {
        return Ok(None);
    };
    Ok(Some(Metrics {
        ood: read_ood(ood.clone(), OOD_PATH)?,
        accuracy: read_accuracy(accuracy.clone(), ACCURACY_PATH)?,
        summary: read_summary(summary.clone(), SUMMARY_PATH)?,
        paired: read_paired(paired.clone(), PAIRED_PATH)?,
    }))
}

fn measure_all(
    job: &Job,
    plan: &Plan,
    keys: &[PromptKey],
    shards: &[Shard<'_>],
) -> Result<Metrics> {
    let _span = tracing::info_span!("aggregate").entered();
    let mut progress = job.stage(STAGE, "prompt sets", keys.len() as u64);
    let mut metrics = Metrics::default();
    // Zero-shot first: the trained prompt sets are compared with it.
    let mut baselines = Vec::new();
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|k| keys[*k].method.uses_shots());
    let mut measured: Vec<Option<Metrics>> = vec![None; keys.len()];
    for k in order {
        job.interrupt.check()?;
        measured[k] = Some(measure(job, plan, &keys[k], shards, &mut baselines)?);
        progress.add(1);
        give_back();
    }
    progress.finish();
    for one in measured.into_iter().flatten() {
        metrics.ood.extend(one.ood);
        metrics.accuracy.extend(one.accuracy);
        metrics.paired.extend(one.paired);
    }
    metrics.summary = summarise(&metrics.ood, &metrics.accuracy);
    Ok(metrics)
}

/// The tables' rows of one prompt set. The lines of zero-shot on which nothing was chosen become the `baselines`.
fn measure(
    job: &Job,
    plan: &Plan,
    key: &PromptKey,
    shards: &[Shard<'_>],
    baselines: &mut Vec<Baseline>,
) -> Result<Metrics> {
    let test = read_scored(job, key, shards, Purpose::Test)?.ok_or_else(|| {
        PipelineError::Inconsistent(format!("{}: no scores of test images", key.name()))
    })?;
    let validation = read_scored(job, key, shards, Purpose::Validation)?;
    let classes_hash = FingerprintBuilder::new("classes")
        .field("names", &plan.classes)
        .finish()?
        .short();
    let weights_hash = job.model.hash[..12].to_string();
    let crops = key.method.trains_prompt();
    let views = crops.then_some(job.recipe.train.views as u32);
    let mut metrics = Metrics::default();
    metrics.accuracy.push(accuracy_row(
        job,
        key,
        &test.id,
        &classes_hash,
        &weights_hash,
        views,
    )?);
    let blank = OodRow {
        prompt: key.name(),
        method: key.method.to_string(),
        shots: key.shots.map(|s| s as u32),
        seed: key.seed,
        id_dataset: plan.id().name.clone(),
        views,
        classes_hash,
        weights_hash,
        ..OodRow::default()
    };
    let lines = lines(job, &test, validation.as_ref())?;
    let section = &job.recipe.metrics;
    let options = (section.bootstrap > 0).then(|| BootstrapOptions {
        resamples: section.bootstrap,
        seed: section.bootstrap_seed,
        ..BootstrapOptions::default()
    });
    let notes_of = |line: &Line<'_>| match line.selection {
        Selection::Fixed => test.id.notes.get(&line.detector).cloned(),
        _ => None,
    };
    let sets: Vec<String> = test.ood.iter().map(|ood| ood.name.clone()).collect();
    // All lines of one pair share their resamples; the loop over pairs is outermost for that.
    let mut by_set = Vec::new();
    for (s, ood) in test.ood.iter().enumerate() {
        let pairs: Vec<ScorePair<'_>> = lines
            .iter()
            .map(|line| ScorePair {
                id: &line.pairs[s].id,
                ood: &line.pairs[s].ood,
            })
            .collect();
        let intervals = match &options {
            None => vec![None; pairs.len()],
            Some(options) => bootstrap(&pairs, options)?.into_iter().map(Some).collect(),
        };
        let figures = pairs
            .iter()
            .map(|pair| Ok(ood_metrics(pair.id, pair.ood)?))
            .collect::<Result<Vec<_>>>()?;
        let excluded = (test.id.quarantined.len() + ood.quarantined.len()) as u64;
        for ((line, figures), interval) in lines.iter().zip(&figures).zip(intervals) {
            let mut row = ood_row(&blank, &ood.name, line, figures, interval, excluded);
            row.hyperparameters = line.pairs[s].hyperparameters.clone();
            row.notes = notes_of(line);
            metrics.ood.push(row);
        }
        by_set.push(figures);
    }
    let mut averages: Vec<(String, Vec<usize>)> =
        vec![(AVERAGE.to_string(), (0..sets.len()).collect())];
    for (group, members) in &job.recipe.data.groups {
        let places = (0..sets.len()).filter(|s| members.contains(&sets[*s]));
        averages.push((format!("{AVERAGE}:{group}"), places.collect()));
    }
    for (name, places) in &averages {
        let lost = places.iter().map(|s| test.ood[*s].quarantined.len());
        let excluded = (test.id.quarantined.len() + lost.sum::<usize>()) as u64;
        for (l, line) in lines.iter().enumerate() {
            let figures: Vec<OodMetrics> = places.iter().map(|s| by_set[*s][l]).collect();
            let Some(mean) = average(&figures) else {
                continue;
            };
            let mut row = ood_row(&blank, name, line, &mean, None, excluded);
            row.threshold95 = None;
            row.notes = notes_of(line);
            let resolutions = figures.iter().map(resolution);
            row.score_resolution = resolutions.sum::<f64>() / figures.len() as f64;
            let mut chosen = places.iter().map(|s| &line.pairs[*s].hyperparameters);
            if let Some(first) = chosen.next()
                && chosen.all(|other| other == first)
            {
                row.hyperparameters = first.clone();
            }
            metrics.ood.push(row);
        }
    }
    let mut fixed = lines
        .iter()
        .filter(|line| line.selection == Selection::Fixed && line.scaling.is_none());
    let Some(options) = &options else {
        return Ok(metrics);
    };
    if !key.method.uses_shots() {
        baselines.extend(fixed.map(|line| Baseline::keep(key.name(), line)));
    } else {
        // The first detector, unless one of the two prompt sets is without it.
        let common = fixed.find_map(|line| {
            let found = baselines.iter().find(|b| b.detector == line.detector);
            found.map(|baseline| (line, baseline))
        });
        if let Some((line, baseline)) = common {
            let id = &plan.id().name;
            metrics.paired = compare(key, id, &sets, line, baseline, options)?;
        }
    }
    Ok(metrics)
}

/// Distinct scores an image of one pair.
fn resolution(m: &OodMetrics) -> f64 {
    1.0 - m.ties as f64 / (m.n_id + m.n_ood).max(1) as f64
}

fn ood_row(
    blank: &OodRow,
    ood_dataset: &str,
    line: &Line<'_>,
    m: &OodMetrics,
    interval: Option<MetricIntervals>,
    n_excluded: u64,
) -> OodRow {
    OodRow {
        ood_dataset: ood_dataset.to_string(),
        detector: line.detector.clone(),
        selection: line.selection.as_str().to_string(),
        scaling: line.scaling.map(|s| s.as_str().to_string()),
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
        score_resolution: resolution(m),
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
    Ok(AccuracyRow {
        prompt: key.name(),
        method: key.method.to_string(),
        shots: key.shots.map(|s| s as u32),
        seed: key.seed,
        id_dataset: job.id.name.clone(),
        n: id.calibration.images(),
        top1: id.calibration.top1(),
        top5: id.top5_hits as f64 / id.calibration.images() as f64,
        ece: id.calibration.error(),
        views,
        classes_hash: classes_hash.to_string(),
        weights_hash: weights_hash.to_string(),
    })
}
