//! Stage `aggregate`: from scores to metrics, for each pair of ID and OOD set and their averages, with summaries over
//! seeds and comparisons with zero-shot. One unit per metric table; all tables are computed together.

mod compare;
mod lines;
mod scores;

use std::collections::BTreeMap;

use bytes::Bytes;
use clipood_core::FingerprintBuilder;
use clipood_ood::metrics::{
    BootstrapOptions, MetricIntervals, OodMetrics, Resamples, ScorePair, Selection, average,
    ood_metrics,
};
use clipood_store::{Part, Unit};

use self::compare::{Baseline, compare, summarise};
use self::lines::{Line, lines};
use self::scores::{DatasetScores, Scored, read_scored};
use super::claims::share_units;
use super::score::score_unit;
use super::{ExplainedUnit, Stage};
use crate::error::{PipelineError, Result};
use crate::heap::trim_heap;
use crate::inputs::recorded;
use crate::job::Job;
use crate::metrics::{AGGREGATE, AVERAGE, Metrics, TABLES};
use crate::places::Shelf;
use crate::plan::Purpose;
use crate::planned::Planned;
use crate::prompts::trainers::PlannedPrompt;
use crate::tables::{
    AccuracyRow, FileMeta, OodRow, store_footer, write_accuracy, write_ood, write_paired,
    write_summary,
};

/// See the head of this file.
pub static STAGE: Stage = Stage {
    name: AGGREGATE,
    needs: &["score"],
    ledgers: |_| &[(Shelf::Run, AGGREGATE)],
    units,
    explained: |job, planned| {
        let inputs = inputs(job, planned)?.inputs().clone();
        let units = units(job, planned)?.into_iter();
        let explained = units.map(|unit| ExplainedUnit {
            name: unit.key.clone(),
            shelf: Shelf::Run,
            stage: AGGREGATE,
            unit,
            inputs: inputs.clone(),
            prompt: None,
        });
        Ok(explained.collect())
    },
    run,
    serves: None,
};

/// The inputs of the metric tables: all scores.
fn inputs(job: &Job, planned: &Planned) -> Result<FingerprintBuilder> {
    let shards = planned.shards();
    let mut scored = Vec::new();
    for prompt in &planned.prompts {
        for shard in &shards {
            scored.push(score_unit(job, prompt, shard)?.fingerprint);
        }
    }
    Ok(FingerprintBuilder::new(AGGREGATE)
        .field("run", &job.experiment.fingerprint)
        .field("scores", &scored))
}

/// One unit per table.
fn units(job: &Job, planned: &Planned) -> Result<Vec<Unit>> {
    let fingerprint = inputs(job, planned)?.finish()?.to_string();
    let unit = |(name, _): (&str, &str)| Unit {
        key: name.to_string(),
        fingerprint: fingerprint.clone(),
    };
    Ok(TABLES.into_iter().map(unit).collect())
}

/// Makes the metric tables that are missing.
///
/// # Errors
/// An interruption, scores that do not fit the plan, scores that are NaN.
fn run(job: &Job, planned: &Planned) -> Result<()> {
    let units = units(job, planned)?;
    let ledger = job.places.run.ledger();
    let done = ledger.committed(AGGREGATE)?;
    let mut last_missing = None;
    for (unit, (_, path)) in units.iter().zip(TABLES) {
        let stands = done.contains(unit)?
            || ledger
                .recover_part(AGGREGATE, unit, path, &store_footer)?
                .is_some();
        if !stands {
            last_missing = Some(unit);
        }
    }
    let Some(last) = last_missing else {
        return Ok(());
    };
    // One worker makes all tables and commits them in order, so the last missing one represents all.
    share_units(job, ledger, AGGREGATE, std::slice::from_ref(last), |_| {
        let metrics = measure_all(job, planned)?;
        let meta = FileMeta {
            fingerprint: units[0].fingerprint.clone(),
            recipe: job.experiment.recipe.name.clone(),
            ..FileMeta::default()
        };
        let bytes = [
            write_ood(&metrics.ood, &meta)?,
            write_accuracy(&metrics.accuracy, &meta)?,
            write_summary(&metrics.summary, &meta)?,
            write_paired(&metrics.paired, &meta)?,
        ];
        let extra = recorded(inputs(job, planned)?.inputs());
        for ((unit, (_, path)), bytes) in units.iter().zip(TABLES).zip(bytes) {
            let part = Part {
                path: path.to_string(),
                bytes: Bytes::from(bytes),
                extra: extra.clone(),
            };
            ledger.commit_part(AGGREGATE, unit, part, &store_footer)?;
        }
        Ok(())
    })?;
    ledger.sweep(&["images", "metrics"])?;
    Ok(())
}

