//! Stage `stream`: scores the images of each pair of ID and OOD set as a stream, with the detectors that learn from the
//! images they score. One unit per prompt set, OOD set and order of arrival; a unit has one part with all such detectors.
//!
//! The order is drawn from a seed of the recipe (`streams.orders`) over the images of both sets, in key order, and every
//! detector starts with an empty memory. A pair's features are held in memory while its streams run, and what a detector
//! keeps is bounded by its parameters, so memory does not grow along a stream.

use std::collections::BTreeMap;

use bytes::Bytes;
use clipood_core::FingerprintBuilder;
use clipood_ood::{
    DetectorSpec, Matrix, Prediction, Stream, StreamInputs, predict, score_stream, stream_order,
};
use clipood_store::{Part, Unit, passes};

use super::train::TRAIN;
use super::{ExplainedUnit, Stage};
use crate::error::{PipelineError, Result};
use crate::experiment::RESULTS_VERSION;
use crate::features::read_features;
use crate::heap::trim_heap;
use crate::inputs::recorded;
use crate::job::Job;
use crate::negative::NegativeTexts;
use crate::places::Shelf;
use crate::plan::{PlannedDataset, Purpose};
use crate::planned::{Planned, Shard};
use crate::prompts::file::read_prompt;
use crate::prompts::trainers::PlannedPrompt;
use crate::tables::{
    DetectorScores, FileMeta, QuarantineRow, ScoreRow, Scores, store_footer, write_scores,
};

/// Name of the stage in the ledger of the run.
pub const STREAM: &str = "stream";
/// File metadata: seed of the order of arrival. The rows of the file are in that order.
pub const ORDER_SEED: &str = "clipood.order_seed";

/// See the head of this file.
pub static STAGE: Stage = Stage {
    name: STREAM,
    needs: &["extract", "negative", "train"],
    uses_devices: false,
    ledgers: |_| &[(Shelf::Run, STREAM)],
    units: |job, planned| {
        let streams = streams(job, planned);
        streams.iter().map(|stream| stream.unit(job)).collect()
    },
    explained: |job, planned| {
        let explain = |stream: &PlannedStream<'_>| {
            let unit = stream.unit(job)?;
            Ok(ExplainedUnit {
                name: unit.key.clone(),
                shelf: Shelf::Run,
                stage: STREAM,
                unit,
                inputs: stream.inputs(job)?.inputs().clone(),
                prompt: None,
            })
        };
        streams(job, planned).iter().map(explain).collect()
    },
    run,
    serves: None,
};

/// A pair of sets under one prompt set, in one order.
#[derive(Debug, Clone)]
pub struct PlannedStream<'a> {
    /// The prompt set.
    pub prompt: &'a PlannedPrompt,
    /// The out-of-distribution set.
    pub ood: &'a PlannedDataset,
    /// Seed of the order of arrival.
    pub seed: u64,
    /// Shards of the ID set, then of the OOD set.
    shards: Vec<Shard<'a>>,
}

/// The streams of a run; none without a detector that scores them.
pub fn streams<'a>(job: &Job, planned: &'a Planned) -> Vec<PlannedStream<'a>> {
    let mut all = Vec::new();
    if job.experiment.streams.is_empty() {
        return all;
    }
    for prompt in planned.prompts.iter().filter(|p| p.key.method.has_texts()) {
        for purpose in [Purpose::Test, Purpose::Validation] {
            let shards = planned.shards_for(purpose);
            let sets = planned.plan.datasets.iter();
            for ood in sets.filter(|set| set.purpose == purpose && !set.is_id()) {
                let mut own: Vec<Shard<'_>> = shards.clone();
                own.retain(|s| s.dataset.is_id() || s.dataset.name == ood.name);
                own.sort_by_key(|shard| !shard.dataset.is_id());
                for seed in job.experiment.stream_orders() {
                    all.push(PlannedStream {
                        prompt,
                        ood,
                        seed,
                        shards: own.clone(),
                    });
                }
            }
        }
    }
    all
}

