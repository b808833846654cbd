//! Residual outside the principal space of the shots, alone and as ViM's virtual logit.
//!
//! Wang et al., "ViM: Out-Of-Distribution with Virtual-logit Matching", CVPR 2022, as in OpenOOD with a bias-free head,
//! which puts the origin at 0: `N` holds the eigenvectors of the shots' second moment after the `dim` leading ones,
//! residual = `- ||N f||`, vim = `logsumexp(s) - alpha ||N f||` with `alpha = mean max s / mean ||N x||` over the shots.
//!
//! Fitted on the shots: `n width^2` multiplications and one eigendecomposition; `dim` must be below the feature width.
//! Cost per image: `(width - dim) * width`.

use crate::bank::Bank;
use crate::block::{Block, LOGIT_SCALE};
use crate::detector::{Detector, Learned};
use crate::error::OodError;
use crate::fit_inputs::{FitSizes, Prepared};
use crate::info::{DetectorInfo, Needs, ParameterInfo};
use crate::kernels;
use crate::linalg;
use crate::parameters::Values;
use serde::{Deserialize, Serialize};

const DIM: ParameterInfo = ParameterInfo::new(
    "dim",
    "256",
    "leading principal directions that are cut out, at least 1 and below the feature width",
);
const PAPER: &str = "Wang et al., ViM: Out-Of-Distribution with Virtual-logit Matching, CVPR 2022";

/// The complement of the principal space, and ViM's factor if it is ViM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Complement {
    /// `N`, `[width - dim, width]`.
    complement: Bank,
    /// `alpha` of ViM; without it the score is the residual alone.
    alpha: Option<f64>,
}

impl Learned for Complement {
    fn banks(&self) -> Vec<&Bank> {
        vec![&self.complement]
    }

    fn is_consistent(&self) -> bool {
        // Any rows are a complement; the bank itself is checked where it is read.
        true
    }
}

impl Complement {
    /// `||N f||` of each row.
    fn residuals(&self, block: &Block<'_>) -> impl Iterator<Item = f64> {
        block
            .product(0)
            .chunks_exact(self.complement.rows())
            .map(|row| kernels::sum_of_squares(row).sqrt())
    }
}

/// `logsumexp(s) - alpha ||N f||`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Vim {
    dim: usize,
}

impl Detector for Vim {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "vim",
        summary: "energy less the scaled residual outside the shots' principal space",
        formula: "logsumexp(s) - alpha ||N f||, alpha = mean max s / mean ||N x|| over the shots",
        paper: PAPER,
        // Its factor is one of logits without bias, so it cannot read those of a linear probe.
        needs: Needs {
            texts: true,
            shots: true,
            ..Needs::LOGITS
        },
        cost: "one product with a matrix of width x width",
        trap: "dim must be below the width: the default 256 of OpenOOD leaves nothing of narrow features",
        parameters: &[DIM],
    };
    const MIN_CLASSES: usize = 1;
    type Fitted = Complement;

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            dim: values.count("dim")?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.dim.to_string()]
    }

    fn scale(&self) -> Option<f64> {
        Some(LOGIT_SCALE)
    }

    fn refuses(&self, sizes: &FitSizes) -> Option<String> {
        too_wide(self.dim, sizes.width).or_else(|| {
            let shots = sizes.shots.filter(|shots| *shots <= self.dim)?;
            Some(format!(
                "{shots} shots lie within {} dimensions, so the residual has no scale; lower dim below {shots} or give more shots",
                self.dim
            ))
        })
    }

    fn fit(&self, data: &Prepared<'_>, _: &mut Vec<String>) -> Result<Complement, OodError> {
        let shots = data.shots()?;
        let complement = complement(data, &shots, self.dim)?;
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
                "the shots lie within {} dimensions, so the residual has no scale; lower dim or give more shots",
                self.dim
            )));
        }
        Ok(Complement {
            complement,
            alpha: Some(logit_sum / residual_sum),
        })
    }

    fn agrees(&self, fitted: &Complement) -> bool {
        fitted.alpha.is_some()
    }

    fn score(&self, fitted: &Complement, block: &Block<'_>) -> Vec<f32> {
        let alpha = fitted.alpha.unwrap_or(0.0);
        block
            .log_sums()
            .zip(fitted.residuals(block))
            .map(|(energy, r)| (energy - alpha * r) as f32)
            .collect()
    }
}

/// `- ||N f||`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Residual {
    dim: usize,
}

impl Detector for Residual {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "residual",
        summary: "length outside the shots' principal space",
        formula: "- ||N f||",
        paper: PAPER,
        needs: Needs {
            shots: true,
            ..Needs::LOGITS
        },
        cost: "one product with a matrix of width x width",
        trap: "dim must be below the width",
        parameters: &[DIM],
    };
    const MIN_CLASSES: usize = 1;
    type Fitted = Complement;

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            dim: values.count("dim")?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.dim.to_string()]
    }

    fn refuses(&self, sizes: &FitSizes) -> Option<String> {
        too_wide(self.dim, sizes.width)
    }

    fn fit(&self, data: &Prepared<'_>, _: &mut Vec<String>) -> Result<Complement, OodError> {
        Ok(Complement {
            complement: complement(data, &data.shots()?, self.dim)?,
            alpha: None,
        })
    }

    fn agrees(&self, fitted: &Complement) -> bool {
        fitted.alpha.is_none()
    }

    fn score(&self, fitted: &Complement, block: &Block<'_>) -> Vec<f32> {
        fitted.residuals(block).map(|r| -r as f32).collect()
    }
}

/// Why a principal space of `dim` dimensions leaves no complement in features of this width.
fn too_wide(dim: usize, width: usize) -> Option<String> {
    (dim >= width).then(|| {
        format!(
            "dim {dim} leaves nothing of {width}-dimensional features; it must be below {width}"
        )
    })
}

/// Eigenvectors of the second moment after the `dim` leading ones.
fn complement(data: &Prepared<'_>, shots: &[f32], dim: usize) -> Result<Bank, OodError> {
    let width = data.dim();
    if let Some(problem) = too_wide(dim, width) {
        return Err(data.problem(problem));
    }
    let origin = vec![0.0; width];
    let moment = linalg::second_moment(shots, width, |_| &origin);
    let (_, vectors) = linalg::symmetric_eigen(data.name, &moment, width)?;
    // Ascending order puts the complement first.
    let rows = vectors[..(width - dim) * width].iter().map(|&v| v as f32);
    Ok(Bank::new(rows.collect(), width))
}
