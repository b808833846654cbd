//! The false positive rate at 95% recall, in the three readings that papers use, and the threshold for a recall.

use crate::error::OodError;
use crate::metrics::sort::{Score, sorted_keys, value};

/// The recall at which false positives are counted.
const RECALL: f64 = 0.95;

/// A threshold, as the images at or above it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    pub(crate) threshold: f64,
    /// ID images at or above.
    pub(crate) tp: u64,
    /// OOD images at or above.
    pub(crate) fp: u64,
}

/// The rule of MCM, LoCoOp and NegLabel: of all thresholds the one whose recall is nearest to 0.95 in f64; among equals
/// the larger recall, then the larger false positive rate, but at full recall the smallest.
///
/// Recall only grows as the threshold falls, so two points compete: the last below 0.95 and the first of at least 0.95.
#[derive(Debug, Clone)]
pub(crate) struct NearestRecall {
    total: u64,
    /// The smallest number of ID images with recall of at least 0.95.
    enough: u64,
    below: Option<Point>,
    reached: Option<Point>,
}

impl NearestRecall {
    pub(crate) fn new(total: u64) -> Self {
        // Found by the comparison itself, since 0.95 * total may round either way.
        let guess = (RECALL * total as f64) as u64;
        let enough = (guess.saturating_sub(2)..=total)
            .find(|&tp| tp as f64 / total as f64 >= RECALL)
            .unwrap_or(total);
        Self {
            total,
            enough,
            below: None,
            reached: None,
        }
    }

    /// Takes the next lower threshold.
    #[inline]
    pub(crate) fn push(&mut self, point: Point) {
        if point.tp < self.enough {
            self.below = Some(point);
        } else if self
            .reached
            .is_none_or(|reached| reached.tp == point.tp && point.tp < self.total)
        {
            self.reached = Some(point);
        }
    }

    /// The chosen threshold; `None` before full recall was seen.
    pub(crate) fn nearest(&self) -> Option<Point> {
        let distance = |point: Point| (point.tp as f64 / self.total as f64 - RECALL).abs();
        match (self.reached, self.below) {
            (Some(reached), Some(below)) if distance(below) < distance(reached) => Some(below),
            (reached, _) => reached,
        }
    }
}

/// The first threshold, from the highest, with recall of at least 0.95.
#[derive(Debug, Clone, Default)]
pub(crate) struct FirstRecall {
    fp: Option<u64>,
}

impl FirstRecall {
    /// Takes the next lower threshold of `total` ID images.
    pub(crate) fn push(&mut self, point: Point, total: u64) {
        if self.fp.is_none() && point.tp as f64 / total as f64 >= RECALL {
            self.fp = Some(point.fp);
        }
    }

    /// OOD images at or above that threshold.
    pub(crate) fn false_positives(&self) -> Option<u64> {
        self.fp
    }
}

/// OpenOOD's rule (`openood/evaluators/metrics.py`): OOD is positive, thresholds come lowest score first, the first with a
/// true positive rate of at least 0.95 counts. scikit-learn's `roc_curve`, which it calls, first drops points in the middle
/// of a straight piece, that is where two neighbouring scores have the same numbers of ID and OOD images; so do we.
///
/// The walk comes from the other end, so the last point that still qualifies is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenOodRecall {
    previous: Option<(u64, u64)>,
    /// ID images at or below the chosen threshold.
    id_below: Option<u64>,
    /// The same for the latest score, if only its being the last of the walk can keep it.
    pending: Option<u64>,
}

impl OpenOodRecall {
    /// Takes the next lower score: images that have it, and images at or below it.
    pub(crate) fn push(
        &mut self,
        (n_id, n_ood): (u64, u64),
        (id_below, ood_below): (u64, u64),
        total_ood: u64,
    ) {
        self.pending = None;
        if ood_below as f64 / total_ood as f64 >= RECALL {
            if self.previous == Some((n_id, n_ood)) {
                self.pending = Some(id_below);
            } else {
                self.id_below = Some(id_below);
            }
        }
        self.previous = Some((n_id, n_ood));
    }

    /// ID images at or below the chosen threshold.
    pub(crate) fn false_positives(&self) -> Option<u64> {
        // The lowest score ends the curve and is never dropped.
        self.pending.or(self.id_below)
    }
}

/// The highest threshold at which at least the share `tpr` of `scores` lies at or above it: an operating point fitted on
/// in-distribution validation scores.
///
/// # Errors
/// [`OodError::Metric`] for no scores or `tpr` outside (0, 1], [`OodError::NanScore`].
pub fn threshold_at_tpr<S: Score>(scores: &[S], tpr: f64) -> Result<f64, OodError> {
    if scores.is_empty() || !(tpr > 0.0 && tpr <= 1.0) {
        return Err(OodError::Metric {
            name: "threshold".to_owned(),
            problem: format!(
                "needs scores and a true positive rate in (0, 1], found {} scores and {tpr}",
                scores.len()
            ),
        });
    }
    let keys = sorted_keys("scores", scores)?;
    let n = keys.len();
    let guess = ((tpr * n as f64) as usize).saturating_sub(2).max(1);
    let above = (guess..n)
        .find(|&above| above as f64 / n as f64 >= tpr)
        .unwrap_or(n);
    Ok(value::<S>(keys[n - above]))
}
