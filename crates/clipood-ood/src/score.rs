//! Scoring: one pass over the features for all detectors.
//!
//! Rows are scored in blocks, in parallel. A block is divided by row lengths once; its products with the class texts, and with
//! each distinct bank of rows that detectors keep (shots, negative texts, projections), are taken once; every softmax over
//! classes is summed once per temperature. Memory is a few megabytes per thread, whatever the number of images. A row's
//! result depends on nothing but the row: not on the block it is in, nor on the number of threads.
//!
//! A linear probe takes the place of the texts by logits of its own; a hundredth of them stands where the cosines do, so that
//! `s = 100 c` holds there as well.

use crate::bank::Bank;
use crate::block::{Block, LOGIT_SCALE, Patches, Softmax};
use crate::error::OodError;
use crate::fitted::FittedDetector;
use crate::kernels;
use crate::linear_probe::LinearProbe;
use crate::matrix::{LocalFeatures, Matrix};
use rayon::prelude::*;

/// Features of the images to score. Raw; rows are divided by their lengths inside.
#[derive(Debug, Clone, Copy)]
pub struct ScoreInputs<'a> {
    /// Image features, `[n, dim]`.
    pub global: Matrix<'a>,
    /// Patch features, `[n, patches, dim]`, for the local detectors.
    pub local: Option<LocalFeatures<'a>>,
}

/// The classification of one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Class of the largest logit, the first of equals; with texts that is the largest cosine.
    pub class: u32,
    /// `max softmax(s)`, with texts `s = 100 c`; in (0, 1].
    pub probability: f32,
    /// The five classes with the largest logits, largest first; `u32::MAX` where there are fewer than five classes.
    pub top5: [u32; 5],
}

/// What [`score_all`] finds, in the order of the image rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// One per image.
    pub predictions: Vec<Prediction>,
    /// One column per detector, in the order given; higher = in-distribution.
    pub columns: Vec<Vec<f32>>,
}

/// Scores every image with every detector in one pass over the features.
///
/// `text` holds the class text features `[classes, dim]`, raw; it must have the shape that the detectors were fitted with.
///
/// # Errors
/// [`OodError::Mismatch`] for shapes that do not fit together, [`OodError::Missing`] where a detector scores local
/// features and none are given, [`OodError::ZeroRow`] for the first row without direction, [`OodError::Detector`] for a
/// stored detector that is damaged.
pub fn score_all(
    detectors: &[FittedDetector],
    text: &Matrix<'_>,
    inputs: &ScoreInputs<'_>,
) -> Result<Scores, OodError> {
    let head = Bank::new(text.normalized()?, text.cols());
    run(&Plan::new(detectors, text, (head, None), inputs)?)
}

/// Scores every image with the logits of a linear probe of its raw features in place of `100 c`.
///
/// Detectors are fitted with the probe's weights as [`FitInputs::text`](crate::FitInputs), which only gives them the shape.
///
/// # Errors
/// [`OodError::Detector`] for a detector that [needs texts](crate::Needs::texts), [`OodError::Length`] and
/// [`OodError::Mismatch`] for a probe of another width or without classes, [`OodError::NotFinite`] for logits beyond f32; as
/// [`score_all`].
pub fn score_linear(
    detectors: &[FittedDetector],
    probe: &LinearProbe,
    inputs: &ScoreInputs<'_>,
) -> Result<Scores, OodError> {
    let width = inputs.global.cols();
    let name = "weights of the linear probe";
    let weights = Matrix::new(name, &probe.weights, probe.biases.len(), width)?;
    if let Some(detector) = detectors.iter().find(|d| d.spec().needs().texts) {
        return Err(OodError::Detector {
            detector: detector.name(),
            problem: "reads cosines to texts, which a linear probe has none of".to_owned(),
        });
    }
    let head = Bank::new(probe.weights.clone(), width);
    let biases = Some(probe.biases.as_slice());
    run(&Plan::new(detectors, &weights, (head, biases), inputs)?)
}

