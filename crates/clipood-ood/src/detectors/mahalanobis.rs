//! Mahalanobis distance to class means, and relative to one background Gaussian.
//!
//! Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS
//! 2018, as in OpenOOD: `- min_k (f - mu_k)^T P (f - mu_k)` for features `f` `[dim]`, class means `mu_k` of the shots,
//! and `P` the inverse of their tied within-class covariance (divided by n). Relative: Ren et al., "A Simple Fix to
//! Mahalanobis Distance for Improving Near-OOD Detection", 2021: less the distance under the mean and covariance of all
//! shots.
//!
//! By default (`normalize=true`) shots and images are divided by their L2 lengths before anything else, which makes both
//! detectors Mahalanobis++: Mueller and Hein, "Mahalanobis++: Improving OOD Detection via Feature Normalization", ICML 2025.
//! `normalize=false` is the classical detector on features as the encoder gives them.
//!
//! Ledoit-Wolf: Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004.
//!
//! Fitted on the shots and their labels: `n dim^2` multiplications and one eigendecomposition. Few shots span less than the
//! feature space; the empirical covariance is then inverted on its range alone (as scikit-learn's pseudo-inverse), and the
//! detector notes its rank. Cost per image: `rank * dim + rank * classes`.
//!
//! Features are centred before they are whitened: CLIP's share a long common mean, which would eat f32's digits.

use crate::bank::Bank;
use crate::block::Block;
use crate::detector::{Detector, Learned};
use crate::error::OodError;
use crate::fit_inputs::{ClassMeans, FitSizes, Prepared, class_means};
use crate::info::{DetectorInfo, Needs, ParameterInfo};
use crate::kernels;
use crate::linalg;
use crate::parameters::{Values, word};
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Estimator of the tied within-class covariance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Covariance {
    /// Second moment of the residuals, inverted on its range.
    Empirical,
    /// Shrunk towards a multiple of the identity (Ledoit and Wolf, 2004).
    LedoitWolf,
}

const COVARIANCES: [(&str, Covariance); 2] = [
    ("empirical", Covariance::Empirical),
    ("ledoit_wolf", Covariance::LedoitWolf),
];

/// Whitened class means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClassDistance {
    /// Rows `v / sqrt(lambda)` over the kept eigenpairs, `[rank, dim]`, centred on the mean of all shots.
    whitening: Bank,
    /// Whitened means of the classes with shots, `[present, rank]`.
    means: Bank,
}

/// Class distance and background distance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RelativeDistance {
    classes: ClassDistance,
    /// Whitening of the covariance of all shots, centred on their mean.
    background: Bank,
}

impl Learned for ClassDistance {
    fn banks(&self) -> Vec<&Bank> {
        vec![&self.whitening]
    }

    fn is_consistent(&self) -> bool {
        self.means.dim() == self.whitening.rows() && self.means.rows() > 0
    }
}

impl ClassDistance {
    fn fit(
        data: &Prepared<'_>,
        covariance: Covariance,
        normalize: bool,
        notes: &mut Vec<String>,
    ) -> Result<Self, OodError> {
        let sample = Sample::new(data, normalize)?;
        let (shots, dim) = (&sample.rows, sample.dim);
        let labels = data.labels(shots.len() / dim)?;
        let ClassMeans {
            means,
            row_of,
            present,
        } = class_means(rows(shots, dim), dim, labels, data.classes());
        data.note_absent(present, notes);
        // Every label has a mean, since it has at least the shot that carries it.
        let mean_of = |row: usize| {
            let at = row_of[labels[row] as usize].unwrap_or(0);
            &means[at * dim..(at + 1) * dim]
        };
        let mut matrix = linalg::second_moment(shots, dim, mean_of);
        if covariance == Covariance::LedoitWolf {
            shrink(&mut matrix, shots, dim, mean_of);
        }
        let center = mean(shots, dim);
        let whitening = sample.whiten(data, &matrix, "within-class covariance", notes)?;
        let rank = whitening.len() / dim;
        let mut whitened = Vec::with_capacity(present * rank);
        for mean in means.chunks_exact(dim) {
            let centered: Vec<f64> = mean.iter().zip(&center).map(|(m, c)| m - c).collect();
            whitened.extend(
                whitening
                    .chunks_exact(dim)
                    .map(|row| kernels::dot(row, &centered) as f32),
            );
        }
        Ok(Self {
            whitening: sample.bank(&whitening, &center),
            means: Bank::new(whitened, rank),
        })
    }

