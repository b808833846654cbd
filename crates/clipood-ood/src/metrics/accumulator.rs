//! The walk over distinct scores, highest first, that every figure comes from.

use crate::error::OodError;
use crate::metrics::recall::{FirstRecall, NearestRecall, OpenOodRecall, Point};
use crate::metrics::sort::{Score, sorted_keys, value};
use serde::{Deserialize, Serialize};

/// Below this share of distinct scores, ties (which count as half in the AUROC) hide how a detector ranks many images, as
/// softmax scores that saturate do.
pub const LOW_RESOLUTION: f64 = 0.9;

/// Figures of one pair of score lists. Rates are in [0, 1]; names are the columns of the metrics table.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OodMetrics {
    /// In-distribution images.
    pub n_id: u64,
    /// OOD images.
    pub n_ood: u64,
    /// Probability that an ID image scores above an OOD image, ties counting one half.
    pub auroc: f64,
    /// Average precision with ID positive.
    pub aupr_in: f64,
    /// Average precision with OOD positive.
    pub aupr_out: f64,
    /// False positive rate where ID recall is nearest to 0.95 (MCM, LoCoOp).
    pub fpr95: f64,
    /// False positive rate at the first threshold with ID recall of at least 0.95.
    pub fpr_at_tpr_ge_95: f64,
    /// OOD positive: share of ID images at or below the first threshold with OOD recall of at least 0.95 (OpenOOD).
    pub fpr95_openood: f64,
    /// Area under the precision-recall curve by trapezoids, ID positive (OpenOOD).
    pub aupr_in_openood: f64,
    /// Area under the precision-recall curve by trapezoids, OOD positive (OpenOOD).
    pub aupr_out_openood: f64,
    /// The threshold of `fpr95`: an image is ID if its score is at least this.
    pub threshold95: f64,
    /// Best share of right decisions over all thresholds.
    pub detection_accuracy: f64,
    /// Its threshold, the highest of equals; infinite if calling every image OOD is best.
    pub detection_threshold: f64,
    /// Best mean of the ID share and the OOD share of right decisions.
    pub balanced_accuracy: f64,
    /// Its threshold, the highest of equals; infinite if no threshold beats chance.
    pub balanced_threshold: f64,
    /// Images less distinct scores.
    pub ties: u64,
}

impl OodMetrics {
    /// Number of distinct scores.
    pub fn distinct(&self) -> u64 {
        (self.n_id + self.n_ood).saturating_sub(self.ties)
    }

    /// Distinct scores as a share of the images, 0 to 1.
    pub fn resolution(&self) -> f64 {
        self.distinct() as f64 / (self.n_id + self.n_ood) as f64
    }

    /// Whether that share is below [`LOW_RESOLUTION`].
    pub fn has_low_resolution(&self) -> bool {
        self.resolution() < LOW_RESOLUTION
    }

    /// AUROC - FPR95, what hyperparameters are chosen by.
    pub fn selection_criterion(&self) -> f64 {
        self.auroc - self.fpr95
    }
}

/// A sum whose rounding errors are carried along (Neumaier), so that 10^7 terms keep 1e-15.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    fn add(&mut self, x: f64) {
        let next = self.sum + x;
        self.lost += if self.sum.abs() >= x.abs() {
            (self.sum - next) + x
        } else {
            (x - next) + self.sum
        };
        self.sum = next;
    }

    fn total(&self) -> f64 {
        self.sum + self.lost
    }
}

