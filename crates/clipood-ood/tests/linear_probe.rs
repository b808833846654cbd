//! The linear probe against scikit-learn's logistic regression.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use clipood_ood::{LinearProbeOptions, Matrix, fit_linear_probe};
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