/// Scores the blocks in parallel and joins them.
fn run(plan: &Plan<'_>) -> Result<Scores, OodError> {
    let rows = plan.inputs.global.rows();
    let blocks: Vec<Scores> = (0..rows.div_ceil(plan.block_rows))
        .into_par_iter()
        .map_init(Scratch::default, |scratch, block| {
            let first = block * plan.block_rows;
            plan.score_block(first, plan.block_rows.min(rows - first), scratch)
        })
        .collect::<Result<_, _>>()?;
    let mut scores = Scores {
        predictions: Vec::with_capacity(rows),
        columns: vec![Vec::with_capacity(rows); plan.detectors.len()],
    };
    for block in blocks {
        scores.predictions.extend(block.predictions);
        for (column, part) in scores.columns.iter_mut().zip(block.columns) {
            column.extend(part);
        }
    }
    Ok(scores)
}

/// Classifies every image: [`score_all`] without detectors.
///
/// # Errors
/// As [`score_all`].
pub fn predict(text: &Matrix<'_>, global: &Matrix<'_>) -> Result<Vec<Prediction>, OodError> {
    let inputs = ScoreInputs {
        global: *global,
        local: None,
    };
    Ok(score_all(&[], text, &inputs)?.predictions)
}

/// Buffers that a thread reuses from block to block.
#[derive(Default)]
struct Scratch {
    features: Vec<f32>,
    centered: Vec<f32>,
    cosines: Vec<f32>,
    products: Vec<Vec<f32>>,
    patches: Vec<f32>,
    patch_cosines: Vec<f32>,
    patch_products: Vec<Vec<f32>>,
}

/// What all blocks share: the distinct things to compute, and which detector reads which.
struct Plan<'a> {
    detectors: &'a [FittedDetector],
    inputs: &'a ScoreInputs<'a>,
    /// Unit class texts, or the weights of a linear probe.
    head: Bank,
    /// The biases that make it a linear probe.
    biases: Option<&'a [f32]>,
    banks: Vec<&'a Bank>,
    banks_of: Vec<Vec<usize>>,
    scales: Vec<f64>,
    local_scales: Vec<f64>,
    /// Distinct banks that patches are multiplied with, and the one of each detector.
    patch_banks: Vec<&'a Bank>,
    patch_bank_of: Vec<Option<usize>>,
    block_rows: usize,
}

/// Products of a block are held to about this many values (4 MB), near a core's share of the cache.
const BLOCK_VALUES: usize = 1 << 20;

