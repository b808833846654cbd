//! [`fine_tune`]: epochs of batches.

use std::collections::BTreeMap;
use std::ops::Range;

use clipood_clip::contrastive::{AdamWOptions, Part, TuneInput, Tuner, batches, learning_rate};
use clipood_clip::model::{Devices, EncodedImages, Model};

use super::checkpoint::{Checkpoints, name_of};
use super::pairs::PairSet;
use super::views::Views;
use crate::encode::{Engine, convert_files};
use crate::error::{PipelineError, Result};
use crate::feature_checks::check_rows;
use crate::panics::guarded;
use crate::progress::{Reporting, StageProgress, tell};

/// Captions that are encoded between two reports of progress.
const CAPTIONS: usize = 1024;

/// Settings of a fine-tuning.
#[derive(Debug, Clone, PartialEq)]
pub struct FineTuning {
    /// What is learnt.
    pub part: Part,
    /// Passes over all pairs.
    pub epochs: usize,
    /// Pairs per step; a last short batch of an epoch is left out unless it is the only one.
    pub batch: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup: usize,
    /// AdamW.
    pub optimizer: AdamWOptions,
    /// Seed of the order of pairs.
    pub seed: u64,
    /// Largest share of pairs that may be left out, 0 to 1.
    pub most_skipped: f64,
}

/// One step of the loss curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint {
    /// Number of the step, from 1.
    pub step: usize,
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Loss of the batch, before the step.
    pub loss: f32,
    /// Share of the batch's images whose most similar caption is theirs.
    pub accuracy: f64,
    /// Learning rate.
    pub lr: f64,
    /// Logit scale (the factor on cosines) after the step.
    pub scale: f32,
}

/// Trains `model` on the pairs, of which those without a readable image are left out. The result is the same for the same
/// pairs, options, device and number of threads, also where it was interrupted and goes on from one of the `checkpoints`.
///
/// # Errors
/// As [`PairSet::leave_out`], a device that fails, a loss that is not finite, a checkpoint that cannot be read.
pub fn fine_tune(
    model: &Model,
    devices: &Devices,
    set: &mut PairSet,
    options: &FineTuning,
    checkpoints: &mut Checkpoints,
    reporting: Reporting,
) -> Result<(Model, Vec<CurvePoint>)> {
    match options.part {
        Part::Projections => {
            let (image, text) = trunk_features(model, devices, set, options, reporting)?;
            let mut training =
                Training::begin(model, devices, set, options, checkpoints, reporting)?;
            let (image_width, text_width) = model.trunk_widths();
            for epoch in training.epochs() {
                for chosen in training.batches(epoch) {
                    let pairs: Vec<(u32, u32)> = chosen.iter().map(|i| set.pairs[*i]).collect();
                    let input = TuneInput::Trunks {
                        image: rows(&image, image_width, pairs.iter().map(|pair| pair.0)),
                        text: rows(&text, text_width, pairs.iter().map(|pair| pair.1)),
                    };
                    training.step(epoch, &input, &pairs)?;
                }
                training.keep()?;
            }
            training.finish()
        }
        Part::All => {
            let images = set.images.clone();
            let mut progress = reporting.stage("read", "images", images.len() as u64);
            let (views, unreadable) =
                Views::open(&images, model.config.image.size as u32, || progress.add(1))?;
            progress.finish();
            set.leave_out(&unreadable, options.most_skipped)?;
            let mut training =
                Training::begin(model, devices, set, options, checkpoints, reporting)?;
            for epoch in training.epochs() {
                whole_epoch(&mut training, set, &views, epoch)?;
                training.keep()?;
            }
            training.finish()
        }
    }
}

/// An epoch in which whole towers are trained: views are read ahead while a step is computed.
fn whole_epoch(
    training: &mut Training<'_>,
    set: &PairSet,
    views: &Views<'_>,
    epoch: usize,
) -> Result<()> {
    let chosen = training.batches(epoch);
    let order: Vec<u32> = chosen.concat().iter().map(|i| set.pairs[*i].0).collect();
    let mut waiting = chosen.iter();
    let mut current = waiting.next();
    let (mut pixels, mut read) = (Vec::new(), 0);
    views.each(&order, |view| {
        pixels.extend_from_slice(view);
        read += 1;
        let Some(batch) = current.filter(|batch| batch.len() == read) else {
            return Ok(());
        };
        let pairs: Vec<(u32, u32)> = batch.iter().map(|i| set.pairs[*i]).collect();
        let captions = pairs
            .iter()
            .map(|pair| set.captions[pair.1 as usize].clone());
        let input = TuneInput::Pairs {
            pixels: std::mem::take(&mut pixels),
            captions: captions.collect(),
        };
        (current, read) = (waiting.next(), 0);
        training.step(epoch, &input, &pairs)
    })
}

