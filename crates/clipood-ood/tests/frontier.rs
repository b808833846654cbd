//! The frontier's detectors and the choice of inter-modal labels against plain numpy (`data/make_frontier.py`).
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may panic as tests may"
)]

use std::collections::BTreeMap;

use clipood_ood::{
    Classifier, DetectorSpec, FitInputs, LinearProbe, LocalFeatures, Matrix, Negatives, OodError,
    ScoreInputs, Stream, StreamInputs, fit, mine_inter_modal_labels, score_all, score_linear,
    score_stream, stream_order,
};
use safetensors::SafeTensors;

/// Scores are rounded to f32 on both sides, cosines are summed in f32 here and multiplied by 100.
const TOLERANCE: f64 = 2e-5;

struct Arrays(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Arrays {
    fn read() -> Self {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/data/frontier.safetensors"
        );
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let arrays = file.tensors().into_iter().map(|(name, tensor)| {
            let values = tensor.data().as_chunks::<4>().0.iter();
            let values = values.map(|b| f32::from_le_bytes(*b)).collect();
            (name, (tensor.shape().to_vec(), values))
        });
        Self(arrays.collect())
    }

    fn values(&self, name: &str) -> &[f32] {
        &self.0[name].1
    }

    fn matrix<'a>(&'a self, name: &'a str) -> Matrix<'a> {
        let (shape, values) = &self.0[name];
        Matrix::new(name, values, shape[0], shape[1]).unwrap()
    }

    fn whole(&self, name: &str) -> Vec<u32> {
        self.values(name).iter().map(|&x| x as u32).collect()
    }

    /// Every specification with expected scores.
    fn specs(&self) -> Vec<DetectorSpec> {
        let names = self
            .0
            .keys()
            .filter_map(|name| name.strip_prefix("expected/"));
        names.map(|name| name.parse().unwrap()).collect()
    }

    fn compare(&self, spec: &DetectorSpec, found: &[f32]) {
        let expected = self.values(&format!("expected/{spec}"));
        assert_eq!(expected.len(), found.len());
        for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
            let difference = (f64::from(*found) - f64::from(*expected)).abs();
            let allowed = TOLERANCE * f64::from(expected.abs()).max(1.0);
            assert!(
                difference <= allowed,
                "{spec}: row {row} is {found}, expected {expected}"
            );
        }
    }

    fn probe(&self) -> LinearProbe {
        LinearProbe {
            weights: self.values("probe_weights").to_vec(),
            biases: self.values("probe_biases").to_vec(),
            steps: 1,
            converged: true,
        }
    }
}

#[test]
fn static_detectors_hold_their_reference_values() {
    let arrays = Arrays::read();
    let probe = arrays.probe();
    let labels = arrays.whole("train_labels");
    let classifiers = [
        Classifier::Texts(arrays.matrix("zero_shot")),
        Classifier::Probe(&probe),
    ];
    let text = arrays.matrix("text");
    let mut detectors = Vec::new();
    for spec in arrays.specs() {
        let needs = spec.needs();
        if needs.stream {
            continue;
        }
        let negatives = match needs.negatives {
            Some(Negatives::Imagined) => "outliers",
            _ => "negative_text",
        };
        let inputs = FitInputs {
            text,
            negative_text: Some(arrays.matrix(negatives)),
            train: Some(arrays.matrix("train")),
            train_labels: Some(&labels),
            classifiers: &classifiers,
        };
        let detector = fit(&spec, &inputs).unwrap();
        // What is stored with a run scores alike.
        let json = serde_json::to_string(&detector).unwrap();
        detectors.push(serde_json::from_str(&json).unwrap());
    }
    assert_eq!(detectors.len(), 10);
    let (shape, local) = &arrays.0["local"];
    let inputs = ScoreInputs {
        global: arrays.matrix("images"),
        local: Some(LocalFeatures::new("local", local, shape[0], shape[1], shape[2]).unwrap()),
    };
    // All in one pass, as a run scores them.
    let scores = score_all(&detectors, &text, &inputs).unwrap();
    for (detector, column) in detectors.iter().zip(&scores.columns) {
        arrays.compare(detector.spec(), column);
    }
}

#[test]
fn the_mean_of_classifiers_is_the_same_from_every_member() {
    let arrays = Arrays::read();
    let probe = arrays.probe();
    let (text, zero) = (arrays.matrix("text"), arrays.matrix("zero_shot"));
    let spec: DetectorSpec = "cooked".parse().unwrap();
    let inputs = ScoreInputs {
        global: arrays.matrix("images"),
        local: None,
    };
    let fitted = |text, classifiers: &[Classifier<'_>]| {
        let inputs = FitInputs {
            text,
            negative_text: None,
            train: None,
            train_labels: None,
            classifiers,
        };
        fit(&spec, &inputs)
    };
    let weights = arrays.matrix("probe_weights");
    let of_probe = [Classifier::Texts(text), Classifier::Texts(zero)];
    let detector = fitted(weights, &of_probe).unwrap();
    let scores = score_linear(&[detector], &probe, &inputs).unwrap();
    arrays.compare(&spec, &scores.columns[0]);
    // Without others there is nothing to join, and others must have the same classes.
    let error = fitted(text, &[]).unwrap_err().to_string();
    assert!(error.contains("other classifiers"), "{error}");
    let few = Matrix::new(
        "few",
        &arrays.values("text")[..2 * text.cols()],
        2,
        text.cols(),
    );
    let error = fitted(text, &[Classifier::Texts(few.unwrap())]).unwrap_err();
    assert!(error.to_string().contains("2 rows"), "{error}");
}

#[test]
fn streams_hold_their_reference_values() {
    let arrays = Arrays::read();
    let inputs = StreamInputs {
        text: arrays.matrix("text"),
        negative_text: Some(arrays.matrix("negative_text")),
        noise: Some(arrays.matrix("noise")),
    };
    let (images, order) = (arrays.matrix("images"), arrays.whole("order"));
    let mut count = 0;
    for spec in arrays.specs().iter().filter(|spec| spec.needs().stream) {
        let score = |order: &[u32]| -> Vec<f32> {
            let mut stream = Stream::start(spec, &inputs).unwrap();
            let mut seen = 0;
            let scores: Result<_, OodError> = score_stream(&mut stream, &images, order, |n| {
                seen += n;
                Ok(())
            });
            assert_eq!(seen, images.rows());
            scores.unwrap()
        };
        let scores = score(&order);
        arrays.compare(spec, &scores);
        // The same stream again, and another order: memories start anew, and the order matters.
        assert_eq!(scores, score(&order));
        assert_ne!(scores, score(&stream_order(1, images.rows())), "{spec}");
        count += 1;
    }
    assert_eq!(count, 7);
}

#[test]
fn inter_modal_labels_are_farther_from_every_class_than_its_text() {
    let arrays = Arrays::read();
    let labels = arrays.whole("train_labels");
    let (text, shots) = (arrays.matrix("text"), arrays.matrix("train"));
    let candidates = arrays.matrix("candidates");
    let found = mine_inter_modal_labels(&text, &shots, &labels, &candidates).unwrap();
    let rows: Vec<u32> = found.iter().map(|(row, _)| *row).collect();
    assert_eq!(rows, arrays.whole("inter_modal.rows"));
    for ((_, found), expected) in found.iter().zip(arrays.values("inter_modal.distances")) {
        assert!((found - f64::from(*expected)).abs() < 1e-6);
    }
    let few = mine_inter_modal_labels(&text, &shots, &labels[1..], &candidates);
    assert!(few.unwrap_err().to_string().contains("train_labels"));
}
