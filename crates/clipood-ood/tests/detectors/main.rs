//! Every detector against reference values, and properties that hold on any features.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may panic as tests may"
)]

mod bad_input;
mod bundle;
mod stored;

use bundle::Bundle;
use clipood_ood::{
    Classifier, DualPatternScaling, FitInputs, FittedDetector, LocalFeatures, Matrix, OodError,
    ScoreInputs, Stream, StreamInputs, fit, fuse_dual_pattern, predict, registry, score_all,
    score_stream, stream_order,
};
use proptest::prelude::*;

/// Detectors by their names in the reference file.
const REFERENCE: [(&str, &str); 23] = [
    ("mcm_t1", "mcm"),
    ("mcm_scale10", "mcm:t=0.1"),
    ("l_mcm_t1", "l_mcm"),
    ("gl_mcm_t1", "gl_mcm"),
    ("gl_mcm_scale10_half", "gl_mcm:t=0.1:weight=0.5"),
    ("msp", "msp"),
    ("max_logit", "max_logit"),
    ("max_cosine", "max_cosine"),
    ("energy_t1", "energy"),
    ("energy_cosine", "energy:on=cosine"),
    ("neg_entropy", "neg_entropy"),
    ("gen", "gen"),
    ("mahalanobis", "mahalanobis"),
    (
        "mahalanobis_ledoit_wolf",
        "mahalanobis:covariance=ledoit_wolf",
    ),
    ("relative_mahalanobis", "relative_mahalanobis"),
    ("knn_k1_sq_l2", "knn:k=1"),
    ("knn_k5_sq_l2", "knn:k=5"),
    ("vim_dim32", "vim:dim=32"),
    ("residual_dim32", "residual:dim=32"),
    ("one_class_svm_rbf_g1_nu0.1", "one_class_svm:gamma=1:nu=0.1"),
    ("neglabel_scale100", "neglabel"),
    ("neglabel_scale100_groups4", "neglabel:groups=4"),
    ("unknown_prompt", "unknown_prompt:count=1"),
];

/// References are f32, so entries that they sum in f32 carry a few 1e-6 of their own.
const TOLERANCE: f64 = 1e-5;

#[test]
fn every_detector_holds_its_reference_values() {
    let bundle = Bundle::read();
    let mut reference = REFERENCE.to_vec();
    reference.push(("dpm_neg_min_kl", "dpm_neg_min_kl"));
    let detectors: Vec<FittedDetector> =
        reference.iter().map(|(_, spec)| bundle.fit(spec)).collect();
    let scores = bundle.score(&detectors);
    for (i, (name, _)) in reference.iter().enumerate() {
        for (role, scores) in ["id", "ood"].into_iter().zip(&scores) {
            let error = bundle.error(name, role, &scores.columns[i]);
            println!("{name}/{role}: {error:.1e}");
            assert!(error < TOLERANCE, "{name}/{role}: off by {error:e}");
        }
    }
    let names: Vec<&str> = reference.iter().map(|(name, _)| *name).collect();
    let unread = bundle.arrays.keys().find(|key| {
        let name = key.split('/').nth(1).unwrap_or_default();
        key.starts_with("expected/")
            && !names.contains(&name)
            && !name.starts_with("dpm_transductive_")
    });
    assert_eq!(unread, None, "every reference array is compared");
}

#[test]
fn fused_dual_pattern_holds_its_reference_values() {
    let bundle = Bundle::read();
    for (base, spec) in [("mcm", "mcm:t=0.1"), ("gl", "gl_mcm:t=0.1:weight=0.5")] {
        let [id, ood] = bundle.score(&[bundle.fit(spec), bundle.fit("dpm_neg_min_kl")]);
        let scaling = DualPatternScaling::transductive(
            &id.columns[0],
            &ood.columns[0],
            &id.columns[1],
            &ood.columns[1],
        )
        .unwrap();
        for beta in [-0.5, -1.0] {
            let name = scaling.name(base, beta);
            for (role, scores) in [("id", &id), ("ood", &ood)] {
                let fused =
                    fuse_dual_pattern(&scaling, &scores.columns[0], &scores.columns[1], beta)
                        .unwrap();
                let error = bundle.error(&name, role, &fused);
                println!("{name}/{role}: {error:.1e}");
                assert!(error < 2.0 * TOLERANCE, "{name}/{role}: off by {error:e}");
            }
        }
    }
}

#[test]
fn calibrated_scaling_is_transductive_on_the_same_images() {
    let bundle = Bundle::read();
    let [id, ood] = bundle.score(&[bundle.fit("mcm:t=0.1"), bundle.fit("dpm_neg_min_kl")]);
    let joined = |i: usize| [id.columns[i].clone(), ood.columns[i].clone()].concat();
    let calibrated = DualPatternScaling::calibrated(&joined(0), &joined(1)).unwrap();
    let transductive = DualPatternScaling::transductive(
        &id.columns[0],
        &ood.columns[0],
        &id.columns[1],
        &ood.columns[1],
    )
    .unwrap();
    assert_eq!(
        fuse_dual_pattern(&calibrated, &id.columns[0], &id.columns[1], -0.5),
        fuse_dual_pattern(&transductive, &id.columns[0], &id.columns[1], -0.5),
    );
    assert_eq!(calibrated.name("mcm", -0.5), "dpm_calibrated_mcm_beta-0.5");
    assert_eq!(
        fuse_dual_pattern(&calibrated, &id.columns[0], &id.columns[1], 0.0).unwrap(),
        id.columns[0]
    );
}

