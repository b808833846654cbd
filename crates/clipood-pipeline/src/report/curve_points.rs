//! ROC and precision-recall curves and histograms of scores.

/// Points of a curve from left to right.
pub type Points = Vec<(f64, f64)>;

/// The ROC curve (false positive rate, true positive rate) and the precision-recall curve (recall, precision) with ID as the
/// positive class, each with at most `most` points. Equal scores make one step.
pub fn roc_and_pr(id: &[f32], ood: &[f32], most: usize) -> (Points, Points) {
    let mut all: Vec<(f32, bool)> = id.iter().map(|s| (*s, true)).collect();
    all.extend(ood.iter().map(|s| (*s, false)));
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (n_id, n_ood) = (id.len().max(1) as f64, ood.len().max(1) as f64);
    let (mut tp, mut fp) = (0u64, 0u64);
    let mut roc = vec![(0.0, 0.0)];
    let mut pr = Vec::new();
    for (place, (score, is_id)) in all.iter().enumerate() {
        tp += u64::from(*is_id);
        fp += u64::from(!*is_id);
        let group_ends = all.get(place + 1).is_none_or(|next| next.0 != *score);
        if group_ends {
            let recall = tp as f64 / n_id;
            roc.push((fp as f64 / n_ood, recall));
            pr.push((recall, tp as f64 / (tp + fp) as f64));
        }
    }
    (thinned(roc, most), thinned(pr, most))
}

/// Some of the points: those that lie at least a step apart in one of the coordinates, and both ends.
fn thinned(points: Points, most: usize) -> Points {
    if points.len() <= most || most < 4 {
        return points;
    }
    // A rising curve from corner to corner has a length of at most 2 in steps along the axes.
    let step = 2.0 / (most - 2) as f64;
    let last = points.len() - 1;
    let mut kept: Points = Vec::new();
    for (place, point) in points.into_iter().enumerate() {
        let far = kept.last().is_none_or(|previous: &(f64, f64)| {
            (point.0 - previous.0).abs() + (point.1 - previous.1).abs() >= step
        });
        if far || place == last {
            kept.push(point);
        }
    }
    // A precision that goes up and down is longer.
    if kept.len() > most {
        let every = kept.len().div_ceil(most);
        let end = kept.len() - 1;
        let places = kept.into_iter().enumerate();
        kept = places
            .filter(|(place, _)| place % every == 0 || *place == end)
            .map(|(_, p)| p)
            .collect();
    }
    kept
}

/// Ends for the histograms of several lists of scores: of all finite scores without the outermost 0.5% on each side, so that
/// a few outliers do not press everything into one bin. `None` without finite scores.
pub fn histogram_ends<'a>(lists: impl Iterator<Item = &'a [f32]>) -> Option<(f64, f64)> {
    let mut all: Vec<f32> = lists.flatten().copied().filter(|s| s.is_finite()).collect();
    if all.is_empty() {
        return None;
    }
    let margin = all.len() / 200;
    let last = all.len() - 1;
    let mut at = |place: usize| f64::from(*all.select_nth_unstable_by(place, f32::total_cmp).1);
    let (low, high) = (at(margin), at(last - margin));
    match high > low {
        true => Some((low, high)),
        // All but a few are equal.
        false => Some((low - 0.5, low + 0.5)),
    }
}

/// Share of the scores in each of `bins` equal bins; scores beyond the ends are in the outermost ones.
pub fn histogram(scores: &[f32], (low, high): (f64, f64), bins: usize) -> Vec<f64> {
    let mut counts = vec![0u64; bins.max(1)];
    let width = (high - low) / counts.len() as f64;
    let last = counts.len() - 1;
    for score in scores.iter().filter(|s| !s.is_nan()) {
        let bin = (f64::from(*score) - low) / width;
        // A negative number becomes 0, infinity the largest.
        counts[(bin as usize).min(last)] += 1;
    }
    let all = scores.len().max(1) as f64;
    counts.into_iter().map(|count| count as f64 / all).collect()
}

#[cfg(test)]
mod tests {
    use clipood_core::SplitMix64;
    use clipood_ood::metrics::ood_metrics;

    use super::*;

    fn drawn(n: usize, shift: f64, rng: &mut SplitMix64) -> Vec<f32> {
        (0..n)
            .map(|_| (shift + rng.unit() + rng.unit()) as f32)
            .collect()
    }

    fn area(points: &Points) -> f64 {
        points
            .windows(2)
            .map(|p| (p[1].0 - p[0].0) * (p[0].1 + p[1].1) / 2.0)
            .sum()
    }

    #[test]
    fn the_area_below_the_thinned_curve_is_the_auroc() {
        let mut rng = SplitMix64::keyed(1, "curve", 0);
        let (id, ood) = (drawn(20_000, 0.4, &mut rng), drawn(5_000, 0.0, &mut rng));
        let figures = ood_metrics(&id, &ood).unwrap();
        let (roc, pr) = roc_and_pr(&id, &ood, 200);
        assert!(
            roc.len() <= 201 && pr.len() <= 201,
            "{} {}",
            roc.len(),
            pr.len()
        );
        assert!(
            (area(&roc) - figures.auroc).abs() < 2e-3,
            "{} {}",
            area(&roc),
            figures.auroc
        );
        assert_eq!((roc[0], roc[roc.len() - 1]), ((0.0, 0.0), (1.0, 1.0)));
        // Equal scores are one step: half of the square.
        let (flat, _) = roc_and_pr(&[1.0; 5], &[1.0; 5], 200);
        assert_eq!(flat, [(0.0, 0.0), (1.0, 1.0)]);
    }

    #[test]
    fn every_score_is_in_a_bin() {
        let scores = [
            f32::NEG_INFINITY,
            -5.0,
            0.0,
            0.5,
            0.999,
            1.0,
            7.0,
            f32::INFINITY,
        ];
        let shares = histogram(&scores, (0.0, 1.0), 4);
        assert_eq!(shares, [0.375, 0.0, 0.125, 0.5]);
        assert_eq!(histogram(&[], (0.0, 1.0), 4), [0.0; 4]);
        assert_eq!(
            histogram_ends([&[2.0f32; 9][..]].into_iter()),
            Some((1.5, 2.5))
        );
        assert_eq!(histogram_ends([&[f32::NAN][..]].into_iter()), None);
    }
}
