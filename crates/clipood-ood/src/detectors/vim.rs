//! Residual outside the principal space of the shots, alone and as ViM's virtual logit.
//!
//! Wang et al., "ViM: Out-Of-Distribution with Virtual-logit Matching", CVPR 2022, as in OpenOOD with a bias-free head,
//! which puts the origin at 0: `N` holds the eigenvectors of the shots' second moment after the `dim` leading ones,
//! residual = `- ||N f||`, vim = `logsumexp(s) - alpha ||N f||` with `alpha = mean max s / mean ||N x||` over the shots.
//!
//! Fitted on the shots: `n width^2` multiplications and one eigendecomposition; `dim` must be below the feature width.
//! Cost an image: `(width - dim) * width`.

use super::LOGIT_SCALE;
use super::shots::Prepared;
use crate::bank::Bank;
use crate::error::OodError;
use crate::kernels;
use crate::linalg;
use crate::score::Block;
use serde::{Deserialize, Serialize};

/// The complement of the principal space, and ViM's factor if it is ViM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Residual {
    /// `N`, `[width - dim, width]`.
    complement: Bank,
    /// `alpha` of ViM; without it the score is the residual alone.
    alpha: Option<f64>,
}

impl Residual {
    pub(super) fn fit(data: &Prepared<'_>, dim: usize) -> Result<Self, OodError> {
        Ok(Self {
            complement: complement(data, &data.shots()?, dim)?,
            alpha: None,
        })
    }

    pub(super) fn fit_vim(data: &Prepared<'_>, dim: usize) -> Result<Self, OodError> {
        let shots = data.shots()?;
        let complement = complement(data, &shots, dim)?;
        let text = Bank::new(data.text()?, data.dim());
        let (mut cosines, mut residuals, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
        let (mut logit_sum, mut residual_sum) = (0.0, 0.0);
        // Chunks bound the memory by the classes, not by the shots.
        for chunk in shots.chunks(256 * data.dim()) {
            text.multiply(chunk, &mut scratch, &mut cosines);
            complement.multiply(chunk, &mut scratch, &mut residuals);
            for row in cosines.chunks_exact(text.rows()) {
                logit_sum += LOGIT_SCALE * f64::from(kernels::argmax(row).1);
            }
            for row in residuals.chunks_exact(complement.rows()) {
                residual_sum += kernels::sum_of_squares(row).sqrt();
            }
        }
        // Shots inside the principal space leave rounding of about 1e-7 each.
        let n = (shots.len() / data.dim()) as f64;
        if residual_sum / n < 1e-6 {
            return Err(data.problem(format!(
                "the shots lie within {dim} dimensions, so the residual has no scale; lower dim or give more shots"
            )));
        }
        Ok(Self {
            complement,
            alpha: Some(logit_sum / residual_sum),
        })
    }

    pub(super) fn bank(&self) -> &Bank {
        &self.complement
    }

    pub(super) fn score(&self, block: &Block<'_>) -> Vec<f32> {
        let residuals = block
            .product(0)
            .chunks_exact(self.complement.rows())
            .map(|row| kernels::sum_of_squares(row).sqrt());
        match self.alpha {
            None => residuals.map(|r| -r as f32).collect(),
            Some(alpha) => block
                .log_sums(LOGIT_SCALE)
                .zip(residuals)
                .map(|(energy, r)| (energy - alpha * r) as f32)
                .collect(),
        }
    }
}

/// Eigenvectors of the second moment after the `dim` leading ones.
fn complement(data: &Prepared<'_>, shots: &[f32], dim: usize) -> Result<Bank, OodError> {
    let width = data.dim();
    if dim >= width {
        return Err(data.problem(format!(
            "dim {dim} leaves nothing of {width}-dimensional features; it must be below {width}"
        )));
    }
    let origin = vec![0.0; width];
    let moment = linalg::second_moment(shots, width, |_| &origin);
    let (_, vectors) = linalg::symmetric_eigen(&data.spec.name(), &moment, width)?;
    // Ascending order puts the complement first.
    let rows = vectors[..(width - dim) * width].iter().map(|&v| v as f32);
    Ok(Bank::new(rows.collect(), width))
}