#[test]
fn best_beta_is_the_best_of_the_grid() {
    let bundle = Bundle::read();
    let [id, ood] = bundle.score(&[bundle.fit("mcm:t=0.1"), bundle.fit("dpm_neg_min_kl")]);
    let (base_id, kl_id) = (&id.columns[0], &id.columns[1]);
    let (base_ood, kl_ood) = (&ood.columns[0], &ood.columns[1]);
    let scaling = DualPatternScaling::transductive(base_id, base_ood, kl_id, kl_ood).unwrap();
    let criterion = |beta: f64| {
        let id = fuse_dual_pattern(&scaling, base_id, kl_id, beta).unwrap();
        let ood = fuse_dual_pattern(&scaling, base_ood, kl_ood, beta).unwrap();
        clipood_ood::metrics::ood_metrics(&id, &ood)
            .unwrap()
            .selection_criterion()
    };
    let pair = (
        &scaling,
        (&base_id[..], &kl_id[..]),
        (&base_ood[..], &kl_ood[..]),
    );
    let beta = clipood_ood::best_beta(&[pair]).unwrap();
    assert!(clipood_ood::beta_grid().all(|other| criterion(other) <= criterion(beta)));
    assert!(clipood_ood::best_beta(&[]).is_err());
}

#[test]
fn storing_a_detector_changes_nothing() {
    let bundle = Bundle::read();
    let mut specs: Vec<&str> = REFERENCE.iter().map(|(_, spec)| *spec).collect();
    specs.push("dpm_neg_min_kl");
    let detectors: Vec<FittedDetector> = specs.iter().map(|spec| bundle.fit(spec)).collect();
    let text = serde_json::to_string(&detectors).unwrap();
    let restored: Vec<FittedDetector> = serde_json::from_str(&text).unwrap();
    assert_eq!(restored, detectors);
    assert_eq!(bundle.score(&restored), bundle.score(&detectors));
    // A stored detector whose parts were swapped is refused, not misread.
    let wrong = text.replace("\"spec\":\"knn:k=1\"", "\"spec\":\"mahalanobis\"");
    assert_ne!(wrong, text);
    let wrong: Vec<FittedDetector> = serde_json::from_str(&wrong).unwrap();
    let error = score_all(
        &wrong,
        &bundle.matrix("text"),
        &bundle.inputs("id", "id_local"),
    );
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("do not fit together")
    );
}

#[test]
fn log_odds_keep_the_order_and_break_the_ties() {
    let bundle = Bundle::read();
    for (plain, odds) in [
        ("msp", "msp:space=log_odds"),
        ("neglabel:groups=4", "neglabel:groups=4:space=log_odds"),
        ("unknown_prompt", "unknown_prompt:space=log_odds"),
    ] {
        let scores = bundle.score(&[bundle.fit(plain), bundle.fit(odds)]);
        let all = |i: usize| [scores[0].columns[i].clone(), scores[1].columns[i].clone()].concat();
        let (plain, odds) = (all(0), all(1));
        let distinct = |column: &[f32]| {
            let mut bits: Vec<u32> = column.iter().map(|x| x.to_bits()).collect();
            bits.sort_unstable();
            bits.dedup();
            bits.len()
        };
        assert_eq!(distinct(&odds), 80);
        for i in 0..80 {
            for j in 0..80 {
                if plain[i] > plain[j] {
                    assert!(odds[i] > odds[j]);
                }
            }
        }
    }
    // The reference's own f32 MSP ties here, so the test means something.
    let tied = bundle.score(&[bundle.fit("msp")]);
    let ones = tied[0].columns[0].iter().filter(|&&p| p == 1.0).count();
    assert!(ones > 1, "{ones}");
}

#[test]
fn a_score_does_not_depend_on_its_neighbours_or_on_threads() {
    let bundle = Bundle::read();
    let detectors: Vec<FittedDetector> =
        REFERENCE.iter().map(|(_, spec)| bundle.fit(spec)).collect();
    // 600 images make several blocks with an uneven last one.
    let (shape, data) = &bundle.arrays["ood"];
    let (local_shape, local) = &bundle.arrays["ood_local"];
    let (data, local) = (data.repeat(15), local.repeat(15));
    let images = shape[0] * 15;
    let inputs = ScoreInputs {
        global: Matrix::new("ood", &data, images, shape[1]).unwrap(),
        local: Some(
            LocalFeatures::new("ood_local", &local, images, local_shape[1], local_shape[2])
                .unwrap(),
        ),
    };
    let text = bundle.matrix("text");
    let one = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    let three = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    let first = one
        .install(|| score_all(&detectors, &text, &inputs))
        .unwrap();
    let second = three
        .install(|| score_all(&detectors, &text, &inputs))
        .unwrap();
    assert_eq!(first, second);
    for column in &first.columns {
        for (i, score) in column.iter().enumerate() {
            assert_eq!(*score, column[i % shape[0]]);
        }
    }
}

