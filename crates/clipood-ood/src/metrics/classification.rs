//! The ID classifier: accuracy and calibration.

use crate::error::OodError;
use crate::score::Prediction;
use serde::{Deserialize, Serialize};

/// Shares of images whose class is the first, or among the first five.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Images.
    pub n: u64,
    /// Share with the label as the predicted class.
    pub top1: f64,
    /// Share with the label among the five largest cosines.
    pub top5: f64,
}

/// Accuracy of predictions against labels.
///
/// # Errors
/// [`OodError::Metric`] for no images or different lengths.
pub fn accuracy(predictions: &[Prediction], labels: &[u32]) -> Result<Accuracy, OodError> {
    same_length("accuracy", predictions.len(), labels.len())?;
    let share = |hit: &dyn Fn(&Prediction, u32) -> bool| {
        let hits = predictions
            .iter()
            .zip(labels)
            .filter(|&(p, &label)| hit(p, label));
        hits.count() as f64 / predictions.len() as f64
    };
    Ok(Accuracy {
        n: predictions.len() as u64,
        top1: share(&|p, label| p.class == label),
        // u32::MAX fills the places of missing classes, and is no class.
        top5: share(&|p, label| label != u32::MAX && p.top5.contains(&label)),
    })
}

/// Expected calibration error of the predicted probabilities over `bins` equal bins of (0, 1] (Guo et al., "On Calibration
/// of Modern Neural Networks", ICML 2017, with 15 bins): the mean over images of the gap between a bin's accuracy and its
/// mean probability. In [0, 1].
///
/// # Errors
/// [`OodError::Metric`] for no images, different lengths or no bins.
pub fn expected_calibration_error(
    predictions: &[Prediction],
    labels: &[u32],
    bins: usize,
) -> Result<f64, OodError> {
    same_length(
        "expected calibration error",
        predictions.len(),
        labels.len(),
    )?;
    let mut calibration = Calibration::new(bins)?;
    for (prediction, &label) in predictions.iter().zip(labels) {
        calibration.add(prediction.class, prediction.probability, label);
    }
    Ok(calibration.error())
}

/// Top-1 accuracy and expected calibration error of predictions that come one at a time and are not kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Right predictions less probability, by bin: the bin's gap times its images.
    gaps: Vec<f64>,
    images: u64,
    right: u64,
}

impl Calibration {
    /// No image yet, and `bins` equal bins of (0, 1].
    ///
    /// # Errors
    /// [`OodError::Metric`] for no bins.
    pub fn new(bins: usize) -> Result<Self, OodError> {
        if bins == 0 {
            return Err(OodError::Metric {
                name: "expected calibration error".to_owned(),
                problem: "needs at least 1 bin".to_owned(),
            });
        }
        Ok(Self {
            gaps: vec![0.0; bins],
            images: 0,
            right: 0,
        })
    }

    /// Adds an image: the class it is taken for, with which probability, and its label.
    pub fn add(&mut self, class: u32, probability: f32, label: u32) {
        let bins = self.gaps.len();
        let probability = f64::from(probability);
        let bin = (probability * bins as f64).ceil() as usize;
        let right = if class == label { 1.0 } else { 0.0 };
        self.gaps[bin.clamp(1, bins) - 1] += right - probability;
        self.images += 1;
        self.right += u64::from(class == label);
    }

    /// Number of images.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// Share of the images that are taken for what they are; NaN for none.
    pub fn top1(&self) -> f64 {
        self.right as f64 / self.images as f64
    }

    /// The expected calibration error, as [`expected_calibration_error`] has it; NaN for no images.
    pub fn error(&self) -> f64 {
        let sum: f64 = self.gaps.iter().map(|gap| gap.abs()).sum();
        sum / self.images as f64
    }
}

fn same_length(name: &str, predictions: usize, labels: usize) -> Result<(), OodError> {
    if predictions == labels && labels > 0 {
        return Ok(());
    }
    Err(OodError::Metric {
        name: name.to_owned(),
        problem: format!(
            "needs a label for each image and at least one, found {predictions} predictions and {labels} labels"
        ),
    })
}
