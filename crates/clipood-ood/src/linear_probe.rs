//! A linear probe: multinomial logistic regression on image features by L-BFGS, as the CLIP paper evaluates them (Radford et
//! al. 2021, appendix A; the example of OpenAI's repository takes features before normalisation, C = 0.316 and at most
//! 1,000 iterations).
//!
//! Features are not standardised: neither the paper's example nor scikit-learn's `LogisticRegression` does it, and the
//! penalty acts on the weights of the features as they are. What differs from scikit-learn's defaults is C (there 1), the
//! largest number of steps (100) and the gradient at which the search ends (1e-4, here [`TOLERANCE`]): the minimum is
//! reached more closely, so that a probe does not depend on where the search stopped.

use rayon::prelude::*;

use crate::error::OodError;
use crate::lbfgs::minimise;
use crate::linalg::{accumulate_transposed, product_wide};
use crate::matrix::Matrix;

/// Largest component of the gradient of the mean loss at which the search ends.
const TOLERANCE: f64 = 1e-8;

/// How a probe is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearProbeOptions {
    /// Inverse of the strength of the L2 term, above 0, as scikit-learn's `C`: the summed loss is weighted with it against
    /// half the squared length of the weights. Biases are free.
    pub c: f64,
    /// Largest number of L-BFGS steps.
    pub max_iter: usize,
}

impl Default for LinearProbeOptions {
    fn default() -> Self {
        Self {
            c: 0.316,
            max_iter: 1000,
        }
    }
}

/// A fitted probe: logits are `weights x feature + biases`.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearProbe {
    /// `[classes, dim]`.
    pub weights: Vec<f32>,
    /// One per class.
    pub biases: Vec<f32>,
    /// Steps that L-BFGS took.
    pub steps: usize,
    /// Whether it reached the minimum before `max_iter` steps.
    pub converged: bool,
}

impl LinearProbe {
    /// Logits of raw features, `[rows, classes]`.
    ///
    /// # Errors
    /// [`OodError::Mismatch`] for features of another width.
    pub fn logits(&self, features: &Matrix<'_>) -> Result<Vec<f32>, OodError> {
        let classes = self.biases.len();
        features.expect_cols(self.weights.len() / classes.max(1), "the linear probe")?;
        let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|x| f64::from(*x)).collect() };
        let mut logits = vec![0.0; features.rows() * classes];
        product_wide(
            &wide(features.data()),
            &wide(&self.weights),
            features.cols(),
            &mut logits,
        );
        let biases = self.biases.iter().cycle();
        let sums = logits.iter().zip(biases);
        Ok(sums.map(|(x, b)| (x + f64::from(*b)) as f32).collect())
    }
}

/// Fits a probe to raw features `[n, dim]` with labels below `classes`.
///
/// The result is scikit-learn's `LogisticRegression(C, max_iter, solver="lbfgs")`. With two classes that one has a single
/// row of coefficients; here the two rows are its halves with opposite signs, whose logits differ by the same.
///
/// # Errors
/// [`OodError::Mismatch`] for labels that do not fit the rows or fewer than two classes, [`OodError::Label`] for a label out
/// of range, [`OodError::Detector`] for a class without a row or options out of range.
pub fn fit_linear_probe(
    features: &Matrix<'_>,
    labels: &[u32],
    classes: usize,
    options: &LinearProbeOptions,
) -> Result<LinearProbe, OodError> {
    check(features, labels, classes, options)?;
    let problem = Problem::new(features, labels, classes, options.c);
    let start = vec![0.0; classes * (problem.dim + 1)];
    let objective = |point: &[f64], gradient: &mut [f64]| problem.value(point, gradient);
    let minimum = minimise(start, options.max_iter, TOLERANCE, objective);
    let narrow = |values: &[f64]| -> Vec<f32> { values.iter().map(|x| *x as f32).collect() };
    let (weights, biases) = minimum.point.split_at(classes * problem.dim);
    Ok(LinearProbe {
        weights: narrow(weights),
        biases: narrow(biases),
        steps: minimum.steps,
        converged: minimum.converged,
    })
}

fn check(
    features: &Matrix<'_>,
    labels: &[u32],
    classes: usize,
    options: &LinearProbeOptions,
) -> Result<(), OodError> {
    let mismatch = |what, expected: String, found| OodError::Mismatch {
        name: "linear probe".to_owned(),
        what,
        expected,
        found,
    };
    let wrong = |problem: String| OodError::Detector {
        detector: "linear probe".to_owned(),
        problem,
    };
    if labels.len() != features.rows() {
        let expected = format!("{} (the rows of {})", features.rows(), features.name());
        return Err(mismatch("labels", expected, labels.len()));
    }
    if classes < 2 {
        return Err(mismatch("classes", "at least 2".to_owned(), classes));
    }
    let mut counts = vec![0usize; classes];
    for (row, &class) in labels.iter().enumerate() {
        let count = counts.get_mut(class as usize);
        *count.ok_or_else(|| OodError::Label {
            name: "linear probe".to_owned(),
            row,
            class,
            classes,
        })? += 1;
    }
    if let Some(class) = counts.iter().position(|count| *count == 0) {
        // Its bias would fall without end.
        return Err(wrong(format!("class {class} has no row to learn from")));
    }
    if !(options.c.is_finite() && options.c > 0.0) {
        let found = options.c;
        return Err(wrong(format!(
            "c is {found}, expected a finite number above 0"
        )));
    }
    if options.max_iter == 0 {
        return Err(wrong("max_iter is 0, expected at least 1".to_owned()));
    }
    Ok(())
}