#[test]
fn predictions_are_the_largest_cosines() {
    let bundle = Bundle::read();
    let text = bundle.matrix("text");
    let predictions = predict(&text, &bundle.matrix("id")).unwrap();
    let (shape, id) = &bundle.arrays["id"];
    let (_, texts) = &bundle.arrays["text"];
    for (prediction, f) in predictions.iter().zip(id.chunks(shape[1])) {
        let mut logits: Vec<(f64, u32)> = texts
            .chunks(shape[1])
            .zip(0..)
            .map(|(t, k)| {
                let product = f.iter().zip(t).map(|(a, b)| f64::from(*a) * f64::from(*b));
                (100.0 * product.sum::<f64>(), k)
            })
            .collect();
        logits.sort_by(|a, b| b.0.total_cmp(&a.0));
        let sum: f64 = logits.iter().map(|(s, _)| (s - logits[0].0).exp()).sum();
        let top: Vec<u32> = logits.iter().take(5).map(|&(_, k)| k).collect();
        assert_eq!(prediction.top5.to_vec(), top);
        assert_eq!(prediction.class, top[0]);
        assert!((f64::from(prediction.probability) - 1.0 / sum).abs() < 1e-5);
    }
    let three = Matrix::new("text", &texts[..3 * shape[1]], 3, shape[1]).unwrap();
    let few = predict(&three, &bundle.matrix("id")).unwrap();
    assert_eq!(few[0].top5[3..], [u32::MAX; 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the features' lengths and sizes, scores are finite, and scaling a row changes none.
    #[test]
    fn scores_are_finite_and_free_of_scale(
        dim in 2usize..20,
        seed in any::<u64>(),
        exponent in -12i32..12,
    ) {
        let mut state = seed | 1;
        let mut values = |n: usize| -> Vec<f32> {
            (0..n)
                .map(|_| {
                    state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
                    (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
                })
                .collect()
        };
        let (text, negative, train) = (values(3 * dim), values(5 * dim), values(12 * dim));
        let (images, local) = (values(7 * dim), values(7 * 2 * dim));
        let labels: Vec<u32> = (0..12).map(|i| i % 3).collect();
        let text = Matrix::new("text", &text, 3, dim).unwrap();
        let inputs = FitInputs {
            text,
            negative_text: Some(Matrix::new("negative_text", &negative, 5, dim).unwrap()),
            train: Some(Matrix::new("train", &train, 12, dim).unwrap()),
            train_labels: Some(&labels),
            classifiers: &[Classifier::Texts(text)],
        };
        let detectors: Vec<FittedDetector> = registry()
            .iter()
            .filter(|info| !info.needs.stream)
            .map(|info| {
                let spec = match info.kind {
                    "vim" | "residual" => format!("{}:dim=1", info.kind),
                    kind => kind.to_owned(),
                };
                fit(&spec.parse().unwrap(), &inputs).unwrap()
            })
            .collect();
        let score = |factor: f32| {
            let images: Vec<f32> = images.iter().map(|x| x * factor).collect();
            let global = Matrix::new("images", &images, 7, dim).unwrap();
            let local = LocalFeatures::new("local", &local, 7, 2, dim).unwrap();
            score_all(&detectors, &text, &ScoreInputs { global, local: Some(local) }).unwrap()
        };
        let plain = score(1.0);
        prop_assert!(plain.columns.iter().flatten().all(|x| x.is_finite()));
        // A power of two only moves the exponent, so nothing at all may change.
        prop_assert_eq!(score(2f32.powi(exponent)), plain);
        let inputs = StreamInputs {
            text,
            negative_text: inputs.negative_text,
            noise: inputs.train,
        };
        for info in registry().iter().filter(|info| info.needs.stream) {
            let spec = match info.kind {
                "adaneg" => "adaneg:groups=2:batch=3".to_owned(),
                kind => format!("{kind}:batch=3"),
            };
            let score = |factor: f32| -> Vec<f32> {
                let images: Vec<f32> = images.iter().map(|x| x * factor).collect();
                let images = Matrix::new("images", &images, 7, dim).unwrap();
                let mut stream = Stream::start(&spec.parse().unwrap(), &inputs).unwrap();
                let order = stream_order(seed, 7);
                let scores: Result<_, OodError> =
                    score_stream(&mut stream, &images, &order, |_| Ok(()));
                scores.unwrap()
            };
            let plain = score(1.0);
            prop_assert!(plain.iter().all(|x| x.is_finite()), "{}", spec);
            prop_assert_eq!(score(2f32.powi(exponent)), plain);
        }
    }
}
