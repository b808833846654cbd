//! The linear probe against scikit-learn's logistic regression, and the scores of its logits by their formulas.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use clipood_ood::{
    DetectorSpec, FitInputs, FittedDetector, LinearProbe, LinearProbeOptions, Matrix, ScoreInputs,
    fit, fit_linear_probe, score_all, score_linear,
};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

fn doubles(file: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let tensor = file.tensor(name).unwrap();
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F64 => {
            let words = data.as_chunks::<8>().0.iter();
            words.map(|b| f64::from_le_bytes(*b)).collect()
        }
        Dtype::F32 => {
            let words = data.as_chunks::<4>().0.iter();
            words.map(|b| f64::from(f32::from_le_bytes(*b))).collect()
        }
        Dtype::I64 => {
            let words = data.as_chunks::<8>().0.iter();
            words.map(|b| i64::from_le_bytes(*b) as f64).collect()
        }
        other => panic!("{name}: {other:?}"),
    }
}

fn assert_near(name: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() < 1e-4,
            "{name} {i}: {found}, {expected}"
        );
    }
}

#[test]
fn probes_are_scikit_learns() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/linear_probe.safetensors"
    );
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for case in ["five", "two", "weak"] {
        let array = |name: &str| doubles(&file, &format!("{case}.{name}"));
        let narrow = |name: &str| -> Vec<f32> { array(name).iter().map(|x| *x as f32).collect() };
        let labels: Vec<u32> = array("labels").iter().map(|label| *label as u32).collect();
        let classes = 1 + *labels.iter().max().unwrap() as usize;
        let (values, test) = (narrow("features"), narrow("test"));
        let dim = values.len() / labels.len();
        let features = Matrix::new("features", &values, labels.len(), dim).unwrap();
        let options = LinearProbeOptions {
            c: array("c")[0],
            ..LinearProbeOptions::default()
        };
        let probe = fit_linear_probe(&features, &labels, classes, &options).unwrap();
        assert!(probe.converged, "{case}: {} steps", probe.steps);

        let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|x| f64::from(*x)).collect() };
        let (mut weights, mut biases) = (wide(&probe.weights), wide(&probe.biases));
        if classes == 2 {
            weights = (0..dim).map(|d| weights[dim + d] - weights[d]).collect();
            biases = vec![biases[1] - biases[0]];
        }
        assert_near(&format!("{case} weights"), &weights, &array("coefficients"));
        assert_near(&format!("{case} biases"), &biases, &array("intercepts"));

        let test = Matrix::new("test", &test, test.len() / dim, dim).unwrap();
        let logits = wide(&probe.logits(&test).unwrap());
        let probabilities: Vec<f64> = logits
            .chunks_exact(classes)
            .flat_map(|row| {
                let sum: f64 = row.iter().map(|x| x.exp()).sum();
                row.iter().map(move |x| x.exp() / sum)
            })
            .collect();
        assert_near(
            &format!("{case} probabilities"),
            &probabilities,
            &array("probabilities"),
        );
    }
}

#[test]
fn too_few_steps_are_said() {
    let values = [0.0, 1.0, 1.0, 0.0, 2.0, 1.0, 0.5, 0.5];
    let features = Matrix::new("features", &values, 4, 2).unwrap();
    let options = LinearProbeOptions {
        max_iter: 1,
        ..LinearProbeOptions::default()
    };
    let probe = fit_linear_probe(&features, &[0, 1, 1, 0], 2, &options).unwrap();
    assert_eq!((probe.steps, probe.converged), (1, false));
}

/// Rows of 20 images and their labels.
fn images() -> (Vec<f32>, Vec<u32>) {
    let values = (0..60).map(|i| ((i * 7) % 11) as f32 * 3.0 - 10.0);
    (values.collect(), (0..20).map(|i| (i * 5 / 2) % 3).collect())
}

fn fitted(specs: &[&str], inputs: &FitInputs<'_>) -> Vec<FittedDetector> {
    let fit = |spec: &&str| fit(&spec.parse::<DetectorSpec>().unwrap(), inputs).unwrap();
    specs.iter().map(fit).collect()
}

#[test]
fn scores_are_those_of_the_probes_logits() {
    let (values, labels) = images();
    let features = Matrix::new("features", &values, 20, 3).unwrap();
    let options = LinearProbeOptions::default();
    let probe = fit_linear_probe(&features, &labels, 3, &options).unwrap();
    let weights = Matrix::new("weights", &probe.weights, 3, 3).unwrap();
    let inputs = FitInputs {
        text: weights,
        negative_text: None,
        train: Some(features),
        train_labels: Some(&labels),
        classifiers: &[],
    };
    let specs = [
        "msp",
        "max_logit",
        "energy",
        "neg_entropy",
        "gen",
        "knn:k=3",
    ];
    let detectors = fitted(&specs, &inputs);
    let images = ScoreInputs {
        global: features,
        local: None,
    };
    let found = score_linear(&detectors, &probe, &images).unwrap();
    let logits = probe.logits(&features).unwrap();
    for (row, logits) in logits.chunks_exact(3).enumerate() {
        let logits: Vec<f64> = logits.iter().map(|x| f64::from(*x)).collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = max + logits.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
        let p: Vec<f64> = logits.iter().map(|x| (x - log_sum).exp()).collect();
        let expected = [
            (max - log_sum).exp(),
            max,
            log_sum,
            p.iter().map(|p| p * p.ln()).sum(),
            -p.iter().map(|p| (p * (1.0 - p)).powf(0.1)).sum::<f64>(),
        ];
        for ((spec, column), expected) in specs.iter().zip(&found.columns).zip(expected) {
            let error = (f64::from(column[row]) - expected).abs();
            assert!(error < 2e-5, "{spec} of row {row}: off by {error:e}");
        }
        let prediction = found.predictions[row];
        assert!((logits[prediction.class as usize] - max).abs() < 2e-5);
        assert!((f64::from(prediction.probability) - expected[0]).abs() < 2e-5);
    }
    // What reads features alone does not see the head.
    let alone = score_all(&detectors[5..], &weights, &images).unwrap();
    assert_eq!(found.columns[5], alone.columns[0]);
}

#[test]
fn what_a_linear_probe_cannot_score_is_named() {
    let (values, labels) = images();
    let features = Matrix::new("features", &values, 20, 3).unwrap();
    let probe = LinearProbe {
        weights: vec![0.5; 9],
        biases: vec![0.0; 3],
        steps: 1,
        converged: true,
    };
    let inputs = FitInputs {
        text: Matrix::new("weights", &probe.weights, 3, 3).unwrap(),
        negative_text: None,
        train: Some(features),
        train_labels: Some(&labels),
        classifiers: &[],
    };
    let images = ScoreInputs {
        global: features,
        local: None,
    };
    for spec in ["mcm", "max_cosine", "energy:on=cosine", "vim:dim=1"] {
        let detectors = fitted(&[spec], &inputs);
        let error = score_linear(&detectors, &probe, &images).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(spec) && error.contains("texts"), "{error}");
    }
    let score = |weights: Vec<f32>| {
        let probe = LinearProbe {
            weights,
            ..probe.clone()
        };
        let error = score_linear(&[], &probe, &images).unwrap_err();
        error.to_string()
    };
    assert!(score(vec![0.5; 6]).contains("needs 9 values, found 6"));
    assert!(score(vec![3e38; 9]).contains("logits of features: row 0"));
}
