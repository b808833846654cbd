//! Fitting, and the fitted detector as plain data.

use crate::bank::Bank;
use crate::block::{Block, Patches};
use crate::detectors::{AnyDetector, Model};
use crate::error::OodError;
use crate::fit_inputs::{FitInputs, FitSizes, Prepared};
use crate::matrix::Matrix;
use crate::spec::DetectorSpec;
use serde::{Deserialize, Serialize};

/// A detector with everything it needs to score: plain data, to be stored with the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FittedDetector {
    spec: DetectorSpec,
    classes: usize,
    dim: usize,
    notes: Vec<String>,
    model: Model,
}

impl FittedDetector {
    /// The specification that it was fitted from.
    pub fn spec(&self) -> &DetectorSpec {
        &self.spec
    }

    /// The name for columns: [`DetectorSpec::name`].
    pub fn name(&self) -> String {
        self.spec.name()
    }

    /// Fallbacks that fitting took, as sentences for the report; empty when the detector is what its name says.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Number of classes of the text features that it was fitted with.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Width of the features that it was fitted with.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Fails if the parts do not fit together, which only data read from a damaged file can cause.
    pub(crate) fn check(&self) -> Result<(), OodError> {
        let fits = self.detector().is_some_and(|d| d.accepts(&self.model));
        let banks = self.banks().into_iter().chain(self.patch_bank());
        if fits
            && banks
                .into_iter()
                .all(|b| b.dim() == self.dim && b.rows() > 0)
        {
            return Ok(());
        }
        Err(self.problem("its stored parts do not fit together; fit it again".to_owned()))
    }

    fn detector(&self) -> Option<&(dyn AnyDetector + Sync)> {
        self.spec.kind().detector()
    }

    fn problem(&self, problem: String) -> OodError {
        OodError::Detector {
            detector: self.name(),
            problem,
        }
    }

    /// The products it scores with, in the order that its scoring function reads them.
    pub(crate) fn banks(&self) -> Vec<&Bank> {
        self.model.banks()
    }

    /// The product with patches that it scores with, if any.
    pub(crate) fn patch_bank(&self) -> Option<&Bank> {
        self.model.patch_bank()
    }

    /// The factor on cosines of the softmax over classes that it reads, if any.
    pub(crate) fn scale(&self) -> Option<f64> {
        self.detector().and_then(|d| d.scale())
    }

    /// The factor on the cosines of patches of the softmax that it reads, if any.
    pub(crate) fn local_scale(&self) -> Option<f64> {
        self.detector().and_then(|d| d.local_scale())
    }

    /// The factor on cosines of [`PatchBest`](crate::PatchBest), where that is all that the detector reads of patches.
    pub fn best_patch_scale(&self) -> Option<f64> {
        self.detector().and_then(|d| d.best_patch_scale())
    }

    /// What it makes of the patches of one image.
    pub(crate) fn reduce_patches(&self, patches: &Patches<'_>) -> f64 {
        self.detector().map_or(0.0, |d| d.reduce_patches(patches))
    }

    /// Scores of the rows of a block, in order.
    ///
    /// # Errors
    /// [`OodError::Detector`] unless it gives one score per row.
    pub(crate) fn score(&self, block: &Block<'_>) -> Result<Vec<f32>, OodError> {
        let scores = self.detector().and_then(|d| d.score(&self.model, block));
        let (found, expected) = (scores.as_ref().map_or(0, Vec::len), block.tops.len());
        match scores {
            Some(scores) if found == expected => Ok(scores),
            _ => Err(self.problem(format!(
                "gave {found} scores for {expected} rows; it reads what it has not declared"
            ))),
        }
    }
}

/// Checks whether a detector can be fitted on data of these sizes, before there are any data.
///
/// # Errors
/// [`OodError::Detector`] if [`fit`] refuses all data of these sizes; others it may still refuse for their values.
pub fn check_fit(spec: &DetectorSpec, sizes: &FitSizes) -> Result<(), OodError> {
    let detector = spec.kind().detector();
    match detector.and_then(|d| d.refuses(sizes)) {
        None => Ok(()),
        Some(problem) => Err(OodError::Detector {
            detector: spec.name(),
            problem,
        }),
    }
}

