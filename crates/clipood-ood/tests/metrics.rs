//! Every figure against reference values and against a quadratic oracle on scores with many ties.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may panic as tests may"
)]

use clipood_ood::metrics::{
    BootstrapOptions, OodAccumulator, OodMetrics, ScorePair, average, bootstrap, mean_std,
    merge_sorted, ood_metrics, paired_bootstrap, select_best, threshold_at_tpr,
};
use clipood_ood::{OodError, Prediction, metrics};
use proptest::prelude::*;
use serde_json::Value;

#[test]
fn every_figure_holds_its_reference_value() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/metrics.json");
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for case in cases.as_array().unwrap() {
        let scores = |key: &str| -> Vec<f64> {
            let values = case[key].as_array().unwrap();
            values.iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let found = ood_metrics(&scores("id"), &scores("ood")).unwrap();
        let figures = [
            ("auroc", found.auroc),
            ("aupr_in", found.aupr_in),
            ("aupr_out", found.aupr_out),
            ("fpr95", found.fpr95),
            ("openood_fpr95", found.fpr95_openood),
            ("openood_aupr_in", found.aupr_in_openood),
            ("openood_aupr_out", found.aupr_out_openood),
            ("fpr_at_tpr_ge_95", found.fpr_at_tpr_ge_95),
            ("best_balanced_accuracy", found.balanced_accuracy),
            ("best_accuracy", found.detection_accuracy),
        ];
        for (key, value) in figures {
            let expected = case[key].as_f64().unwrap();
            assert!(
                (value - expected).abs() <= 1e-12,
                "{} {key}: {value} instead of {expected}",
                case["name"]
            );
        }
        assert_eq!(case.as_object().unwrap().len(), figures.len() + 3);
    }
}

/// The figures by their definitions: every threshold against every image.
fn oracle(id: &[f64], ood: &[f64]) -> OodMetrics {
    let (p, n) = (id.len() as f64, ood.len() as f64);
    let mut thresholds: Vec<f64> = id.iter().chain(ood).copied().collect();
    thresholds.sort_by(|a, b| b.total_cmp(a));
    thresholds.dedup();
    let at_least = |list: &[f64], t: f64| list.iter().filter(|&&x| x >= t).count() as f64;
    let at_most = |list: &[f64], t: f64| list.iter().filter(|&&x| x <= t).count() as f64;
    let mut pairs = 0.0;
    for a in id {
        for b in ood {
            pairs += if a > b {
                1.0
            } else if a == b {
                0.5
            } else {
                0.0
            };
        }
    }
    // Average precision and trapezoid area of a list of (positives, all) counts.
    let areas = |counts: &[(f64, f64)], positives: f64| {
        let (mut average, mut trapezoid) = (0.0, 0.0);
        let (mut recall, mut precision) = (0.0, 1.0);
        for &(hits, all) in counts {
            let (r, q) = (hits / positives, hits / all);
            average += (r - recall) * q;
            trapezoid += (r - recall) * (q + precision) / 2.0;
            (recall, precision) = (r, q);
        }
        (average, trapezoid)
    };
    let counts_in: Vec<(f64, f64)> = thresholds
        .iter()
        .map(|&t| (at_least(id, t), at_least(id, t) + at_least(ood, t)))
        .collect();
    let counts_out: Vec<(f64, f64)> = thresholds
        .iter()
        .rev()
        .map(|&t| (at_most(ood, t), at_most(id, t) + at_most(ood, t)))
        .collect();
    let (aupr_in, aupr_in_openood) = areas(&counts_in, p);
    let (aupr_out, aupr_out_openood) = areas(&counts_out, n);

    // Nearest recall, from full recall at its smallest false positive rate downwards; the first of equals wins.
    let full = thresholds
        .iter()
        .position(|&t| at_least(id, t) == p)
        .unwrap();
    let mut nearest = thresholds[full];
    for &t in thresholds[..full].iter().rev() {
        let distance = |t: f64| (at_least(id, t) / p - 0.95f64).abs();
        if distance(t) < distance(nearest) {
            nearest = t;
        }
    }
    let first = thresholds
        .iter()
        .find(|&&t| at_least(id, t) / p >= 0.95)
        .unwrap();
    // scikit-learn's curve from the low end, without the points in the middle of straight pieces.
    let points: Vec<(f64, f64)> = thresholds
        .iter()
        .rev()
        .map(|&t| (at_most(id, t), at_most(ood, t)))
        .collect();
    let straight = |i: usize| {
        let step = |i: usize| (points[i].0 - points[i - 1].0, points[i].1 - points[i - 1].1);
        i > 0 && i + 1 < points.len() && step(i) == step(i + 1)
    };
    let openood = (0..points.len())
        .find(|&i| !straight(i) && points[i].1 / n >= 0.95)
        .unwrap();

    let mut best = ((n / (p + n), f64::INFINITY), (0.5, f64::INFINITY));
    for &t in &thresholds {
        let (tp, tn) = (at_least(id, t), n - at_least(ood, t));
        if (tp + tn) / (p + n) > best.0.0 + 1e-13 {
            best.0 = ((tp + tn) / (p + n), t);
        }
        if (tp / p + tn / n) / 2.0 > best.1.0 + 1e-13 {
            best.1 = ((tp / p + tn / n) / 2.0, t);
        }
    }
    OodMetrics {
        n_id: id.len() as u64,
        n_ood: ood.len() as u64,
        auroc: pairs / (p * n),
        aupr_in,
        aupr_out,
        fpr95: at_least(ood, nearest) / n,
        fpr_at_tpr_ge_95: at_least(ood, *first) / n,
        fpr95_openood: points[openood].0 / p,
        aupr_in_openood,
        aupr_out_openood,
        threshold95: nearest,
        detection_accuracy: best.0.0,
        detection_threshold: best.0.1,
        balanced_accuracy: best.1.0,
        balanced_threshold: best.1.1,
        ties: (id.len() + ood.len() - thresholds.len()) as u64,
    }
}