/// Takes distinct scores, highest first, with the number of ID and OOD images that have each.
///
/// The totals are needed from the start, because OOD-positive figures count from the low end.
///
/// ```
/// use clipood_ood::metrics::OodAccumulator;
/// # fn main() -> Result<(), clipood_ood::OodError> {
/// let mut walk = OodAccumulator::new(3, 2)?;
/// walk.push(0.9, 2, 0)?;
/// walk.push(0.5, 1, 1)?;
/// walk.push(0.1, 0, 1)?;
/// assert_eq!(walk.finish()?.auroc, 5.5 / 6.0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct OodAccumulator {
    n_id: u64,
    n_ood: u64,
    last: f64,
    tp: u64,
    fp: u64,
    distinct: u64,
    /// Twice the number of (ID, OOD) pairs in the right order, ties counting 1.
    ordered_pairs: u128,
    average_in: Sum,
    average_out: Sum,
    trapezoid_in: Sum,
    trapezoid_out: Sum,
    precision_in: f64,
    /// OOD images with the previous score, and the OOD precision at it: its trapezoid ends at the next score.
    previous_out: Option<(f64, f64)>,
    nearest: NearestRecall,
    first: FirstRecall,
    openood: OpenOodRecall,
    best: Best,
}

/// The thresholds with the most right decisions so far, starting from the one above every score.
#[derive(Debug, Clone)]
struct Best {
    /// Right decisions less OOD images, and its threshold.
    accuracy: (i128, f64),
    /// Balanced accuracy above one half, in units of 1 / (2 n_id n_ood), and its threshold.
    balanced: (i128, f64),
}

impl OodAccumulator {
    /// A walk over `n_id` ID and `n_ood` OOD images.
    ///
    /// # Errors
    /// [`OodError::Metric`] if either is 0.
    pub fn new(n_id: u64, n_ood: u64) -> Result<Self, OodError> {
        if n_id == 0 || n_ood == 0 {
            return Err(problem(format!(
                "both sides need images, found {n_id} in-distribution and {n_ood} OOD"
            )));
        }
        Ok(Self {
            n_id,
            n_ood,
            last: f64::INFINITY,
            tp: 0,
            fp: 0,
            distinct: 0,
            ordered_pairs: 0,
            average_in: Sum::default(),
            average_out: Sum::default(),
            trapezoid_in: Sum::default(),
            trapezoid_out: Sum::default(),
            precision_in: 1.0,
            previous_out: None,
            nearest: NearestRecall::new(n_id),
            first: FirstRecall::default(),
            openood: OpenOodRecall::default(),
            best: Best {
                accuracy: (0, f64::INFINITY),
                balanced: (0, f64::INFINITY),
            },
        })
    }

    /// Takes the next lower score, which `n_id` ID and `n_ood` OOD images have.
    ///
    /// # Errors
    /// [`OodError::Metric`] if the score is not below the one before, or more images come than were announced.
    pub fn push(&mut self, score: f64, n_id: u64, n_ood: u64) -> Result<(), OodError> {
        let descends = score < self.last || (self.distinct == 0 && !score.is_nan());
        if !descends {
            return Err(problem(format!(
                "scores must come in descending order, found {score} after {}",
                self.last
            )));
        }
        let (id_above, ood_above) = (self.tp, self.fp);
        let too_many = |total: u64, above: u64, n: u64| n > total - above;
        if too_many(self.n_id, id_above, n_id) || too_many(self.n_ood, ood_above, n_ood) {
            return Err(problem(format!(
                "more images than the announced {} in-distribution and {} OOD",
                self.n_id, self.n_ood
            )));
        }
        self.last = score;
        self.distinct += 1;
        self.tp += n_id;
        self.fp += n_ood;
        self.ordered_pairs += u128::from(n_ood) * u128::from(2 * id_above + n_id);

        let precision = self.tp as f64 / (self.tp + self.fp) as f64;
        if n_id > 0 {
            self.average_in.add(n_id as f64 * precision);
            let height = 0.5 * (precision + self.precision_in);
            self.trapezoid_in.add(n_id as f64 * height);
        }
        self.precision_in = precision;

        let (id_below, ood_below) = (self.n_id - id_above, self.n_ood - ood_above);
        let precision = ood_below as f64 / (id_below + ood_below) as f64;
        self.average_out.add(n_ood as f64 * precision);
        if let Some((n, previous)) = self.previous_out.replace((n_ood as f64, precision)) {
            self.trapezoid_out.add(n * 0.5 * (previous + precision));
        }

        let point = Point {
            threshold: score,
            tp: self.tp,
            fp: self.fp,
        };
        self.nearest.push(point);
        self.first.push(point, self.n_id);
        self.openood
            .push((n_id, n_ood), (id_below, ood_below), self.n_ood);

        let gain = i128::from(self.tp) - i128::from(self.fp);
        if gain > self.best.accuracy.0 {
            self.best.accuracy = (gain, score);
        }
        let gain = i128::from(self.tp) * i128::from(self.n_ood)
            - i128::from(self.fp) * i128::from(self.n_id);
        if gain > self.best.balanced.0 {
            self.best.balanced = (gain, score);
        }
        Ok(())
    }

