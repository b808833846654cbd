//! Scoring: one pass over the features for all detectors.
//!
//! Rows go through in blocks, in parallel. A block is divided by row lengths once; its products with the class texts, and with
//! each distinct bank of rows that detectors keep (shots, negative texts, projections), are taken once; every softmax over
//! classes is summed once per temperature. Memory is a few megabytes a thread, whatever the number of images. A row's
//! result depends on nothing but the row: not on the block it is in, nor on the number of threads.
//!
//! A linear probe takes the place of the texts by logits of its own; a hundredth of them stands where the cosines do, so that
//! `s = 100 c` holds there as well.

use crate::bank::Bank;
use crate::detectors::{FittedDetector, LOGIT_SCALE};
use crate::error::OodError;
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
    /// One an image.
    pub predictions: Vec<Prediction>,
    /// One column a detector, in the order given; higher = in-distribution.
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
/// [`OodError::Detector`] for a kind that [needs texts](crate::DetectorKind::needs_texts), [`OodError::Length`] and
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
    if let Some(detector) = detectors.iter().find(|d| d.spec().kind().needs_texts()) {
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

/// A softmax over classes of one row at one scale, as sums relative to the largest class.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Softmax {
    /// Sum of `exp(x)` over all classes but the largest, `x = scale (c - max c)`: keeps the digits that 1 + others loses.
    pub(crate) others: f64,
    /// Sum of `x exp(x)` over all classes.
    pub(crate) weighted: f64,
}

impl Softmax {
    fn new(row: &[f32], scale: f64, top: (usize, f32)) -> Self {
        let max = f64::from(top.1);
        let (a, a_weighted) = kernels::exp_sums(&row[..top.0], scale, max);
        let (b, b_weighted) = kernels::exp_sums(&row[top.0 + 1..], scale, max);
        Self {
            others: a + b,
            weighted: a_weighted + b_weighted,
        }
    }

    /// Probability of the largest class.
    pub(crate) fn probability(&self) -> f64 {
        1.0 / (1.0 + self.others)
    }
}

/// What one detector sees of a block of rows.
pub(crate) struct Block<'a> {
    features: &'a [f32],
    dim: usize,
    cosines: &'a [f32],
    classes: usize,
    tops: &'a [(usize, f32)],
    softmaxes: &'a [(f64, Vec<Softmax>)],
    locals: &'a [(f64, Vec<f64>)],
    products: &'a [Vec<f32>],
    banks: &'a [usize],
}

impl<'a> Block<'a> {
    /// Unit features, a row at a time.
    pub(crate) fn features(&self) -> impl Iterator<Item = &'a [f32]> {
        self.features.chunks_exact(self.dim)
    }

    /// Cosines to the class texts, or a hundredth of a linear probe's logits, a row at a time.
    pub(crate) fn cosine_rows(&self) -> impl Iterator<Item = &'a [f32]> {
        self.cosines.chunks_exact(self.classes)
    }

    /// The largest cosine of each row.
    pub(crate) fn maxima(&self) -> impl Iterator<Item = f32> {
        self.tops.iter().map(|top| top.1)
    }

    /// Softmax sums at the scale that the detector declared.
    pub(crate) fn softmax(&self, scale: f64) -> &'a [Softmax] {
        let found = self.softmaxes.iter().find(|(s, _)| *s == scale);
        found.map_or(&[], |(_, softmaxes)| softmaxes)
    }

    /// `logsumexp(scale c)` of each row.
    pub(crate) fn log_sums(&self, scale: f64) -> impl Iterator<Item = f64> {
        let softmaxes = self.softmax(scale).iter();
        self.maxima()
            .zip(softmaxes)
            .map(move |(max, s)| scale * f64::from(max) + s.others.ln_1p())
    }

    /// `max over patches of max softmax(scale c)` of each row, at the local scale that the detector declared.
    pub(crate) fn local(&self, scale: f64) -> &'a [f64] {
        let found = self.locals.iter().find(|(s, _)| *s == scale);
        found.map_or(&[], |(_, local)| local)
    }

    /// Products with the detector's i-th bank, `[rows, bank rows]`.
    pub(crate) fn product(&self, i: usize) -> &'a [f32] {
        &self.products[self.banks[i]]
    }
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
            let places = detector.banks().into_iter().map(|bank| {
                let known = plan.banks.iter().position(|&other| other == bank);
                known.unwrap_or_else(|| {
                    plan.banks.push(bank);
                    plan.banks.len() - 1
                })
            });
            let places = places.collect();
            plan.banks_of.push(places);
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
            bank.multiply(features, centered, product);
        }
        let locals = self.local_block(
            first,
            rows,
            &mut scratch.patches,
            &mut scratch.patch_cosines,
        )?;
        let tops: Vec<(usize, f32)> = cosines.chunks_exact(classes).map(kernels::argmax).collect();
        let softmaxes: Vec<(f64, Vec<Softmax>)> = self
            .scales
            .iter()
            .map(|&scale| {
                let sums = cosines
                    .chunks_exact(classes)
                    .zip(&tops)
                    .map(|(row, &top)| Softmax::new(row, scale, top));
                (scale, sums.collect())
            })
            .collect();
        let mut block = Block {
            features,
            dim,
            cosines,
            classes,
            tops: &tops,
            softmaxes: &softmaxes,
            locals: &locals,
            products,
            banks: &[],
        };
        let predictions = predictions(&block);
        let mut columns = Vec::with_capacity(self.detectors.len());
        for (detector, banks) in self.detectors.iter().zip(&self.banks_of) {
            block.banks = banks;
            columns.push(detector.score(&block));
        }
        Ok(Scores {
            predictions,
            columns,
        })
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
        let raw = &global.data()[first * global.cols()..(first + rows) * global.cols()];
        self.head.multiply(raw, &mut Vec::new(), out);
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

    /// For each local scale, `max over patches of max softmax(scale c)` of the images of a block.
    fn local_block(
        &self,
        first: usize,
        rows: usize,
        patches: &mut Vec<f32>,
        cosines: &mut Vec<f32>,
    ) -> Result<Vec<(f64, Vec<f64>)>, OodError> {
        let mut best: Vec<(f64, Vec<f64>)> = self
            .local_scales
            .iter()
            .map(|&scale| (scale, vec![0.0; rows]))
            .collect();
        let (Some(local), false) = (&self.inputs.local, best.is_empty()) else {
            return Ok(best);
        };
        let count = local.patches();
        for row in 0..rows {
            patches.resize(count * self.head.dim(), 0.0);
            local
                .rows()
                .normalize_rows((first + row) * count, patches)?;
            self.head.multiply(patches, &mut Vec::new(), cosines);
            for cosines in cosines.chunks_exact(self.head.rows()) {
                let top = kernels::argmax(cosines);
                for (scale, best) in &mut best {
                    let probability = Softmax::new(cosines, *scale, top).probability();
                    best[row] = best[row].max(probability);
                }
            }
        }
        Ok(best)
    }
}

fn predictions(block: &Block<'_>) -> Vec<Prediction> {
    let mut largest = Vec::new();
    block
        .cosine_rows()
        .zip(block.softmax(LOGIT_SCALE))
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