/// Equal up to the rounding of sums; counts, thresholds and rates that are one division must be the same.
fn assert_same(found: &OodMetrics, expected: &OodMetrics) {
    let sums = |m: &OodMetrics| {
        [
            m.auroc,
            m.aupr_in,
            m.aupr_out,
            m.aupr_in_openood,
            m.aupr_out_openood,
            m.detection_accuracy,
            m.balanced_accuracy,
        ]
    };
    for (a, b) in sums(found).into_iter().zip(sums(expected)) {
        assert!((a - b).abs() <= 1e-12, "{found:?}\n{expected:?}");
    }
    let exact = |m: &OodMetrics| {
        (
            [m.n_id, m.n_ood, m.ties],
            [
                m.fpr95,
                m.fpr_at_tpr_ge_95,
                m.fpr95_openood,
                m.threshold95,
                m.detection_threshold,
                m.balanced_threshold,
            ],
        )
    };
    assert_eq!(exact(found), exact(expected), "{found:?}\n{expected:?}");
}

/// Scores with many ties: few levels, both zeros, now and then an infinity.
fn tied(most: usize) -> impl Strategy<Value = Vec<f64>> {
    let score = prop_oneof![
        20 => (-6i32..7).prop_map(|x| f64::from(x) / 4.0),
        2 => Just(-0.0),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
    ];
    prop::collection::vec(score, 1..most)
}

/// Splits scores into parts and chunks, each part sorted highest first.
fn parts(scores: &[f64], cuts: &[usize]) -> Vec<std::vec::IntoIter<Result<Vec<f64>, OodError>>> {
    let count = cuts.first().map_or(1, |cut| cut % 4 + 1);
    (0..count)
        .map(|part| {
            let mut mine: Vec<f64> = scores.iter().copied().skip(part).step_by(count).collect();
            mine.sort_by(|a, b| b.total_cmp(a));
            let mut chunks = vec![Ok(Vec::new())];
            let size = cuts.last().map_or(3, |cut| cut % 5 + 1);
            chunks.extend(mine.chunks(size).map(|chunk| Ok(chunk.to_vec())));
            chunks.into_iter()
        })
        .collect()
}