impl PlannedStream<'_> {
    /// Prefix of keys and folder of parts: those of validation images are separate.
    fn prefix(&self) -> &'static str {
        match self.ood.purpose {
            Purpose::Test => "",
            Purpose::Validation => "validation.",
        }
    }

    /// Path of its part, relative to the run directory.
    pub fn path(&self) -> String {
        let folder = match self.ood.purpose {
            Purpose::Test => "streams",
            Purpose::Validation => "validation-streams",
        };
        let (prompt, dataset) = (self.prompt.key.name(), &self.ood.name);
        format!(
            "{folder}/prompt={prompt}/dataset={dataset}/part-{:05}.parquet",
            self.seed
        )
    }

    /// Everything that determines its scores.
    fn inputs(&self, job: &Job) -> Result<FingerprintBuilder> {
        let key = &self.prompt.key;
        let features: Vec<(bool, &str)> = self
            .shards
            .iter()
            .map(|shard| (shard.dataset.is_id(), shard.features.key.as_str()))
            .collect();
        Ok(FingerprintBuilder::new(STREAM)
            .field("results", &RESULTS_VERSION)
            .field("features", &job.places.features.fingerprint)
            .field("units", &features)
            .field("prompt", &self.prompt.unit.fingerprint)
            .field("order_seed", &self.seed)
            .field("columns", &column_specs(job, key.method)?)
            .field("text_sets", &self.prompt.stream_sets))
    }

    /// Its unit.
    ///
    /// # Errors
    /// None for an experiment that was opened.
    pub fn unit(&self, job: &Job) -> Result<Unit> {
        let (prompt, dataset) = (self.prompt.key.name(), &self.ood.name);
        Ok(Unit {
            key: format!("{}{prompt}.{dataset}.{}", self.prefix(), self.seed),
            fingerprint: self.inputs(job)?.finish()?.to_string(),
        })
    }
}

/// Every stream column with its detector.
fn column_specs(job: &Job, method: clipood_core::Method) -> Result<Vec<(&str, DetectorSpec)>> {
    let mut specs = Vec::new();
    for column in &job.experiment.streams {
        if let Some(spec) = column.spec(method)? {
            specs.push((column.name.as_str(), spec));
        }
    }
    Ok(specs)
}

/// The images of one side of a pair, in key order, with their features.
#[derive(Debug, Default)]
struct Side {
    /// Whose they are, so that the next stream need not read them again.
    units: Vec<String>,
    rows: Vec<ScoreRow>,
    /// `[images, D]`, before normalisation; moved behind those of the other side once they are read.
    features: Vec<f32>,
    quarantined: Vec<QuarantineRow>,
}

/// Runs the streams that are not done. Streams that other workers have claimed come last. On return all are done.
fn run(job: &Job, planned: &Planned) -> Result<()> {
    let all = streams(job, planned);
    let units = all
        .iter()
        .map(|stream| stream.unit(job))
        .collect::<Result<Vec<_>>>()?;
    let ledger = job.places.run.ledger();
    let mut work: Option<Work<'_>> = None;
    for turn in passes(ledger, STREAM, &units, job.worker.share) {
        let place = turn?.unit;
        let (stream, unit) = (&all[place], &units[place]);
        job.worker.interrupt.check()?;
        let path = stream.path();
        let stands = ledger.is_done(STREAM, unit)?
            || ledger
                .recover_part(STREAM, unit, &path, &store_footer)?
                .is_some();
        if stands {
            continue;
        }
        let work = match &mut work {
            Some(work) => work,
            None => {
                let dim = job.experiment.dim();
                let done = ledger.committed(STREAM)?;
                let mut images = 0;
                for (stream, unit) in all.iter().zip(&units) {
                    if !done.contains(unit)? {
                        let sizes = stream.shards.iter().map(|shard| shard.features.images);
                        images += sizes.sum::<usize>() * job.experiment.streams.len();
                    }
                }
                work.insert(Work {
                    job,
                    planned,
                    negatives: NegativeTexts::read(&job.places, &planned.negatives, dim)?,
                    progress: job.worker.progress(STREAM, "images", images as u64),
                    id: Side::default(),
                    ood: Side::default(),
                    features: Vec::new(),
                })
            }
        };
        let meta = FileMeta {
            fingerprint: unit.fingerprint.clone(),
            recipe: job.experiment.recipe.name.clone(),
            extra: BTreeMap::from([(ORDER_SEED.to_string(), stream.seed.to_string())]),
            ..FileMeta::default()
        };
        let part = Part {
            path,
            bytes: Bytes::from(work.score(stream, meta)?),
            extra: recorded(stream.inputs(job)?.inputs()),
        };
        ledger.commit_part(STREAM, unit, part, &store_footer)?;
        trim_heap();
    }
    if let Some(work) = work {
        work.progress.finish();
        ledger.sweep(&["streams", "validation-streams"])?;
    }
    Ok(())
}

/// What the streams of a worker share.
struct Work<'a> {
    job: &'a Job,
    planned: &'a Planned,
    negatives: NegativeTexts,
    progress: crate::progress::StageProgress,
    id: Side,
    ood: Side,
    /// Features of the ID images, then of the OOD images, `[images, D]`.
    features: Vec<f32>,
}

