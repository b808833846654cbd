//! Bootstrap intervals of AUROC and FPR95, and of their difference between two detectors.
//!
//! A resample draws as many ID images from the ID images, and as many OOD images from the OOD images, with replacement
//! (stratified), and is the number of times that each image was drawn. The same draws serve every detector, so detectors
//! are compared on the same resampled images. Scores are sorted once; a resample is then one pass over the sorted images
//! that adds up their counts. Draws come from the seed and the resample's number alone, so the result does not depend on
//! the number of threads.

use crate::error::OodError;
use crate::metrics::recall::{NearestRecall, Point};
use crate::metrics::sort::keys;
use clipood_core::SplitMix64;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How to resample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BootstrapOptions {
    /// Number of resamples, at least 1.
    pub resamples: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// Share of resamples inside an interval, in (0, 1).
    pub level: f64,
}

impl Default for BootstrapOptions {
    /// 1,000 resamples, seed 0, 95%.
    fn default() -> Self {
        Self {
            resamples: 1000,
            seed: 0,
            level: 0.95,
        }
    }
}

/// ID and OOD scores of one detector, the images in the same order for every detector.
#[derive(Debug, Clone, Copy)]
pub struct ScorePair<'a> {
    /// Scores of the ID images.
    pub id: &'a [f32],
    /// Scores of the OOD images.
    pub ood: &'a [f32],
}

/// Ends of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub lo: f64,
    /// Upper end.
    pub hi: f64,
}

/// Percentile intervals of one detector.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MetricIntervals {
    /// Of AUROC.
    pub auroc: Interval,
    /// Of FPR95 (nearest recall).
    pub fpr95: Interval,
}

/// How one detector differs from another over the same resamples: first less second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// Interval of the difference in AUROC.
    pub auroc: Interval,
    /// Interval of the difference in FPR95.
    pub fpr95: Interval,
    /// Share of resamples where the first has the larger AUROC, ties counting one half.
    pub auroc_larger: f64,
    /// Share of resamples where the first has the smaller FPR95, ties counting one half.
    pub fpr95_smaller: f64,
}