/// Features of all images and of all captions before the projections; those of images that cannot be read are zeros, and
/// their pairs are left out.
fn trunk_features(
    model: &Model,
    devices: &Devices,
    set: &mut PairSet,
    options: &FineTuning,
    reporting: Reporting,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let trunk = model.trunk()?;
    let dim = trunk.config.embed_dim;
    let (image_width, text_width) = model.trunk_widths();
    let mut image = vec![0f32; set.images.len() * image_width];
    let mut unreadable = BTreeMap::new();
    let mut progress = reporting.stage("encode", "images", set.images.len() as u64);
    let engine = Engine {
        reporting,
        ..Engine::for_files(&trunk, devices).spread(set.images.len())
    };
    let split = |features: EncodedImages| {
        let rows = features.global.chunks_exact(dim);
        Ok(rows.map(|row| row[..image_width].to_vec()).collect())
    };
    convert_files(&engine, &set.images, split, |number, outcome| {
        match outcome {
            Ok(row) => image[number * image_width..][..image_width].copy_from_slice(&row),
            Err(reason) => drop(unreadable.insert(number as u32, reason)),
        }
        progress.add(1);
        Ok(())
    })?;
    progress.finish();
    set.leave_out(&unreadable, options.most_skipped)?;
    let encoder = trunk.text_encoder(devices.first())?;
    let mut text = Vec::with_capacity(set.captions.len() * text_width);
    let mut progress = reporting.stage("encode", "captions", set.captions.len() as u64);
    for some in set.captions.chunks(CAPTIONS) {
        let features = encoder.encode_cut(some)?;
        check_rows(&features, dim, |row| format!("caption `{}`", some[row]))?;
        for row in features.chunks_exact(dim) {
            text.extend_from_slice(&row[..text_width]);
        }
        progress.add(some.len() as u64);
    }
    progress.finish();
    Ok((image, text))
}

fn rows(values: &[f32], width: usize, chosen: impl Iterator<Item = u32>) -> Vec<f32> {
    chosen
        .flat_map(|row| &values[row as usize * width..][..width])
        .copied()
        .collect()
}

/// A training under way.
struct Training<'a> {
    tuner: Tuner,
    options: &'a FineTuning,
    pairs: usize,
    /// Steps of an epoch, and of all.
    per_epoch: usize,
    steps: usize,
    curve: Vec<CurvePoint>,
    name: String,
    checkpoints: &'a mut Checkpoints,
    progress: StageProgress,
}

impl<'a> Training<'a> {
    /// The training from its beginning, or from where it was interrupted.
    fn begin(
        model: &Model,
        devices: &Devices,
        set: &PairSet,
        options: &'a FineTuning,
        checkpoints: &'a mut Checkpoints,
        reporting: Reporting,
    ) -> Result<Self> {
        let pairs = set.pairs.len();
        let per_epoch = pairs / options.batch.clamp(1, pairs.max(1));
        let steps = options.epochs * per_epoch;
        if options.warmup > steps {
            reporting.say(&format!(
                "note: the learning rate rises for {} steps and the training has {steps}, so it never reaches {}",
                options.warmup, options.lr
            ));
        }
        let mut tuner = model.tuner(options.part, devices.first(), &options.optimizer)?;
        let name = name_of(model, devices, set, options)?;
        let curve = checkpoints.resume(&name, &mut tuner, |note| reporting.say(note))?;
        let mut progress = reporting.stage("train", "steps", steps as u64);
        if let Some(last) = curve.last() {
            reporting.say(&format!(
                "goes on after epoch {} of {} of an interrupted call",
                last.epoch, options.epochs
            ));
            progress.add(curve.len() as u64);
        }
        Ok(Self {
            tuner,
            options,
            pairs,
            per_epoch,
            steps,
            curve,
            name,
            checkpoints,
            progress,
        })
    }

    /// Numbers of the epochs that are to be trained, from 0.
    fn epochs(&self) -> Range<usize> {
        self.curve.len() / self.per_epoch.max(1)..self.options.epochs
    }

    /// Keeps the state after an epoch.
    fn keep(&mut self) -> Result<()> {
        match self.curve.len() < self.steps {
            true => self.checkpoints.keep(&self.name, &self.tuner, &self.curve),
            false => Ok(()),
        }
    }

    fn batches(&self, epoch: usize) -> Vec<Vec<usize>> {
        let FineTuning { batch, seed, .. } = *self.options;
        batches(self.pairs, batch, seed, epoch)
    }

    fn step(&mut self, epoch: usize, input: &TuneInput, pairs: &[(u32, u32)]) -> Result<()> {
        let done = self.curve.len();
        let lr = learning_rate(done, self.steps, self.options.lr, self.options.warmup);
        // Burn panics on a GPU that fails or has too little memory.
        let report = guarded("finetune", || Ok(self.tuner.step(lr, input, pairs)?));
        let report = report.inspect_err(|_| {
            let (step, steps, pairs) = (done + 1, self.steps, pairs.len());
            tell(&format!(
                "step {step} of {steps} on {pairs} pairs has failed"
            ));
        })?;
        self.curve.push(CurvePoint {
            step: done + 1,
            epoch: epoch + 1,
            loss: report.loss,
            accuracy: report.right as f64 / pairs.len() as f64,
            lr,
            scale: report.scale,
        });
        self.progress.remark(format!("loss {:.3}", report.loss));
        self.progress.add(1);
        Ok(())
    }

    fn finish(self) -> Result<(Model, Vec<CurvePoint>)> {
        self.progress.finish();
        if self.curve.len() != self.steps {
            return Err(PipelineError::Inconsistent(format!(
                "{} steps were made, expected {}",
                self.curve.len(),
                self.steps
            )));
        }
        let model = self.tuner.finish().map_err(|error| {
            PipelineError::Inconsistent(format!(
                "the training of {} steps with a learning rate of {} ended without a usable model: {error}",
                self.steps, self.options.lr
            ))
        })?;
        Ok((model, self.curve))
    }
}