proptest! {
    #[test]
    fn figures_match_the_quadratic_oracle(id in tied(60), ood in tied(60)) {
        let expected = oracle(&id, &ood);
        assert_same(&ood_metrics(&id, &ood).unwrap(), &expected);
        let narrow = |list: &[f64]| -> Vec<f32> { list.iter().map(|&x| x as f32).collect() };
        assert_same(&ood_metrics(&narrow(&id), &narrow(&ood)).unwrap(), &expected);
    }

    #[test]
    fn a_merge_of_sorted_parts_is_the_same(
        id in tied(80),
        ood in tied(80),
        cuts in prop::collection::vec(0usize..20, 0..3),
    ) {
        let merged = merge_sorted(
            id.len() as u64,
            ood.len() as u64,
            parts(&id, &cuts),
            parts(&ood, &cuts),
        );
        prop_assert_eq!(merged.unwrap(), ood_metrics(&id, &ood).unwrap());
    }

    #[test]
    fn swapping_and_negating_swaps_the_sides(id in tied(40), ood in tied(40)) {
        let negate = |list: &[f64]| -> Vec<f64> { list.iter().map(|x| -x).collect() };
        let plain = ood_metrics(&id, &ood).unwrap();
        let swapped = ood_metrics(&negate(&ood), &negate(&id)).unwrap();
        prop_assert!((plain.auroc - swapped.auroc).abs() < 1e-12);
        prop_assert!((plain.aupr_in - swapped.aupr_out).abs() < 1e-12);
        prop_assert!((plain.aupr_out_openood - swapped.aupr_in_openood).abs() < 1e-12);
    }

    #[test]
    fn threshold_reaches_its_rate_and_no_higher_one_does(scores in tied(60), tpr in 0.01..1.0f64) {
        let threshold = threshold_at_tpr(&scores, tpr).unwrap();
        let rate = |t: f64| scores.iter().filter(|&&x| x >= t).count() as f64 / scores.len() as f64;
        prop_assert!(rate(threshold) >= tpr);
        for &higher in scores.iter().filter(|&&x| x > threshold) {
            prop_assert!(rate(higher) < tpr);
        }
    }
}

#[test]
fn openood_drops_points_on_straight_pieces() {
    let id = [0.0, 1.0, 2.0, 3.0, 4.0];
    let mut ood = vec![0.0; 18];
    ood.extend([1.0, 2.0]);
    // From the low end, OOD recall is 0.9 at score 0, 0.95 at 1 and 1 at 2. Scores 1 and 2 have one image of each side, so
    // the point between them lies on a straight piece and is dropped.
    let found = ood_metrics(&id, &ood).unwrap();
    assert_eq!(found.fpr95_openood, 0.6);
    assert_same(&found, &oracle(&id, &ood));
}

#[test]
fn bad_scores_are_named() {
    let nan = ood_metrics(&[0.0, f64::NAN], &[1.0]).unwrap_err();
    assert_eq!(nan.to_string(), "id: score 1 is NaN");
    assert!(ood_metrics::<f32>(&[], &[1.0]).is_err());
    assert!(ood_metrics::<f32>(&[1.0], &[]).is_err());
    let mut walk = OodAccumulator::new(1, 1).unwrap();
    walk.push(1.0, 1, 0).unwrap();
    assert!(walk.clone().push(1.0, 0, 1).is_err());
    assert!(walk.clone().push(0.5, 1, 0).is_err());
    assert!(walk.finish().is_err());
    let out_of_order = vec![vec![Ok(vec![1.0, 2.0])].into_iter()];
    let ood = vec![vec![Ok(vec![0.0])].into_iter()];
    assert!(merge_sorted::<_, OodError>(2, 1, out_of_order, ood).is_err());
    assert!(threshold_at_tpr(&[1.0f32], 0.0).is_err());
    assert!(threshold_at_tpr::<f32>(&[], 0.5).is_err());
}