impl<'a> Plan<'a> {
    /// `text` gives the name and the shape of the head.
    fn new(
        detectors: &'a [FittedDetector],
        text: &Matrix<'_>,
        (head, biases): (Bank, Option<&'a [f32]>),
        inputs: &'a ScoreInputs<'a>,
    ) -> Result<Self, OodError> {
        inputs.global.expect_cols(text.cols(), text.name())?;
        if text.rows() == 0 {
            return Err(OodError::Mismatch {
                name: text.name().to_owned(),
                what: "rows",
                expected: "at least 1".to_owned(),
                found: 0,
            });
        }
        if let Some(local) = &inputs.local {
            local.rows().expect_cols(text.cols(), text.name())?;
            if local.images() != inputs.global.rows() {
                return Err(OodError::Mismatch {
                    name: local.rows().name().to_owned(),
                    what: "images",
                    expected: format!(
                        "{} (the rows of {})",
                        inputs.global.rows(),
                        inputs.global.name()
                    ),
                    found: local.images(),
                });
            }
        }
        let mut plan = Self {
            detectors,
            inputs,
            head,
            biases,
            banks: Vec::new(),
            banks_of: Vec::new(),
            // Predictions read the softmax of the logits.
            scales: vec![LOGIT_SCALE],
            local_scales: Vec::new(),
            patch_banks: Vec::new(),
            patch_bank_of: Vec::new(),
            block_rows: 0,
        };
        for detector in detectors {
            detector.check()?;
            if (detector.classes(), detector.dim()) != (text.rows(), text.cols()) {
                return Err(OodError::Detector {
                    detector: detector.name(),
                    problem: format!(
                        "was fitted with text of {} x {}, but {} is {} x {}",
                        detector.classes(),
                        detector.dim(),
                        text.name(),
                        text.rows(),
                        text.cols()
                    ),
                });
            }
            if detector.local_scale().is_some() && inputs.local.is_none() {
                return Err(OodError::Missing {
                    detector: detector.name(),
                    missing: "local features",
                });
            }
            plan.scales.extend(detector.scale());
            plan.local_scales.extend(detector.local_scale());
            let banks = detector.banks().into_iter();
            let places = banks.map(|bank| place_of(bank, &mut plan.banks)).collect();
            plan.banks_of.push(places);
            let bank = detector.patch_bank();
            plan.patch_bank_of
                .push(bank.map(|bank| place_of(bank, &mut plan.patch_banks)));
        }
        for scales in [&mut plan.scales, &mut plan.local_scales] {
            scales.sort_by(f64::total_cmp);
            scales.dedup();
        }
        let values: usize = plan.banks.iter().map(|bank| bank.rows()).sum();
        plan.block_rows = (BLOCK_VALUES / (values + text.rows() + text.cols())).clamp(16, 256);
        Ok(plan)
    }

    fn score_block(
        &self,
        first: usize,
        rows: usize,
        scratch: &mut Scratch,
    ) -> Result<Scores, OodError> {
        let (dim, classes) = (self.head.dim(), self.head.rows());
        let Scratch {
            features,
            centered,
            cosines,
            products,
            ..
        } = scratch;
        features.resize(rows * dim, 0.0);
        self.inputs.global.normalize_rows(first, features)?;
        match self.biases {
            None => self.head.multiply(features, centered, cosines),
            Some(biases) => self.scaled_logits(first, rows, biases, cosines)?,
        }
        products.resize(self.banks.len(), Vec::new());
        for (bank, product) in self.banks.iter().zip(products.iter_mut()) {
            let features = if bank.is_raw() {
                self.raw(first, rows)
            } else {
                features.as_slice()
            };
            bank.multiply(features, centered, product);
        }
        let locals = self.local_block(
            first,
            rows,
            (
                &mut scratch.patches,
                &mut scratch.patch_cosines,
                &mut scratch.patch_products,
            ),
        )?;
        let tops: Vec<(usize, f32)> = cosines.chunks_exact(classes).map(kernels::argmax).collect();
        let softmaxes: Vec<Vec<Softmax>> = self
            .scales
            .iter()
            .map(|&scale| softmaxes(cosines, &tops, scale))
            .collect();
        let softmax_at = |scale: f64| {
            let place = self.scales.iter().position(|&s| s == scale)?;
            Some((scale, softmaxes[place].as_slice()))
        };
        let logits = softmax_at(LOGIT_SCALE).map_or(&[][..], |(_, softmax)| softmax);
        let predictions = predictions(cosines.chunks_exact(classes), logits);
        let mut columns = Vec::with_capacity(self.detectors.len());
        for ((detector, banks), local) in self.detectors.iter().zip(&self.banks_of).zip(&locals) {
            columns.push(detector.score(&Block {
                features,
                dim,
                cosines,
                classes,
                tops: &tops,
                softmax: detector.scale().and_then(softmax_at),
                local,
                products,
                banks,
            })?);
        }
        Ok(Scores {
            predictions,
            columns,
        })
    }

    /// Rows of the image features as they were given.
    fn raw(&self, first: usize, rows: usize) -> &[f32] {
        let global = &self.inputs.global;
        &global.data()[first * global.cols()..(first + rows) * global.cols()]
    }

    /// Logits of a linear probe over [`LOGIT_SCALE`], `[rows, classes]`.
    fn scaled_logits(
        &self,
        first: usize,
        rows: usize,
        biases: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<(), OodError> {
        let global = &self.inputs.global;
        self.head
            .multiply(self.raw(first, rows), &mut Vec::new(), out);
        for (row, logits) in out.chunks_exact_mut(biases.len()).enumerate() {
            for (column, (logit, bias)) in logits.iter_mut().zip(biases).enumerate() {
                let sum = f64::from(*logit) + f64::from(*bias);
                *logit = (sum / LOGIT_SCALE) as f32;
                if !logit.is_finite() {
                    return Err(OodError::NotFinite {
                        name: format!("logits of {}", global.name()),
                        row: first + row,
                        column,
                        value: *logit,
                    });
                }
            }
        }
        Ok(())
    }

    /// For each detector, its reduction of the patches of the images of a block; empty for one without a local scale.
    fn local_block(
        &self,
        first: usize,
        rows: usize,
        (patches, cosines, products): (&mut Vec<f32>, &mut Vec<f32>, &mut Vec<Vec<f32>>),
    ) -> Result<Vec<Vec<f64>>, OodError> {
        let mut locals = vec![Vec::new(); self.detectors.len()];
        let (Some(local), false) = (&self.inputs.local, self.local_scales.is_empty()) else {
            return Ok(locals);
        };
        let known: Vec<Option<&[f64]>> = (self.detectors.iter())
            .map(|detector| local.best_at(detector.best_patch_scale()?))
            .collect();
        for (reduced, known) in locals.iter_mut().zip(&known) {
            reduced.extend(known.iter().flat_map(|best| &best[first..first + rows]));
        }
        let unknown = |(detector, known): (&FittedDetector, &Option<&[f64]>)| {
            known.is_none() && detector.local_scale().is_some()
        };
        if !self.detectors.iter().zip(&known).any(unknown) {
            return Ok(locals);
        }
        let count = local.patches();
        products.resize(self.patch_banks.len(), Vec::new());
        for row in 0..rows {
            patches.resize(count * self.head.dim(), 0.0);
            local
                .rows()
                .normalize_rows((first + row) * count, patches)?;
            self.head.multiply(patches, &mut Vec::new(), cosines);
            for (bank, product) in self.patch_banks.iter().zip(products.iter_mut()) {
                bank.multiply(patches, &mut Vec::new(), product);
            }
            let tops: Vec<(usize, f32)> = cosines
                .chunks_exact(self.head.rows())
                .map(kernels::argmax)
                .collect();
            for &scale in &self.local_scales {
                let softmax = &softmaxes(cosines, &tops, scale);
                let detectors = self.detectors.iter().zip(&self.patch_bank_of);
                for ((detector, bank), (reduced, known)) in
                    detectors.zip(locals.iter_mut().zip(&known))
                {
                    if detector.local_scale() == Some(scale) && known.is_none() {
                        reduced.push(detector.reduce_patches(&Patches {
                            cosines,
                            softmax,
                            product: bank.map_or(&[], |place| products[place].as_slice()),
                        }));
                    }
                }
            }
        }
        Ok(locals)
    }
}

/// Place of a bank among the distinct ones, to which it is added if it is new.
fn place_of<'a>(bank: &'a Bank, distinct: &mut Vec<&'a Bank>) -> usize {
    let known = distinct.iter().position(|&other| other == bank);
    known.unwrap_or_else(|| {
        distinct.push(bank);
        distinct.len() - 1
    })
}

/// Softmax sums of rows of cosines at a scale; `tops` are the largest entries of the rows.
fn softmaxes(cosines: &[f32], tops: &[(usize, f32)], scale: f64) -> Vec<Softmax> {
    let classes = cosines.len() / tops.len().max(1);
    cosines
        .chunks_exact(classes.max(1))
        .zip(tops)
        .map(|(row, &top)| Softmax::new(row, scale, top))
        .collect()
}

/// Classifies rows of cosines; `softmax` holds their sums at [`LOGIT_SCALE`].
fn predictions<'a>(
    cosines: impl Iterator<Item = &'a [f32]>,
    softmax: &[Softmax],
) -> Vec<Prediction> {
    let mut largest = Vec::new();
    cosines
        .zip(softmax)
        .map(|(row, softmax)| {
            kernels::largest(row, 5, &mut largest);
            let mut top5 = [u32::MAX; 5];
            for (place, (_, class)) in top5.iter_mut().zip(&largest) {
                *place = *class;
            }
            Prediction {
                class: top5[0],
                probability: softmax.probability() as f32,
                top5,
            }
        })
        .collect()
}
