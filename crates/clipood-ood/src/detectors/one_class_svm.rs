//! One-class support vector machine with an RBF kernel on the shots.
//!
//! Schoelkopf et al., "Estimating the Support of a High-Dimensional Distribution", Neural Computation 2001:
//! `sum_i alpha_i exp(-gamma ||f - x_i||^2) - rho`, with libsvm's scaling (`0 <= alpha_i <= 1`, `sum alpha = nu n`), so that
//! values equal scikit-learn's `decision_function`.
//!
//! Fitted on the shots `[n, dim]` by the solver in `smo`; it keeps the support vectors, at least `nu n` of them. Cost an
//! image: `support * dim` multiplications and `support` exponentials.

use super::shots::Prepared;
use super::smo;
use crate::bank::Bank;
use crate::error::OodError;
use crate::kernels;
use crate::score::Block;
use serde::{Deserialize, Serialize};

/// Support vectors and their weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct OneClassSvm {
    /// `[support, dim]`
    support: Bank,
    /// One weight a support vector, in (0, 1].
    alphas: Vec<f64>,
    rho: f64,
    gamma: f64,
}

impl OneClassSvm {
    pub(super) fn fit(data: &Prepared<'_>, gamma: f64, nu: f64) -> Result<Self, OodError> {
        let shots = data.shots()?;
        let dim = data.dim();
        let Some(solution) = smo::one_class(&shots, dim, gamma, nu) else {
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
        Ok(Self {
            support: Bank::new(support, dim),
            alphas,
            rho: solution.rho,
            gamma,
        })
    }

    pub(super) fn bank(&self) -> &Bank {
        &self.support
    }

    pub(super) fn is_consistent(&self) -> bool {
        !self.alphas.is_empty() && self.alphas.len() == self.support.rows()
    }

    pub(super) fn score(&self, block: &Block<'_>) -> Vec<f32> {
        let mut kernel = vec![0.0; self.alphas.len()];
        block
            .product(0)
            .chunks_exact(self.alphas.len())
            .map(|products| {
                // Rows have unit length: |f - x|^2 = 2 - 2 f.x.
                kernels::exp_scaled(products, 2.0 * self.gamma, 1.0, &mut kernel);
                (kernels::dot(&kernel, &self.alphas) - self.rho) as f32
            })
            .collect()
    }
}