#[test]
fn coarse_scores_are_called_coarse() {
    let coarse: Vec<f32> = (0..1000).map(|i| (i % 9) as f32).collect();
    let fine: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let both = ood_metrics(&coarse, &coarse).unwrap();
    assert_eq!((both.distinct(), both.ties), (9, 1991));
    assert!(both.has_low_resolution());
    // 1,000 distinct scores of 2,000, then 91% and 89%.
    assert!(ood_metrics(&fine, &coarse).unwrap().has_low_resolution());
    let other = |same: usize| -> Vec<f32> {
        let others = (same..1000).map(|i| i as f32 + 0.5);
        (0..same).map(|i| i as f32).chain(others).collect()
    };
    let nearly = ood_metrics(&fine, &other(180)).unwrap();
    assert_eq!(nearly.resolution(), 0.91);
    assert!(!nearly.has_low_resolution());
    assert!(
        ood_metrics(&fine, &other(220))
            .unwrap()
            .has_low_resolution()
    );
}

/// Two overlapping lists of distinct-ish scores.
fn lists(n: usize, shift: f32) -> (Vec<f32>, Vec<f32>) {
    let noise = |i: usize, salt: u64| {
        let z = (i as u64 + salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((z ^ (z >> 29)) >> 40) as f32 / (1u64 << 24) as f32
    };
    let id = (0..n).map(|i| noise(i, 1) + shift).collect();
    let ood = (0..n / 2)
        .map(|i| (noise(i, 99_991) * 64.0).round() / 64.0)
        .collect();
    (id, ood)
}

#[test]
fn bootstrap_resamples_are_shared_seeded_and_free_of_threads() {
    let (id, ood) = lists(400, 0.3);
    let negated: Vec<f32> = id.iter().map(|x| x * 2.0).collect();
    let doubled: Vec<f32> = ood.iter().map(|x| x * 2.0).collect();
    let pairs = [
        ScorePair { id: &id, ood: &ood },
        ScorePair {
            id: &negated,
            ood: &doubled,
        },
    ];
    let options = BootstrapOptions {
        resamples: 200,
        ..BootstrapOptions::default()
    };
    let run = |threads: usize, options: &BootstrapOptions| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| bootstrap(&pairs, options)).unwrap()
    };
    let one = run(1, &options);
    assert_eq!(one, run(3, &options));
    // The same order of images gives the same interval, since the draws are the same.
    assert_eq!(one[0], one[1]);
    let other = run(1, &BootstrapOptions { seed: 1, ..options });
    assert_ne!(one, other);
    let point = ood_metrics(&id, &ood).unwrap();
    assert!(one[0].auroc.lo < point.auroc && point.auroc < one[0].auroc.hi);
    assert!(one[0].fpr95.lo <= point.fpr95 && point.fpr95 <= one[0].fpr95.hi);
}

#[test]
fn bootstrap_width_matches_theory() {
    // Separated halves: ID scores 0 or 2 evenly, OOD all 1, so AUROC is the share of twos: binomial.
    let n = 400;
    let id: Vec<f32> = (0..n).map(|i| (i % 2) as f32 * 2.0).collect();
    let ood = vec![1.0f32; 50];
    let found = bootstrap(
        &[ScorePair { id: &id, ood: &ood }],
        &BootstrapOptions {
            resamples: 4000,
            ..BootstrapOptions::default()
        },
    )
    .unwrap()[0];
    let width = 1.96 * (0.25 / n as f64).sqrt();
    assert!((found.auroc.lo - (0.5 - width)).abs() < 0.006, "{found:?}");
    assert!((found.auroc.hi - (0.5 + width)).abs() < 0.006, "{found:?}");
    // Recall 0.95 needs the zeros, which lie below every OOD score.
    assert_eq!((found.fpr95.lo, found.fpr95.hi), (1.0, 1.0));
}