fn measure_all(job: &Job, planned: &Planned) -> Result<Metrics> {
    let _span = tracing::info_span!("aggregate").entered();
    let prompts = &planned.prompts;
    let total = prompts.len() as u64;
    let mut progress = job.worker.progress(AGGREGATE, "prompt sets", total);
    let mut metrics = Metrics::default();
    // Zero-shot first: the trained prompt sets are compared with it.
    let mut baselines = Vec::new();
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by_key(|p| prompts[*p].key.method.uses_shots());
    let mut measured: Vec<Option<Metrics>> = vec![None; prompts.len()];
    for place in order {
        job.worker.interrupt.check()?;
        measured[place] = Some(measure(job, planned, &prompts[place], &mut baselines)?);
        progress.add(1);
        trim_heap();
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

/// The rows of one prompt set. The lines of zero-shot with nothing chosen become the `baselines`.
fn measure(
    job: &Job,
    planned: &Planned,
    prompt: &PlannedPrompt,
    baselines: &mut Vec<Baseline>,
) -> Result<Metrics> {
    let key = &prompt.key;
    let shards = planned.shards();
    let test = read_scored(job, prompt, &shards, Purpose::Test)?.ok_or_else(|| {
        PipelineError::Inconsistent(format!("{}: no scores of test images", key.name()))
    })?;
    let validation = read_scored(job, prompt, &shards, Purpose::Validation)?;
    let recipe = &job.experiment.recipe;
    let crops = key.method.trains_prompt();
    let blank = OodRow {
        prompt: key.name(),
        method: key.method.to_string(),
        shots: key.shots.map(|s| s as u32),
        seed: key.seed,
        id_dataset: planned.plan.id().name.clone(),
        views: crops.then_some(recipe.train.views as u32),
        classes_hash: FingerprintBuilder::new("classes")
            .field("names", &planned.plan.classes)
            .finish()?
            .short(),
        weights_hash: job.experiment.model.hash[..12].to_string(),
        ..OodRow::default()
    };
    let lines = lines(&job.experiment, &test, validation.as_ref())?;
    let options = (recipe.metrics.bootstrap > 0).then(|| BootstrapOptions {
        resamples: recipe.metrics.bootstrap,
        seed: recipe.metrics.bootstrap_seed,
        ..BootstrapOptions::default()
    });
    let mut metrics = Metrics::default();
    metrics.accuracy.push(accuracy_row(&blank, &test.id));
    let sets = pair_rows(&blank, &test, &lines, options.as_ref(), &mut metrics.ood)?;
    let groups = &recipe.data.groups;
    average_rows(
        &blank,
        &test,
        &lines,
        &averages(&test, groups),
        &sets,
        &mut metrics.ood,
    );
    let mut fixed = lines
        .iter()
        .filter(|line| line.selection == Selection::Fixed && line.scaling.is_none());
    let Some(options) = &options else {
        return Ok(metrics);
    };
    if !key.method.uses_shots() {
        baselines.extend(fixed.map(|line| Baseline::keep(key.name(), line)));
    } else {
        // Normally the first detector; a later one if one of the two prompt sets does not have it.
        let common = fixed.find_map(|line| {
            let found = baselines.iter().find(|b| b.detector == line.detector);
            found.map(|baseline| (line, baseline))
        });
        if let Some((line, baseline)) = common {
            let names: Vec<String> = test.ood.iter().map(|ood| ood.name.clone()).collect();
            let id = &planned.plan.id().name;
            metrics.paired = compare(key, id, &names, line, baseline, options)?;
        }
    }
    Ok(metrics)
}

/// The metrics of one OOD set by line, and their resamples if there are any.
struct SetMetrics {
    figures: Vec<OodMetrics>,
    resamples: Option<Resamples>,
}

/// Adds one row per line and OOD set; returns the metrics by OOD set.
fn pair_rows(
    blank: &OodRow,
    test: &Scored,
    lines: &[Line<'_>],
    options: Option<&BootstrapOptions>,
    rows: &mut Vec<OodRow>,
) -> Result<Vec<SetMetrics>> {
    // All lines of a pair share their resamples, so the loop over pairs is the outermost.
    let mut by_set = Vec::new();
    for (s, ood) in test.ood.iter().enumerate() {
        let pairs: Vec<ScorePair<'_>> = lines
            .iter()
            .map(|line| ScorePair {
                id: &line.pairs[s].id,
                ood: &line.pairs[s].ood,
            })
            .collect();
        let resamples = match options {
            None => None,
            Some(options) => Some(Resamples::draw(&pairs, options)?),
        };
        let figures = pairs
            .iter()
            .map(|pair| Ok(ood_metrics(pair.id, pair.ood)?))
            .collect::<Result<Vec<_>>>()?;
        let excluded = (test.id.quarantined.len() + ood.quarantined.len()) as u64;
        for (l, (line, figures)) in lines.iter().zip(&figures).enumerate() {
            let interval = resamples.as_ref().map(|r| r.interval(l));
            rows.push(OodRow {
                ood_dataset: ood.name.clone(),
                n_excluded: excluded,
                hyperparameters: line.pairs[s].hyperparameters.clone(),
                notes: notes_of(test, line),
                ..ood_row(blank, line, figures, interval)
            });
        }
        by_set.push(SetMetrics { figures, resamples });
    }
    Ok(by_set)
}

/// Name and OOD sets (indices) of each average: over all sets, and over every group of the recipe.
fn averages(test: &Scored, groups: &BTreeMap<String, Vec<String>>) -> Vec<(String, Vec<usize>)> {
    let sets = &test.ood;
    let mut averages = vec![(AVERAGE.to_string(), (0..sets.len()).collect())];
    for (group, members) in groups {
        let places = (0..sets.len()).filter(|s| members.contains(&sets[*s].name));
        averages.push((format!("{AVERAGE}:{group}"), places.collect()));
    }
    averages
}

/// Adds one row per line and average; `by_set` holds the metrics by OOD set.
fn average_rows(
    blank: &OodRow,
    test: &Scored,
    lines: &[Line<'_>],
    averages: &[(String, Vec<usize>)],
    by_set: &[SetMetrics],
    rows: &mut Vec<OodRow>,
) {
    for (name, places) in averages {
        let resampled: Option<Vec<&Resamples>> = places
            .iter()
            .map(|s| by_set[*s].resamples.as_ref())
            .collect();
        let resampled = resampled.and_then(|sets| Resamples::average(&sets));
        let lost = places.iter().map(|s| test.ood[*s].quarantined.len());
        let excluded = (test.id.quarantined.len() + lost.sum::<usize>()) as u64;
        for (l, line) in lines.iter().enumerate() {
            let figures: Vec<OodMetrics> = places.iter().map(|s| by_set[*s].figures[l]).collect();
            let Some(mean) = average(&figures) else {
                continue;
            };
            let resolutions = figures.iter().map(resolution);
            let mut row = OodRow {
                ood_dataset: name.clone(),
                n_excluded: excluded,
                threshold95: None,
                notes: notes_of(test, line),
                score_resolution: resolutions.sum::<f64>() / figures.len() as f64,
                ..ood_row(
                    blank,
                    line,
                    &mean,
                    resampled.as_ref().map(|r| r.interval(l)),
                )
            };
            let mut chosen = places.iter().map(|s| &line.pairs[*s].hyperparameters);
            if let Some(first) = chosen.next()
                && chosen.all(|other| other == first)
            {
                row.hyperparameters = first.clone();
            }
            rows.push(row);
        }
    }
}

/// The detector's notes on its fit, for lines with nothing chosen.
fn notes_of(test: &Scored, line: &Line<'_>) -> Option<String> {
    match line.selection {
        Selection::Fixed => test.id.notes.get(&line.detector).cloned(),
        Selection::Validation | Selection::Oracle | Selection::OracleShared => None,
    }
}

/// Distinct scores per image of one pair.
fn resolution(m: &OodMetrics) -> f64 {
    1.0 - m.ties as f64 / (m.n_id + m.n_ood).max(1) as f64
}

/// The row of a line and one pair, or of an average, without the name of its OOD set.
fn ood_row(
    blank: &OodRow,
    line: &Line<'_>,
    m: &OodMetrics,
    interval: Option<MetricIntervals>,
) -> OodRow {
    OodRow {
        detector: line.detector.clone(),
        selection: line.selection.as_str().to_string(),
        scaling: line.scaling.map(|s| s.as_str().to_string()),
        n_id: m.n_id,
        n_ood: m.n_ood,
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

fn accuracy_row(blank: &OodRow, id: &DatasetScores) -> AccuracyRow {
    AccuracyRow {
        prompt: blank.prompt.clone(),
        method: blank.method.clone(),
        shots: blank.shots,
        seed: blank.seed,
        id_dataset: blank.id_dataset.clone(),
        n: id.calibration.images(),
        top1: id.calibration.top1(),
        top5: id.top5_hits as f64 / id.calibration.images() as f64,
        ece: id.calibration.error(),
        views: blank.views,
        classes_hash: blank.classes_hash.clone(),
        weights_hash: blank.weights_hash.clone(),
    }
}