/// Fits a detector; kinds that only read cosines are fitted at once, with the text features alone.
///
/// # Errors
/// [`OodError::Missing`] for an array that the kind needs (see [`DetectorSpec::needs`]), [`OodError::Mismatch`],
/// [`OodError::Label`] and [`OodError::ZeroRow`] for arrays that do not fit, and [`OodError::Detector`] where the data
/// cannot carry the detector: a single class under a softmax over classes, `dim` not below the feature width, no class with
/// two shots under a covariance, fewer negative texts than groups; a kind that scores a stream, which
/// [`Stream::start`](crate::Stream::start) takes instead.
pub fn fit(spec: &DetectorSpec, inputs: &FitInputs<'_>) -> Result<FittedDetector, OodError> {
    let classes = inputs.text.rows();
    let dim = inputs.text.cols();
    let mut fitted = FittedDetector {
        spec: spec.clone(),
        classes,
        dim,
        notes: Vec::new(),
        model: Model::None,
    };
    let name = spec.name();
    check_classes(spec, &inputs.text)?;
    let Some(detector) = spec.kind().detector() else {
        return Err(fitted.problem("scores a stream of images, not images one by one".to_owned()));
    };
    let data = Prepared {
        name: &name,
        inputs,
    };
    fitted.model = detector.fit(&data, &mut fitted.notes)?;
    Ok(fitted)
}

/// Fails if there are fewer classes than give a score with meaning.
pub(crate) fn check_classes(spec: &DetectorSpec, text: &Matrix<'_>) -> Result<(), OodError> {
    let classes = text.rows();
    if classes >= spec.kind().min_classes() {
        return Ok(());
    }
    Err(OodError::Detector {
        detector: spec.name(),
        problem: format!(
            "{} has {classes} classes; a softmax over classes needs at least 2, anything else at least 1",
            text.name()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is refused by its sizes is refused when it is fitted, and what is not can be fitted.
    #[test]
    fn sizes_are_refused_as_the_data_would_be() {
        let width = 8;
        for (text, shots_per_class, refused) in [
            ("vim:dim=8", 4, true),
            ("vim:dim=6", 3, true),
            ("vim:dim=5", 3, false),
            ("residual:dim=8", 4, true),
            ("residual:dim=7", 1, false),
            ("mahalanobis", 1, true),
            ("mahalanobis", 2, false),
            ("relative_mahalanobis", 1, true),
            ("relative_mahalanobis", 2, false),
            ("knn:k=50", 1, false),
            ("unknown_prompt:count=3", 1, true),
            ("unknown_prompt:count=2", 1, false),
        ] {
            let spec: DetectorSpec = text.parse().unwrap();
            let rows = 2 * shots_per_class;
            let values = |n: usize, step: f64| -> Vec<f32> {
                (0..n * width)
                    .map(|i| ((i * i) as f64 * step).sin() as f32)
                    .collect()
            };
            let (texts, shots, unknown) = (values(2, 0.37), values(rows, 0.71), values(2, 0.53));
            let labels: Vec<u32> = (0..rows as u32).map(|row| row % 2).collect();
            let matrix = |data, rows| Matrix::new("test", data, rows, width).unwrap();
            let inputs = FitInputs {
                text: matrix(&texts, 2),
                negative_text: Some(matrix(&unknown, 2)),
                train: Some(matrix(&shots, rows)),
                train_labels: Some(&labels),
                classifiers: &[],
            };
            let sizes = FitSizes {
                width,
                shots: Some(rows),
                largest_class: Some(shots_per_class),
                unknown_texts: Some(2),
            };
            let early = check_fit(&spec, &sizes);
            let late = fit(&spec, &inputs);
            assert_eq!(early.is_err(), refused, "{text}: {early:?}");
            assert_eq!(late.is_err(), refused, "{text}: {late:?}");
        }
    }
}