#[test]
fn paired_bootstrap_sees_a_small_steady_gain() {
    let (id, ood) = lists(600, 0.2);
    let better: Vec<f32> = id.iter().map(|x| x + 0.02).collect();
    let options = BootstrapOptions::default();
    let first = ScorePair {
        id: &better,
        ood: &ood,
    };
    let second = ScorePair { id: &id, ood: &ood };
    let found = paired_bootstrap(&first, &second, &options).unwrap();
    assert!(
        found.auroc.lo > 0.0 && found.auroc_larger == 1.0,
        "{found:?}"
    );
    // Unpaired intervals of the two overlap, so pairing is what shows it.
    let apart = bootstrap(&[first, second], &options).unwrap();
    assert!(apart[0].auroc.lo < apart[1].auroc.hi);
    let same = paired_bootstrap(&second, &second, &options).unwrap();
    assert_eq!((same.auroc_larger, same.fpr95_smaller), (0.5, 0.5));
    let short = ScorePair {
        id: &id[1..],
        ood: &ood,
    };
    assert!(paired_bootstrap(&first, &short, &options).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A resample's figures are those of the lists with images repeated as drawn: with one image a side there is one resample.
    #[test]
    fn one_image_a_side_has_no_spread(a in -3i8..3, b in -3i8..3) {
        let (id, ood) = ([f32::from(a)], [f32::from(b)]);
        let found = bootstrap(&[ScorePair { id: &id, ood: &ood }], &BootstrapOptions::default()).unwrap();
        let point = ood_metrics(&id, &ood).unwrap();
        prop_assert_eq!((found[0].auroc.lo, found[0].auroc.hi), (point.auroc, point.auroc));
        prop_assert_eq!((found[0].fpr95.lo, found[0].fpr95.hi), (point.fpr95, point.fpr95));
    }
}

#[test]
fn accuracy_and_calibration() {
    let prediction = |class: u32, probability: f32| Prediction {
        class,
        probability,
        top5: [class, 7, 8, u32::MAX, u32::MAX],
    };
    let predictions = [
        prediction(0, 0.95),
        prediction(1, 0.85),
        prediction(2, 0.25),
        prediction(3, 0.25),
    ];
    let found = metrics::accuracy(&predictions, &[0, 7, 2, 9]).unwrap();
    assert_eq!((found.n, found.top1, found.top5), (4, 0.5, 0.75));
    // Ten bins: |1 - 0.95| + |0 - 0.85| + |(1 - 0.25) + (0 - 0.25)|, over four images.
    let error = metrics::expected_calibration_error(&predictions, &[0, 7, 2, 9], 10).unwrap();
    assert!((error - (0.05 + 0.85 + 0.5) / 4.0).abs() < 1e-7, "{error}");
    assert!(metrics::accuracy(&predictions, &[0]).is_err());
    assert!(metrics::accuracy(&[], &[]).is_err());
    assert!(metrics::expected_calibration_error(&predictions, &[0; 4], 0).is_err());
}

#[test]
fn summaries() {
    let found = mean_std(&[1.0, 2.0, 3.0]).unwrap();
    assert_eq!((found.mean, found.std), (2.0, Some(1.0)));
    assert_eq!(mean_std(&[4.0]).unwrap().std, None);
    assert_eq!(mean_std(&[]), None);
    let good = ood_metrics(&[2.0, 3.0], &[0.0, 1.0, 1.0]).unwrap();
    let bad = ood_metrics(&[2.0, 3.0], &[4.0]).unwrap();
    let both = average(&[good, bad]).unwrap();
    assert_eq!((both.n_id, both.n_ood, both.ties), (2, 4, 1));
    assert_eq!((both.auroc, both.fpr95), (0.5, 0.5));
    assert!(both.threshold95.is_nan());
    assert_eq!(average(&[]), None);
    assert_eq!(select_best(&[bad, good, good]).unwrap(), 1);
    assert!(select_best(&[]).is_err());
}
