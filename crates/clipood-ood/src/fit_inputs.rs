//! What detectors are fitted on, checked once: rows, labels, class means.

use crate::error::OodError;
use crate::linear_probe::LinearProbe;
use crate::matrix::Matrix;

/// Arrays for [`fit`](crate::fit). Features are raw; rows are divided by their lengths inside.
#[derive(Debug, Clone, Copy)]
pub struct FitInputs<'a> {
    /// Text features of the classes, `[classes, dim]`.
    pub text: Matrix<'a>,
    /// Text features of negative labels, `[negatives, dim]`.
    pub negative_text: Option<Matrix<'a>>,
    /// Image features of the in-distribution shots, `[n, dim]`.
    pub train: Option<Matrix<'a>>,
    /// Class of each shot, a row of `text`.
    pub train_labels: Option<&'a [u32]>,
    /// Other classifiers of the same classes, whose outputs a detector may join with those of `text`; usually none.
    pub classifiers: &'a [Classifier<'a>],
}

/// A classifier beside the one that is scored.
#[derive(Debug, Clone, Copy)]
pub enum Classifier<'a> {
    /// Class texts `[classes, dim]`, raw; its logits are 100 times the cosines.
    Texts(Matrix<'a>),
    /// A linear probe of raw features.
    Probe(&'a LinearProbe),
}

/// Sizes of what a detector will be fitted on, as far as they are known before anything is computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FitSizes {
    /// Width of a feature.
    pub width: usize,
    /// Largest possible number of shots of all classes together; `None` if there are no shots.
    pub shots: Option<usize>,
    /// Largest possible number of shots of one class.
    pub largest_class: Option<usize>,
    /// Number of prompts for the unknown.
    pub unknown_texts: Option<usize>,
}

/// Fit inputs together with the name of the detector that reads them, for errors.
pub(crate) struct Prepared<'a> {
    pub(crate) name: &'a str,
    pub(crate) inputs: &'a FitInputs<'a>,
}

/// Class means in f64 of the classes that have shots.
pub(crate) struct ClassMeans {
    /// `[present, dim]`
    pub(crate) means: Vec<f64>,
    /// Row of `means` for each class; classes without shots have none.
    pub(crate) row_of: Vec<Option<usize>>,
    /// Number of classes with shots.
    pub(crate) present: usize,
}

impl<'a> Prepared<'a> {
    pub(crate) fn dim(&self) -> usize {
        self.inputs.text.cols()
    }

    pub(crate) fn classes(&self) -> usize {
        self.inputs.text.rows()
    }

    pub(crate) fn problem(&self, problem: String) -> OodError {
        OodError::Detector {
            detector: self.name.to_owned(),
            problem,
        }
    }

    /// Unit text features, `[classes, dim]`.
    pub(crate) fn text(&self) -> Result<Vec<f32>, OodError> {
        self.inputs.text.normalized()
    }

    /// Unit rows of the shots, `[n, dim]`, n at least 1.
    pub(crate) fn shots(&self) -> Result<Vec<f32>, OodError> {
        self.given(self.inputs.train, "train")?.normalized()
    }

    /// The shots as they were given, `[n, dim]`, n at least 1.
    pub(crate) fn raw_shots(&self) -> Result<Vec<f32>, OodError> {
        let shots = self.given(self.inputs.train, "train")?;
        Ok(shots.data().to_vec())
    }

    /// Unit rows of the negative texts, `[negatives, dim]`, at least 1.
    pub(crate) fn negatives(&self) -> Result<Vec<f32>, OodError> {
        self.given(self.inputs.negative_text, "negative_text")?
            .normalized()
    }

    /// An array that the detector needs, if it is there, fits and has rows.
    fn given(
        &self,
        matrix: Option<Matrix<'a>>,
        missing: &'static str,
    ) -> Result<Matrix<'a>, OodError> {
        let matrix = matrix.ok_or_else(|| OodError::Missing {
            detector: self.name.to_owned(),
            missing,
        })?;
        matrix.expect_cols(self.dim(), self.inputs.text.name())?;
        if matrix.rows() == 0 {
            return Err(OodError::Mismatch {
                name: matrix.name().to_owned(),
                what: "rows",
                expected: "at least 1".to_owned(),
                found: 0,
            });
        }
        Ok(matrix)
    }

    /// Unit rows of the shots and their labels, each below the number of classes.
    pub(crate) fn labelled(&self) -> Result<(Vec<f32>, &'a [u32]), OodError> {
        let shots = self.shots()?;
        let labels = self.labels(shots.len() / self.dim())?;
        Ok((shots, labels))
    }

    /// Labels of the `n` shots, each below the number of classes.
    pub(crate) fn labels(&self, n: usize) -> Result<&'a [u32], OodError> {
        let labels = self.inputs.train_labels.ok_or_else(|| OodError::Missing {
            detector: self.name.to_owned(),
            missing: "train_labels",
        })?;
        if labels.len() != n {
            return Err(OodError::Mismatch {
                name: "train_labels".to_owned(),
                what: "labels",
                expected: format!("{n} (the rows of train)"),
                found: labels.len(),
            });
        }
        let classes = self.classes();
        match labels.iter().position(|&label| label as usize >= classes) {
            Some(row) => Err(OodError::Label {
                name: "train_labels".to_owned(),
                row,
                class: labels[row],
                classes,
            }),
            None => Ok(labels),
        }
    }

    /// Notes classes that a detector does not know for want of shots.
    pub(crate) fn note_absent(&self, present: usize, notes: &mut Vec<String>) {
        if present < self.classes() {
            notes.push(format!(
                "{} of {} classes have no shots and no mean",
                self.classes() - present,
                self.classes()
            ));
        }
    }
}

/// Means over the rows of each class of `values` `[n, width]`, of the classes that have rows.
pub(crate) fn class_means(
    values: impl Iterator<Item = impl IntoIterator<Item = f64>>,
    width: usize,
    labels: &[u32],
    classes: usize,
) -> ClassMeans {
    let mut counts = vec![0usize; classes];
    for &label in labels {
        counts[label as usize] += 1;
    }
    let mut present = 0;
    let row_of: Vec<Option<usize>> = counts
        .iter()
        .map(|&count| {
            (count > 0).then(|| {
                present += 1;
                present - 1
            })
        })
        .collect();
    let mut means = vec![0.0; present * width];
    for (row, &label) in values.zip(labels) {
        let Some(at) = row_of[label as usize] else {
            continue;
        };
        let count = counts[label as usize] as f64;
        let mean = &mut means[at * width..(at + 1) * width];
        for (mean, x) in mean.iter_mut().zip(row) {
            *mean += x / count;
        }
    }
    ClassMeans {
        means,
        row_of,
        present,
    }
}
