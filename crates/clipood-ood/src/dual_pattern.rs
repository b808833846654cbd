//! Dual-pattern fusion of a softmax score with the divergence from class patterns.
//!
//! The dual-pattern repository (after Zhang et al., ECCV 2024) prints `base + beta * scaled(min KL)`, base = MCM or GL-MCM at
//! t = 0.1, `scaled` the affine map of the range of min KL onto the range of the base, beta in [-1, 0]. It takes both ranges
//! over the in-distribution and the OOD test images together and beta where AUROC - FPR95 is best on those images. So the
//! fusion belongs to a pair of data sets, not to an image, and here it says which data it has seen:
//!
//! * [`Scaling::Transductive`]: ranges over the tested pair, as the repository;
//! * [`Scaling::Calibrated`]: ranges over other images (validation or train), so that an image is scored by itself;
//! * [`best_beta`] chooses beta on pairs: an honest choice on validation pairs; on the tested ones an oracle that belongs
//!   beside an honest figure, never in its place.
//!
//! Cost: one pass over two columns.

use crate::error::OodError;
use crate::metrics::ood_metrics;
use serde::{Deserialize, Serialize};

/// Where the ranges of a [`DualPatternScaling`] come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scaling {
    /// The tested images themselves, in-distribution and OOD together.
    Transductive,
    /// Images that are not tested.
    Calibrated,
}

impl Scaling {
    /// The word for tables and column names.
    pub fn as_str(self) -> &'static str {
        match self {
            Scaling::Transductive => "transductive",
            Scaling::Calibrated => "calibrated",
        }
    }
}

/// Ranges that map the divergence onto the base score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DualPatternScaling {
    scaling: Scaling,
    base: (f64, f64),
    min_kl: (f64, f64),
}

impl DualPatternScaling {
    /// Ranges over the tested in-distribution and OOD images: the base score, and `dpm_neg_min_kl` as scored.
    ///
    /// # Errors
    /// [`OodError::Metric`] if the lists are empty, differ in length, hold a non-finite value, or the divergence is constant.
    pub fn transductive(
        base_id: &[f32],
        base_ood: &[f32],
        neg_min_kl_id: &[f32],
        neg_min_kl_ood: &[f32],
    ) -> Result<Self, OodError> {
        same_length(base_id, neg_min_kl_id)?;
        same_length(base_ood, neg_min_kl_ood)?;
        Self::over(
            Scaling::Transductive,
            base_id.iter().chain(base_ood),
            neg_min_kl_id.iter().chain(neg_min_kl_ood),
        )
    }

    /// Ranges over images that are not tested. Values of tested images may then fall outside; they are mapped alike.
    ///
    /// # Errors
    /// As [`DualPatternScaling::transductive`].
    pub fn calibrated(base: &[f32], neg_min_kl: &[f32]) -> Result<Self, OodError> {
        same_length(base, neg_min_kl)?;
        Self::over(Scaling::Calibrated, base.iter(), neg_min_kl.iter())
    }

    fn over<'a>(
        scaling: Scaling,
        base: impl Iterator<Item = &'a f32>,
        neg_min_kl: impl Iterator<Item = &'a f32>,
    ) -> Result<Self, OodError> {
        let base = range("base score", base)?;
        let (low, high) = range("dpm_neg_min_kl", neg_min_kl)?;
        if low == high {
            return Err(problem(
                "dpm_neg_min_kl",
                format!("is {low} for every image, so it has no range to scale"),
            ));
        }
        Ok(Self {
            scaling,
            base,
            // The score is the negative divergence.
            min_kl: (-high, -low),
        })
    }

    /// Where the ranges come from.
    pub fn scaling(&self) -> Scaling {
        self.scaling
    }

    /// Column name of the fused score: `dpm_<scaling>_<base>_beta<beta>`.
    pub fn name(&self, base: &str, beta: f64) -> String {
        format!("dpm_{}_{base}_beta{beta:.1}", self.scaling.as_str())
    }
}

/// `base + beta * scaled(min KL)` of each image, from its base score and its `dpm_neg_min_kl`; higher = in-distribution for
/// beta in [-1, 0].
///
/// # Errors
/// [`OodError::Metric`] if the columns differ in length.
pub fn fuse_dual_pattern(
    scaling: &DualPatternScaling,
    base: &[f32],
    neg_min_kl: &[f32],
    beta: f64,
) -> Result<Vec<f32>, OodError> {
    same_length(base, neg_min_kl)?;
    let (low, high) = scaling.base;
    let (kl_low, kl_high) = scaling.min_kl;
    let factor = (high - low) / (kl_high - kl_low);
    let fuse = |(&b, &kl): (&f32, &f32)| {
        (f64::from(b) + beta * ((-f64::from(kl) - kl_low) * factor + low)) as f32
    };
    Ok(base.iter().zip(neg_min_kl).map(fuse).collect())
}

/// The betas that the repository tries: -1.0, -0.9, ..., 0.
pub fn beta_grid() -> impl Iterator<Item = f64> {
    (0..=10).map(|i| f64::from(i - 10) / 10.0)
}

/// Columns of one pair: base and `dpm_neg_min_kl`, each of the in-distribution and the OOD images.
pub type DualPatternPair<'a> = (
    &'a DualPatternScaling,
    (&'a [f32], &'a [f32]),
    (&'a [f32], &'a [f32]),
);

/// The beta of [`beta_grid`] that maximises the mean of AUROC - FPR95 over the pairs, each given as its scaling, its
/// in-distribution (base, `dpm_neg_min_kl`) and its OOD (base, `dpm_neg_min_kl`): one pair for a beta of its own, all for
/// one beta. Of equals the smallest. On tested pairs it looks at the labels: report that as `oracle`.
///
/// # Errors
/// [`OodError::Metric`] for no pairs or columns that do not fit, [`OodError::NanScore`].
pub fn best_beta(pairs: &[DualPatternPair<'_>]) -> Result<f64, OodError> {
    if pairs.is_empty() {
        return Err(problem("beta", "has no pairs to choose on".to_owned()));
    }
    let mut best = (f64::NEG_INFINITY, 0.0);
    for beta in beta_grid() {
        let mut sum = 0.0;
        for (scaling, (base_id, kl_id), (base_ood, kl_ood)) in pairs {
            let id = fuse_dual_pattern(scaling, base_id, kl_id, beta)?;
            let ood = fuse_dual_pattern(scaling, base_ood, kl_ood, beta)?;
            sum += ood_metrics(&id, &ood)?.selection_criterion();
        }
        if sum > best.0 {
            best = (sum, beta);
        }
    }
    Ok(best.1)
}

fn problem(name: &str, problem: String) -> OodError {
    OodError::Metric {
        name: name.to_owned(),
        problem,
    }
}

fn same_length(base: &[f32], neg_min_kl: &[f32]) -> Result<(), OodError> {
    if base.len() == neg_min_kl.len() {
        return Ok(());
    }
    Err(problem(
        "dual-pattern fusion",
        format!(
            "{} base scores but {} values of dpm_neg_min_kl",
            base.len(),
            neg_min_kl.len()
        ),
    ))
}

fn range<'a>(name: &str, values: impl Iterator<Item = &'a f32>) -> Result<(f64, f64), OodError> {
    let mut range = (f64::INFINITY, f64::NEG_INFINITY);
    for (i, &value) in values.enumerate() {
        if !value.is_finite() {
            return Err(problem(name, format!("value {i} is {value}")));
        }
        range = (range.0.min(value.into()), range.1.max(value.into()));
    }
    if range.0 > range.1 {
        return Err(problem(name, "has no values".to_owned()));
    }
    Ok(range)
}