    /// The figures, once every image has been taken.
    ///
    /// # Errors
    /// [`OodError::Metric`] if fewer images came than were announced.
    pub fn finish(mut self) -> Result<OodMetrics, OodError> {
        let nearest = self.nearest.nearest();
        let first = self.first.false_positives();
        let openood = self.openood.false_positives();
        let (true, true, Some(nearest), Some(first), Some(openood)) = (
            self.tp == self.n_id,
            self.fp == self.n_ood,
            nearest,
            first,
            openood,
        ) else {
            return Err(problem(format!(
                "{} in-distribution and {} OOD images were announced, found {} and {}",
                self.n_id, self.n_ood, self.tp, self.fp
            )));
        };
        if let Some((n, precision)) = self.previous_out {
            // scikit-learn's curve starts at recall 0 with precision 1.
            self.trapezoid_out.add(n * 0.5 * (precision + 1.0));
        }
        let (p, n) = (self.n_id as f64, self.n_ood as f64);
        Ok(OodMetrics {
            n_id: self.n_id,
            n_ood: self.n_ood,
            auroc: self.ordered_pairs as f64 / (2.0 * p * n),
            aupr_in: self.average_in.total() / p,
            aupr_out: self.average_out.total() / n,
            fpr95: nearest.fp as f64 / n,
            fpr_at_tpr_ge_95: first as f64 / n,
            fpr95_openood: openood as f64 / p,
            aupr_in_openood: self.trapezoid_in.total() / p,
            aupr_out_openood: self.trapezoid_out.total() / n,
            threshold95: nearest.threshold,
            detection_accuracy: (self.best.accuracy.0 as f64 + n) / (p + n),
            detection_threshold: self.best.accuracy.1,
            balanced_accuracy: 0.5 + 0.5 * self.best.balanced.0 as f64 / (p * n),
            balanced_threshold: self.best.balanced.1,
            ties: self.n_id + self.n_ood - self.distinct,
        })
    }
}

fn problem(problem: String) -> OodError {
    OodError::Metric {
        name: "OOD metrics".to_owned(),
        problem,
    }
}

/// The figures of two lists of scores, exactly. Cost: a radix sort of each (side by side) and one pass.
///
/// # Errors
/// [`OodError::NanScore`] naming the list (`id` or `ood`) and index, [`OodError::Metric`] for an empty list.
///
/// ```
/// use clipood_ood::metrics::ood_metrics;
/// let figures = ood_metrics(&[0.9f32, 0.8, 0.3], &[0.4f32, 0.1])?;
/// assert_eq!(figures.auroc, 5.0 / 6.0);
/// assert_eq!(figures.fpr95, 0.5);
/// # Ok::<(), clipood_ood::OodError>(())
/// ```
pub fn ood_metrics<S: Score>(id: &[S], ood: &[S]) -> Result<OodMetrics, OodError> {
    let (id, ood) = rayon::join(|| sorted_keys("id", id), || sorted_keys("ood", ood));
    let (id, ood) = (id?, ood?);
    let mut walk = OodAccumulator::new(id.len() as u64, ood.len() as u64)?;
    let (mut i, mut o) = (id.len(), ood.len());
    while let Some(&key) = id[..i].last().max(ood[..o].last()) {
        let (i_start, o_start) = (i, o);
        while i > 0 && id[i - 1] == key {
            i -= 1;
        }
        while o > 0 && ood[o - 1] == key {
            o -= 1;
        }
        walk.push(value::<S>(key), (i_start - i) as u64, (o_start - o) as u64)?;
    }
    walk.finish()
}