impl Work<'_> {
    /// Scores one stream; returns its table.
    fn score(&mut self, stream: &PlannedStream<'_>, mut meta: FileMeta) -> Result<Vec<u8>> {
        let dim = self.job.experiment.dim();
        if load(self.job, stream, true, &mut self.id)? {
            self.features = std::mem::take(&mut self.id.features);
            self.ood = Side::default();
        }
        if load(self.job, stream, false, &mut self.ood)? {
            self.features.truncate(self.id.rows.len() * dim);
            self.features.append(&mut self.ood.features);
        }
        let rows = self.id.rows.len() + self.ood.rows.len();
        let images = Matrix::new("image features", &self.features, rows, dim)?;
        let set = read_prompt(&self.job.places.prompts, TRAIN, &stream.prompt.unit)?;
        let text = Matrix::new("text features", &set.text, set.classes.len(), dim)?;
        let order = stream_order(stream.seed, rows);
        let mut detectors = Vec::new();
        for (column, spec) in column_specs(self.job, stream.prompt.key.method)? {
            let key = &stream.prompt.key;
            let texts = self
                .negatives
                .of(&self.job.experiment, &spec, (key, &set))?;
            let noise = self.negatives.noise();
            let inputs = StreamInputs {
                text,
                negative_text: texts
                    .map(|texts| Matrix::new("negative texts", texts, texts.len() / dim, dim))
                    .transpose()?,
                noise: noise
                    .map(|noise| Matrix::new("noise images", noise, noise.len() / dim, dim))
                    .transpose()?,
            };
            let mut memory = Stream::start(&spec, &inputs)?;
            let scores = score_stream(&mut memory, &images, &order, |images| -> Result<()> {
                self.progress.add(images as u64);
                self.job.worker.interrupt.check()
            })?;
            detectors.push(DetectorScores {
                detector: column.to_string(),
                values: Some(order.iter().map(|&row| scores[row as usize]).collect()),
            });
        }
        let predictions = predict(&text, &images)?;
        let row_of = |row: &u32| {
            let row = *row as usize;
            let (id, ood) = (&self.id.rows, &self.ood.rows);
            let image = id.get(row).unwrap_or_else(|| &ood[row - id.len()]);
            let Prediction {
                class, probability, ..
            } = predictions[row];
            ScoreRow {
                pred: class as i32,
                pred_name: self.planned.plan.classes[class as usize].clone(),
                prob: probability,
                ..image.clone()
            }
        };
        let table = Scores {
            rows: order.iter().map(row_of).collect(),
            detectors,
        };
        meta.quarantined.extend(self.id.quarantined.iter().cloned());
        meta.quarantined
            .extend(self.ood.quarantined.iter().cloned());
        Ok(write_scores(&table, &meta)?)
    }
}

/// Reads the images of one side of a stream into `side`, unless they are there; returns whether it read them.
fn load(job: &Job, stream: &PlannedStream<'_>, id: bool, side: &mut Side) -> Result<bool> {
    let own = stream.shards.iter().filter(|s| s.dataset.is_id() == id);
    let units: Vec<String> = own.clone().map(|s| s.features.key.clone()).collect();
    if side.units == units {
        return Ok(false);
    }
    *side = Side {
        units,
        ..Side::default()
    };
    for shard in own {
        job.worker.interrupt.check()?;
        let images = shard.features.list(job)?;
        let by_key: BTreeMap<&str, _> = images.iter().map(|i| (i.key.as_str(), i)).collect();
        let block = read_features(job, shard.features, false)?;
        for key in &block.keys {
            let image = by_key.get(key.as_str()).ok_or_else(|| {
                PipelineError::Inconsistent(format!("{key}: has features but is not planned"))
            })?;
            side.rows.push(ScoreRow {
                image_key: image.key.clone(),
                split: image.split.clone(),
                is_id: image.label.is_some(),
                label: image.label.map(|label| label as i32),
                class_name: image.class_name.clone(),
                ..ScoreRow::default()
            });
        }
        side.features.extend(block.global);
        side.quarantined.extend(block.quarantined);
    }
    if side.rows.is_empty() {
        let set = match id {
            true => "the in-distribution set",
            false => stream.ood.name.as_str(),
        };
        return Err(PipelineError::Inconsistent(format!(
            "{set}: no image of it could be scored ({} in quarantine)",
            side.quarantined.len()
        )));
    }
    Ok(true)
}