/// What is minimised: the mean cross entropy plus `ridge / 2` times the squared length of the weights.
struct Problem<'a> {
    rows: Vec<f64>,
    labels: &'a [u32],
    dim: usize,
    classes: usize,
    ridge: f64,
}

impl<'a> Problem<'a> {
    fn new(features: &Matrix<'_>, labels: &'a [u32], classes: usize, c: f64) -> Self {
        // Two opposite halves have half the squared length of the one row that scikit-learn penalises.
        let halves = if classes == 2 { 2.0 } else { 1.0 };
        Self {
            rows: features.data().iter().map(|x| f64::from(*x)).collect(),
            labels,
            dim: features.cols(),
            classes,
            ridge: halves / (c * labels.len() as f64),
        }
    }

    /// Value at `point`, weights `[classes, dim]` and then biases, and its gradient.
    fn value(&self, point: &[f64], gradient: &mut [f64]) -> f64 {
        let (weights, biases) = point.split_at(self.classes * self.dim);
        let (by_weight, by_bias) = gradient.split_at_mut(self.classes * self.dim);
        let n = self.labels.len();
        let mut residuals = vec![0.0; n * self.classes];
        product_wide(&self.rows, weights, self.dim, &mut residuals);
        let losses: Vec<f64> = residuals
            .par_chunks_exact_mut(self.classes)
            .zip(self.labels)
            .map(|(row, label)| residual(row, biases, *label as usize, n))
            .collect();
        for (g, w) in by_weight.iter_mut().zip(weights) {
            *g = self.ridge * w;
        }
        accumulate_transposed(&residuals, &self.rows, n, by_weight);
        by_bias.fill(0.0);
        for row in residuals.chunks_exact(self.classes) {
            for (g, r) in by_bias.iter_mut().zip(row) {
                *g += r;
            }
        }
        let squares: f64 = weights.iter().map(|w| w * w).sum();
        losses.iter().sum::<f64>() / n as f64 + 0.5 * self.ridge * squares
    }
}

/// Turns logits without biases into the gradient of a row's share of the mean loss, and returns the row's loss.
fn residual(row: &mut [f64], biases: &[f64], label: usize, n: usize) -> f64 {
    for (logit, bias) in row.iter_mut().zip(biases) {
        *logit += bias;
    }
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let known = row[label] - largest;
    let mut sum = 0.0;
    for logit in row.iter_mut() {
        *logit = (*logit - largest).exp();
        sum += *logit;
    }
    for weight in row.iter_mut() {
        *weight /= sum * n as f64;
    }
    row[label] -= 1.0 / n as f64;
    sum.ln() - known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_is_the_slope_of_the_value() {
        let features: Vec<f32> = (0..15).map(|i| ((i * 7) % 11) as f32 * 0.3 - 1.0).collect();
        let features = Matrix::new("features", &features, 5, 3).unwrap();
        let labels = [0, 1, 2, 1, 0];
        for (classes, labels) in [(3, labels), (2, labels.map(|label| label % 2))] {
            let problem = Problem::new(&features, &labels, classes, 0.7);
            let point: Vec<f64> = (0..classes * 4).map(|i| (i as f64 * 1.7).sin()).collect();
            let mut gradient = vec![0.0; point.len()];
            problem.value(&point, &mut gradient);
            for (i, slope) in gradient.iter().enumerate() {
                let shifted = |by: f64| {
                    let mut point = point.clone();
                    point[i] += by;
                    problem.value(&point, &mut vec![0.0; point.len()])
                };
                let numeric = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
                assert!((numeric - slope).abs() < 1e-8, "{i}: {numeric}, {slope}");
            }
        }
    }

    #[test]
    fn bad_input_is_named() {
        let features = Matrix::new("shots", &[1.0, 2.0, 3.0, 4.0], 2, 2).unwrap();
        let fit = |labels: &[u32], classes, c, max_iter| {
            let options = LinearProbeOptions { c, max_iter };
            let error = fit_linear_probe(&features, labels, classes, &options).unwrap_err();
            error.to_string()
        };
        assert!(fit(&[0], 2, 1.0, 9).contains("expected 2 (the rows of shots) labels, found 1"));
        assert!(fit(&[0, 0], 1, 1.0, 9).contains("at least 2 classes"));
        assert!(fit(&[0, 2], 2, 1.0, 9).contains("row 1 has class 2"));
        assert!(fit(&[0, 0], 2, 1.0, 9).contains("class 1 has no row"));
        assert!(fit(&[0, 1], 2, 0.0, 9).contains("c is 0"));
        assert!(fit(&[0, 1], 2, 1.0, 0).contains("max_iter"));
    }
}