    /// Squared distance to the nearest class mean, from whitened features `[rows, rank]`.
    fn distances(&self, whitened: &[f32]) -> Vec<f64> {
        let (mut products, mut scratch) = (Vec::new(), Vec::new());
        self.means.multiply(whitened, &mut scratch, &mut products);
        let lengths: Vec<f32> = (0..self.means.rows())
            .map(|k| 0.5 * kernels::sum_of_squares(self.means.row(k)) as f32)
            .collect();
        products
            .chunks_exact_mut(self.means.rows())
            .zip(whitened.chunks_exact(self.means.dim()))
            .map(|(products, f)| {
                // The nearest mean has the largest f . m - |m|^2 / 2; its distance is taken without cancellation.
                products.iter_mut().zip(&lengths).for_each(|(p, l)| *p -= l);
                let (nearest, _) = kernels::argmax(products);
                kernels::squared_distance(f, self.means.row(nearest))
            })
            .collect()
    }
}

impl Learned for RelativeDistance {
    fn banks(&self) -> Vec<&Bank> {
        vec![&self.classes.whitening, &self.background]
    }

    fn is_consistent(&self) -> bool {
        self.classes.is_consistent() && self.background.rows() > 0
    }
}

const NORMALIZE: ParameterInfo = ParameterInfo::new(
    "normalize",
    "true",
    "true: features are divided by their lengths (Mahalanobis++); false: features as they are",
);
const TRUTHS: [(&str, bool); 2] = [("true", true), ("false", false)];

/// `- min_k (f - mu_k)^T P (f - mu_k)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mahalanobis {
    covariance: Covariance,
    normalize: bool,
}

impl Detector for Mahalanobis {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "mahalanobis",
        summary: "distance to the nearest class mean under the tied covariance of the shots",
        formula: "- min_k (f - mu_k)^T P (f - mu_k)",
        paper: "Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples, NeurIPS 2018; normalised: Mueller and Hein, Mahalanobis++, ICML 2025",
        needs: Needs {
            shots: true,
            labels: true,
            ..Needs::LOGITS
        },
        cost: "one product with a matrix of width x width and the class means",
        trap: "one shot per class gives no within-class covariance",
        parameters: &[
            ParameterInfo::new("covariance", "empirical", "empirical or ledoit_wolf"),
            NORMALIZE,
        ],
    };
    const MIN_CLASSES: usize = 1;
    type Fitted = ClassDistance;

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            covariance: values.choice("covariance", &COVARIANCES)?,
            normalize: values.choice("normalize", &TRUTHS)?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![
            word(&COVARIANCES, self.covariance),
            self.normalize.to_string(),
        ]
    }

    fn refuses(&self, sizes: &FitSizes) -> Option<String> {
        one_shot_each(sizes)
    }

    fn fit(&self, data: &Prepared<'_>, notes: &mut Vec<String>) -> Result<ClassDistance, OodError> {
        ClassDistance::fit(data, self.covariance, self.normalize, notes)
    }

    fn agrees(&self, fitted: &ClassDistance) -> bool {
        fitted.whitening.is_raw() != self.normalize
    }

    fn score(&self, fitted: &ClassDistance, block: &Block<'_>) -> Vec<f32> {
        let distances = fitted.distances(block.product(0));
        distances.into_iter().map(|d| -d as f32).collect()
    }
}

/// `- (min_k d_k(f) - d_0(f))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Relative {
    normalize: bool,
}

impl Detector for Relative {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "relative_mahalanobis",
        summary: "Mahalanobis distance less the distance to one Gaussian over all shots",
        formula: "- (min_k d_k(f) - d_0(f))",
        paper: "Ren et al., A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection, 2021; normalised: Mueller and Hein, Mahalanobis++, ICML 2025",
        needs: Mahalanobis::INFO.needs,
        cost: "two of mahalanobis",
        trap: "one shot per class gives no within-class covariance",
        parameters: &[NORMALIZE],
    };
    const MIN_CLASSES: usize = 1;
    type Fitted = RelativeDistance;

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            normalize: values.choice("normalize", &TRUTHS)?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.normalize.to_string()]
    }

    fn refuses(&self, sizes: &FitSizes) -> Option<String> {
        one_shot_each(sizes)
    }

    fn fit(
        &self,
        data: &Prepared<'_>,
        notes: &mut Vec<String>,
    ) -> Result<RelativeDistance, OodError> {
        let classes = ClassDistance::fit(data, Covariance::Empirical, self.normalize, notes)?;
        let sample = Sample::new(data, self.normalize)?;
        let center = mean(&sample.rows, sample.dim);
        let matrix = linalg::second_moment(&sample.rows, sample.dim, |_| &center);
        let whitening = sample.whiten(data, &matrix, "covariance of all shots", notes)?;
        Ok(RelativeDistance {
            classes,
            background: sample.bank(&whitening, &center),
        })
    }

    fn agrees(&self, fitted: &RelativeDistance) -> bool {
        [&fitted.classes.whitening, &fitted.background]
            .iter()
            .all(|bank| bank.is_raw() != self.normalize)
    }

    fn score(&self, fitted: &RelativeDistance, block: &Block<'_>) -> Vec<f32> {
        let classes = fitted.classes.distances(block.product(0));
        let background = block.product(1).chunks_exact(fitted.background.rows());
        classes
            .into_iter()
            .zip(background)
            .map(|(class, row)| (kernels::sum_of_squares(row) - class) as f32)
            .collect()
    }
}

