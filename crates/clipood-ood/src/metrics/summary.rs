//! Over seeds, over OOD sets, over hyperparameters.

use crate::error::OodError;
use crate::metrics::accumulator::OodMetrics;
use serde::{Deserialize, Serialize};

/// Mean and sample standard deviation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanStd {
    /// Mean.
    pub mean: f64,
    /// Standard deviation with n - 1; absent for a single value.
    pub std: Option<f64>,
}

/// Mean and sample standard deviation of one figure over seeds; `None` for no values.
pub fn mean_std(values: &[f64]) -> Option<MeanStd> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
    (!values.is_empty()).then(|| MeanStd {
        mean,
        std: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()),
    })
}

/// The plain mean over OOD sets (all, or a group such as near or far), as papers report it; `None` for no sets.
///
/// Rates are averaged; `n_ood` and `ties` are summed; `n_id` is the first set's, since the ID images are the same. No single
/// threshold belongs to an average, so thresholds are NaN.
pub fn average(sets: &[OodMetrics]) -> Option<OodMetrics> {
    let first = sets.first()?;
    let mean =
        |figure: fn(&OodMetrics) -> f64| sets.iter().map(figure).sum::<f64>() / sets.len() as f64;
    Some(OodMetrics {
        n_id: first.n_id,
        n_ood: sets.iter().map(|set| set.n_ood).sum(),
        auroc: mean(|set| set.auroc),
        aupr_in: mean(|set| set.aupr_in),
        aupr_out: mean(|set| set.aupr_out),
        fpr95: mean(|set| set.fpr95),
        fpr_at_tpr_ge_95: mean(|set| set.fpr_at_tpr_ge_95),
        fpr95_openood: mean(|set| set.fpr95_openood),
        aupr_in_openood: mean(|set| set.aupr_in_openood),
        aupr_out_openood: mean(|set| set.aupr_out_openood),
        threshold95: f64::NAN,
        detection_accuracy: mean(|set| set.detection_accuracy),
        detection_threshold: f64::NAN,
        balanced_accuracy: mean(|set| set.balanced_accuracy),
        balanced_threshold: f64::NAN,
        ties: sets.iter().map(|set| set.ties).sum(),
    })
}

/// How a hyperparameter was chosen. Every row of a metrics table says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// Named in the recipe.
    Fixed,
    /// The best on validation OOD images that are not tested, by the largest AUROC - FPR95.
    Validation,
    /// The best on the tested images themselves, for each OOD set apart: an upper bound of AUROC - FPR95 (not of either
    /// figure alone), shown beside honest rows only.
    Oracle,
    /// One value for all OOD sets, that with the largest mean of AUROC - FPR95 on the tested images: an upper bound, too.
    OracleShared,
}

impl Selection {
    /// The word for tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Selection::Fixed => "fixed",
            Selection::Validation => "validation",
            Selection::Oracle => "oracle",
            Selection::OracleShared => "oracle-shared",
        }
    }
}

/// Index of the candidate with the largest AUROC - FPR95, the first of equals. Whether that is `validation` or `oracle`
/// depends on which images the figures come from.
///
/// # Errors
/// [`OodError::Metric`] for no candidates.
pub fn select_best(candidates: &[OodMetrics]) -> Result<usize, OodError> {
    let mut best: Option<(usize, f64)> = None;
    for (i, candidate) in candidates.iter().enumerate() {
        let criterion = candidate.selection_criterion();
        if best.is_none_or(|(_, value)| criterion > value) {
            best = Some((i, criterion));
        }
    }
    best.map(|(i, _)| i).ok_or_else(|| OodError::Metric {
        name: "selection".to_owned(),
        problem: "has no candidates".to_owned(),
    })
}