/// Percentile intervals of every detector, over the same resamples. Cost: one sort a detector, then
/// `resamples * (1 + detectors) * images` steps on all threads.
///
/// # Errors
/// [`OodError::Metric`] for empty lists, lists of different lengths, no resamples or a level outside (0, 1);
/// [`OodError::NanScore`].
pub fn bootstrap(
    pairs: &[ScorePair<'_>],
    options: &BootstrapOptions,
) -> Result<Vec<MetricIntervals>, OodError> {
    let resamples = Resamples::draw(pairs, options)?;
    Ok((0..pairs.len()).map(|d| resamples.interval(d)).collect())
}

/// Differences of two detectors over the same resamples.
///
/// # Errors
/// As [`bootstrap`].
pub fn paired_bootstrap(
    first: &ScorePair<'_>,
    second: &ScorePair<'_>,
    options: &BootstrapOptions,
) -> Result<PairedDifference, OodError> {
    Ok(Resamples::draw(&[*first, *second], options)?.difference(0, 1))
}

/// The figures of several detectors in every resample, from which intervals, intervals of averages and intervals of
/// differences are taken.
#[derive(Debug, Clone)]
pub struct Resamples {
    /// `[resample][detector]`.
    samples: Vec<Vec<Sample>>,
    level: f64,
}

impl Resamples {
    /// Draws the resamples of one OOD set.
    ///
    /// # Errors
    /// As [`bootstrap`].
    pub fn draw(pairs: &[ScorePair<'_>], options: &BootstrapOptions) -> Result<Self, OodError> {
        Ok(Self {
            samples: resample(pairs, options)?,
            level: options.level,
        })
    }

    /// The average over several OOD sets that share the ID images and the options, resample by resample: the mean of the
    /// figures of the sets. A resample draws its ID images first, so they are the same for all sets, and the interval of an
    /// average takes into account that the sets share them. `None` for no sets, or for sets with different numbers of
    /// resamples or detectors.
    pub fn average(sets: &[&Resamples]) -> Option<Self> {
        let first = *sets.first()?;
        let shape = |r: &Resamples| (r.samples.len(), r.samples.first().map_or(0, Vec::len));
        if sets.iter().any(|other| shape(other) != shape(first)) {
            return None;
        }
        let n = sets.len() as f64;
        let (resamples, detectors) = shape(first);
        let mean = |number: usize, detector: usize, figure: fn(&Sample) -> f64| {
            let figures = sets
                .iter()
                .map(|set| figure(&set.samples[number][detector]));
            figures.sum::<f64>() / n
        };
        let sample = |number: usize, detector: usize| Sample {
            auroc: mean(number, detector, |s| s.auroc),
            fpr95: mean(number, detector, |s| s.fpr95),
        };
        let samples = (0..resamples)
            .map(|number| (0..detectors).map(|d| sample(number, d)).collect())
            .collect();
        Some(Self {
            samples,
            level: first.level,
        })
    }

    /// The intervals of one detector.
    ///
    /// # Panics
    /// If there is no such detector.
    pub fn interval(&self, detector: usize) -> MetricIntervals {
        let samples = || self.samples.iter().map(|s| s[detector]);
        MetricIntervals {
            auroc: interval(samples().map(|s| s.auroc), self.level),
            fpr95: interval(samples().map(|s| s.fpr95), self.level),
        }
    }

    /// How two of the detectors differ: `first` less `second`.
    ///
    /// # Panics
    /// If there is no such detector.
    pub fn difference(&self, first: usize, second: usize) -> PairedDifference {
        let samples = || self.samples.iter().map(|s| (s[first], s[second]));
        let auroc: Vec<f64> = samples().map(|(a, b)| a.auroc - b.auroc).collect();
        let fpr95: Vec<f64> = samples().map(|(a, b)| a.fpr95 - b.fpr95).collect();
        PairedDifference {
            auroc: interval(auroc.iter().copied(), self.level),
            fpr95: interval(fpr95.iter().copied(), self.level),
            auroc_larger: share_above_zero(&auroc),
            fpr95_smaller: 1.0 - share_above_zero(&fpr95),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    auroc: f64,
    fpr95: f64,
}

/// Figures of every detector in every resample.
fn resample(
    pairs: &[ScorePair<'_>],
    options: &BootstrapOptions,
) -> Result<Vec<Vec<Sample>>, OodError> {
    let BootstrapOptions {
        resamples,
        seed,
        level,
    } = *options;
    if resamples == 0 || !(level > 0.0 && level < 1.0) {
        return Err(problem(format!(
            "needs at least 1 resample and a level in (0, 1), found {resamples} and {level}"
        )));
    }
    let Some(first) = pairs.first() else {
        return Ok(vec![Vec::new(); resamples]);
    };
    let (n_id, n_ood) = (first.id.len(), first.ood.len());
    if n_id == 0 || n_ood == 0 || n_id + n_ood > LAST as usize {
        return Err(problem(format!(
            "both sides need images, and together at most {LAST}, found {n_id} in-distribution and {n_ood} OOD"
        )));
    }
    if let Some(other) = pairs
        .iter()
        .find(|pair| (pair.id.len(), pair.ood.len()) != (n_id, n_ood))
    {
        return Err(problem(format!(
            "all detectors must score the same images, found {n_id} + {n_ood} and {} + {}",
            other.id.len(),
            other.ood.len()
        )));
    }
    let orders: Vec<Vec<u32>> = pairs
        .par_iter()
        .map(|pair| descending_order(pair))
        .collect::<Result<_, _>>()?;
    Ok((0..resamples)
        .into_par_iter()
        .map_init(
            || vec![0u32; n_id + n_ood],
            |counts, number| {
                counts.fill(0);
                let mut rng = SplitMix64::keyed(seed, "bootstrap", number as u64);
                draw(&mut rng, &mut counts[..n_id]);
                draw(&mut rng, &mut counts[n_id..]);
                orders
                    .iter()
                    .map(|order| weighted(order, counts, n_id))
                    .collect()
            },
        )
        .collect())
}

/// As many draws as there are places.
fn draw(rng: &mut SplitMix64, counts: &mut [u32]) {
    let n = counts.len() as u64;
    for _ in 0..n {
        counts[rng.below(n) as usize] += 1;
    }
}

/// Marks the last image of a group of equal scores; image numbers stay below.
const LAST: u32 = 1 << 31;

/// Image numbers (ID first) by falling score, the last of each group of equals marked.
fn descending_order(pair: &ScorePair<'_>) -> Result<Vec<u32>, OodError> {
    let mut keyed: Vec<(u32, u32)> = keys("id", pair.id)?
        .into_iter()
        .chain(keys("ood", pair.ood)?)
        .zip(0..)
        .collect();
    keyed.par_sort_unstable_by(|a, b| b.cmp(a));
    let mut order: Vec<u32> = keyed.iter().map(|&(_, image)| image).collect();
    for i in 0..order.len() {
        if keyed.get(i + 1).is_none_or(|next| next.0 != keyed[i].0) {
            order[i] |= LAST;
        }
    }
    Ok(order)
}

/// AUROC and FPR95 where image i counts `counts[i]` times.
fn weighted(order: &[u32], counts: &[u32], n_id: usize) -> Sample {
    let n_ood = counts.len() - n_id;
    let mut recall = NearestRecall::new(n_id as u64);
    let (mut tp, mut fp) = (0u64, 0u64);
    let (mut group_tp, mut group_fp) = (0u64, 0u64);
    // At most 2 * n_id * n_ood, which 2^31 images keep below 2^61.
    let mut ordered_pairs = 0u64;
    for &entry in order {
        let image = (entry & !LAST) as usize;
        let count = u64::from(counts[image]);
        let is_id = image < n_id;
        group_tp += if is_id { count } else { 0 };
        group_fp += if is_id { 0 } else { count };
        if entry & LAST != 0 {
            // A score that nobody drew repeats the point before it, which changes nothing, and saves a branch that no
            // processor can predict.
            ordered_pairs += group_fp * (2 * tp + group_tp);
            tp += group_tp;
            fp += group_fp;
            (group_tp, group_fp) = (0, 0);
            recall.push(Point {
                threshold: 0.0,
                tp,
                fp,
            });
        }
    }
    let fp = recall.nearest().map_or(fp, |point| point.fp);
    Sample {
        auroc: ordered_pairs as f64 / (2.0 * n_id as f64 * n_ood as f64),
        fpr95: fp as f64 / n_ood as f64,
    }
}

/// The central `level` of values, by linear interpolation between order statistics (numpy's default).
fn interval(values: impl Iterator<Item = f64>, level: f64) -> Interval {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let quantile = |q: f64| {
        let at = q * (sorted.len() - 1) as f64;
        let below = at.floor() as usize;
        let above = (below + 1).min(sorted.len() - 1);
        sorted[below] + (at - below as f64) * (sorted[above] - sorted[below])
    };
    Interval {
        lo: quantile(0.5 * (1.0 - level)),
        hi: quantile(0.5 * (1.0 + level)),
    }
}

fn share_above_zero(values: &[f64]) -> f64 {
    let sum: f64 = values
        .iter()
        .map(|&x| {
            if x > 0.0 {
                1.0
            } else if x == 0.0 {
                0.5
            } else {
                0.0
            }
        })
        .sum();
    sum / values.len() as f64
}

fn problem(problem: String) -> OodError {
    OodError::Metric {
        name: "bootstrap".to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::ood_metrics;
    use proptest::prelude::*;

    #[test]
    fn an_average_over_sets_is_taken_resample_by_resample() {
        let options = BootstrapOptions {
            resamples: 200,
            ..BootstrapOptions::default()
        };
        let id = [0.9f32, 0.7, 0.6, 0.55, 0.2];
        let (near, far) = ([0.65f32, 0.5, 0.3], [0.4f32, 0.1, 0.05]);
        let draw = |ood: &[f32]| Resamples::draw(&[ScorePair { id: &id, ood }], &options).unwrap();
        let (a, b) = (draw(&near), draw(&far));
        // Of a set and itself: its own interval.
        let same = Resamples::average(&[&a, &a]).unwrap();
        assert_eq!(same.interval(0), a.interval(0));
        let both = Resamples::average(&[&a, &b]).unwrap();
        for (number, sample) in both.samples.iter().enumerate() {
            let expected = (a.samples[number][0].auroc + b.samples[number][0].auroc) / 2.0;
            assert!((sample[0].auroc - expected).abs() < 1e-15);
        }
        // The figure itself lies in its interval.
        let figure = |ood: &[f32]| ood_metrics(&id, ood).unwrap().auroc;
        let mean = (figure(&near) + figure(&far)) / 2.0;
        let interval = both.interval(0).auroc;
        assert!(interval.lo <= mean && mean <= interval.hi, "{interval:?}");
        assert!(Resamples::average(&[]).is_none());
    }

    /// The list with image i repeated as often as it was drawn.
    fn repeated(scores: &[f32], counts: &[u32]) -> Vec<f32> {
        let each = scores.iter().zip(counts);
        each.flat_map(|(&x, &n)| std::iter::repeat_n(x, n as usize))
            .collect()
    }

    proptest! {
        #[test]
        fn a_resample_has_the_figures_of_the_repeated_images(
            id in prop::collection::vec(-5i8..6, 1..50),
            ood in prop::collection::vec(-6i8..5, 1..50),
            seed in any::<u64>(),
        ) {
            let wide = |list: Vec<i8>| -> Vec<f32> { list.into_iter().map(f32::from).collect() };
            let (id, ood) = (wide(id), wide(ood));
            let mut counts = vec![0; id.len() + ood.len()];
            let mut rng = SplitMix64::keyed(seed, "test", 0);
            draw(&mut rng, &mut counts[..id.len()]);
            draw(&mut rng, &mut counts[id.len()..]);
            let order = descending_order(&ScorePair { id: &id, ood: &ood }).unwrap();
            let found = weighted(&order, &counts, id.len());
            let expected = ood_metrics(
                &repeated(&id, &counts[..id.len()]),
                &repeated(&ood, &counts[id.len()..]),
            )
            .unwrap();
            prop_assert!((found.auroc - expected.auroc).abs() < 1e-12);
            prop_assert_eq!(found.fpr95, expected.fpr95);
        }
    }
}
