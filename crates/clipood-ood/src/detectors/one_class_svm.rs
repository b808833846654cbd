//! One-class support vector machine with an RBF kernel on the shots.
//!
//! Schoelkopf et al., "Estimating the Support of a High-Dimensional Distribution", Neural Computation 2001:
//! `sum_i alpha_i exp(-gamma ||f - x_i||^2) - rho`, with libsvm's scaling (`0 <= alpha_i <= 1`, `sum alpha = nu n`), so that
//! values equal scikit-learn's `decision_function`.
//!
//! Fitted on the shots `[n, dim]` by the solver in `smo`; it keeps the support vectors, at least `nu n` of them. Cost per
//! image: `support * dim` multiplications and `support` exponentials.

use crate::bank::Bank;
use crate::block::Block;
use crate::detector::{Detector, Learned};
use crate::error::OodError;
use crate::fit_inputs::Prepared;
use crate::info::{DetectorInfo, Needs, ParameterInfo};
use crate::kernels;
use crate::parameters::Values;
use crate::smo;
use serde::{Deserialize, Serialize};

/// `sum_i alpha_i exp(-gamma ||f - x_i||^2) - rho`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct OneClassSvm {
    gamma: f64,
    nu: f64,
}

/// Support vectors and their weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Support {
    /// `[support, dim]`
    support: Bank,
    /// One weight per support vector, in (0, 1].
    alphas: Vec<f64>,
    rho: f64,
    gamma: f64,
}

impl Learned for Support {
    fn banks(&self) -> Vec<&Bank> {
        vec![&self.support]
    }

    fn is_consistent(&self) -> bool {
        !self.alphas.is_empty() && self.alphas.len() == self.support.rows()
    }
}

impl Detector for OneClassSvm {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "one_class_svm",
        summary: "decision function of a one-class SVM on the shots",
        formula: "sum_i alpha_i exp(-gamma ||f - x_i||^2) - rho",
        paper: "Schoelkopf et al., Estimating the Support of a High-Dimensional Distribution, Neural Computation 2001",
        needs: Needs {
            shots: true,
            ..Needs::LOGITS
        },
        cost: "one product with the support vectors; fitting grows with the square of the shots",
        trap: "gamma = 1 suits unit features only",
        parameters: &[
            ParameterInfo::new("gamma", "1", "width of the RBF kernel, above 0"),
            ParameterInfo::new(
                "nu",
                "0.1",
                "share of shots that may lie outside, in (0, 1]",
            ),
        ],
    };
    const MIN_CLASSES: usize = 1;
    type Fitted = Support;

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            gamma: values.positive("gamma")?,
            nu: values.number("nu", "a number in (0, 1]", |nu| nu > 0.0 && nu <= 1.0)?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.gamma.to_string(), self.nu.to_string()]
    }

    fn fit(&self, data: &Prepared<'_>, _: &mut Vec<String>) -> Result<Support, OodError> {
        let shots = data.shots()?;
        let dim = data.dim();
        let Some(solution) = smo::one_class(&shots, dim, self.gamma, self.nu) else {
            return Err(
                data.problem("the solver did not converge; raise nu or lower gamma".to_owned())
            );
        };
        let mut support = Vec::new();
        let mut alphas = Vec::new();
        for (shot, &alpha) in shots.chunks_exact(dim).zip(&solution.alphas) {
            if alpha > 0.0 {
                support.extend_from_slice(shot);
                alphas.push(alpha);
            }
        }
        Ok(Support {
            support: Bank::new(support, dim),
            alphas,
            rho: solution.rho,
            gamma: self.gamma,
        })
    }

    fn score(&self, fitted: &Support, block: &Block<'_>) -> Vec<f32> {
        let mut kernel = vec![0.0; fitted.alphas.len()];
        block
            .product(0)
            .chunks_exact(fitted.alphas.len())
            .map(|products| {
                // Rows have unit length: |f - x|^2 = 2 - 2 f.x.
                kernels::exp_scaled(products, 2.0 * fitted.gamma, 1.0, &mut kernel);
                (kernels::dot(&kernel, &fitted.alphas) - fitted.rho) as f32
            })
            .collect()
    }
}