fn rows(data: &[f32], dim: usize) -> impl Iterator<Item = impl Iterator<Item = f64>> {
    data.chunks_exact(dim)
        .map(|row| row.iter().map(|&x| f64::from(x)))
}

fn to_f32(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

/// Mean over all rows.
fn mean(data: &[f32], dim: usize) -> Vec<f64> {
    let n = (data.len() / dim) as f64;
    let mut mean = vec![0.0; dim];
    for row in rows(data, dim) {
        mean.iter_mut().zip(row).for_each(|(m, x)| *m += x / n);
    }
    mean
}

/// The shots as one detector sees them: of unit length, or as they were given.
struct Sample {
    /// `[n, dim]`
    rows: Vec<f32>,
    dim: usize,
    normalize: bool,
}

impl Sample {
    fn new(data: &Prepared<'_>, normalize: bool) -> Result<Self, OodError> {
        Ok(Self {
            rows: if normalize {
                data.shots()?
            } else {
                data.raw_shots()?
            },
            dim: data.dim(),
            normalize,
        })
    }

    /// Rows to whiten images with: centred, and of the lengths that the shots have.
    fn bank(&self, whitening: &[f64], center: &[f64]) -> Bank {
        let bank = Bank::centered(to_f32(whitening), to_f32(center));
        if self.normalize {
            bank
        } else {
            bank.for_raw_features()
        }
    }

    /// Mean squared length of the rows.
    fn square(&self) -> f64 {
        if self.normalize {
            return 1.0;
        }
        let n = (self.rows.len() / self.dim) as f64;
        self.rows
            .chunks_exact(self.dim)
            .map(|row| kernels::sum_of_squares(row) / n)
            .sum()
    }

    /// Rows `v / sqrt(lambda)` of a covariance, over the eigenvalues that are not rounding of zero, `[rank, dim]`.
    fn whiten(
        &self,
        data: &Prepared<'_>,
        matrix: &[f64],
        what: &str,
        notes: &mut Vec<String>,
    ) -> Result<Vec<f64>, OodError> {
        let dim = self.dim;
        let (values, vectors) = linalg::symmetric_eigen(data.name, matrix, dim)?;
        let largest = values.last().copied().unwrap_or(0.0);
        // Rows that agree in every digit still leave a mean rounded to about 1e-16 of their length.
        if largest < (1e-24 * self.square()).max(f64::MIN_POSITIVE) {
            return Err(data.problem(format!(
                "the {what} is zero; at least one class needs two different shots"
            )));
        }
        let cutoff = largest * dim as f64 * f64::EPSILON * 16.0;
        let mut out = Vec::with_capacity(matrix.len());
        for (value, vector) in values.iter().zip(vectors.chunks_exact(dim)) {
            if *value > cutoff {
                let factor = 1.0 / value.sqrt();
                out.extend(vector.iter().map(|v| v * factor));
            }
        }
        if out.iter().any(|&x| !(x as f32).is_finite()) {
            return Err(data.problem(format!(
                "the {what} is too small to invert in f32; scale the features up, or use normalize=true"
            )));
        }
        let rank = out.len() / dim;
        if rank < dim {
            notes.push(format!(
                "the {what} has rank {rank} of {dim}; its pseudo-inverse ignores the rest"
            ));
        }
        Ok(out)
    }
}

/// Why classes of one shot each have no covariance.
fn one_shot_each(sizes: &FitSizes) -> Option<String> {
    let alone = sizes.largest_class.is_some_and(|shots| shots < 2);
    alone.then(|| {
        "no class has two shots, so the within-class covariance is zero; give at least 2 shots"
            .to_owned()
    })
}

/// Ledoit and Wolf's shrinkage of a second moment towards `trace / dim` times the identity, in place.
fn shrink<'m>(matrix: &mut [f64], shots: &[f32], dim: usize, mean_of: impl Fn(usize) -> &'m [f64]) {
    let n = (shots.len() / dim) as f64;
    let p = dim as f64;
    let mu = matrix.iter().step_by(dim + 1).sum::<f64>() / p;
    let squares: f64 = kernels::dot(matrix, matrix);
    let fourth: f64 = rows(shots, dim)
        .enumerate()
        .map(|(i, row)| {
            let length: f64 = row.zip(mean_of(i)).map(|(x, m)| (x - m) * (x - m)).sum();
            length * length
        })
        .sum();
    // Mean squared distance of the moment from mu I, and the part of it that sampling explains.
    let delta = (squares - p * mu * mu) / p;
    let beta = ((fourth / n - squares) / (p * n)).min(delta);
    let shrinkage = if beta > 0.0 { beta / delta } else { 0.0 };
    matrix.iter_mut().for_each(|x| *x *= 1.0 - shrinkage);
    matrix
        .iter_mut()
        .step_by(dim + 1)
        .for_each(|x| *x += shrinkage * mu);
}
