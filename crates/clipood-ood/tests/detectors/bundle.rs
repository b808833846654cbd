//! The reference file of the detectors, read for the tests.

use clipood_ood::{
    FitInputs, FittedDetector, LocalFeatures, Matrix, ScoreInputs, Scores, fit, score_all,
};
use safetensors::SafeTensors;
use std::collections::BTreeMap;

/// The arrays of the reference file.
pub struct Bundle {
    pub arrays: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    pub train_labels: Vec<u32>,
}

impl Bundle {
    pub fn read() -> Self {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/data/detectors.safetensors"
        );
        let bytes = std::fs::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let words = |data: &[u8]| -> Vec<[u8; 4]> { data.as_chunks::<4>().0.to_vec() };
        let mut bundle = Self {
            arrays: BTreeMap::new(),
            train_labels: Vec::new(),
        };
        for (name, tensor) in tensors.tensors() {
            let data = words(tensor.data());
            if name == "train_labels" {
                bundle.train_labels = data.into_iter().map(u32::from_le_bytes).collect();
            } else {
                let values = data.into_iter().map(f32::from_le_bytes).collect();
                bundle
                    .arrays
                    .insert(name, (tensor.shape().to_vec(), values));
            }
        }
        bundle
    }

    pub fn matrix(&self, name: &'static str) -> Matrix<'_> {
        let (shape, data) = &self.arrays[name];
        Matrix::new(name, data, shape[0], shape[1]).unwrap()
    }

    pub fn fit_inputs(&self) -> FitInputs<'_> {
        FitInputs {
            text: self.matrix("text"),
            negative_text: Some(self.matrix("negative_text")),
            train: Some(self.matrix("train")),
            train_labels: Some(&self.train_labels),
            classifiers: &[],
        }
    }

    pub fn fit(&self, spec: &str) -> FittedDetector {
        fit(&spec.parse().unwrap(), &self.fit_inputs()).unwrap()
    }

    pub fn inputs(&self, role: &'static str, local: &'static str) -> ScoreInputs<'_> {
        let (shape, data) = &self.arrays[local];
        ScoreInputs {
            global: self.matrix(role),
            local: Some(LocalFeatures::new(local, data, shape[0], shape[1], shape[2]).unwrap()),
        }
    }

    pub fn score(&self, detectors: &[FittedDetector]) -> [Scores; 2] {
        [("id", "id_local"), ("ood", "ood_local")].map(|(role, local)| {
            score_all(detectors, &self.matrix("text"), &self.inputs(role, local)).unwrap()
        })
    }

    /// Largest difference from a reference array, relative to its largest absolute value.
    pub fn error(&self, name: &str, role: &str, found: &[f32]) -> f64 {
        let (_, expected) = &self.arrays[&format!("expected/{name}/{role}")];
        assert_eq!(expected.len(), found.len());
        let largest = expected.iter().fold(0.0f32, |a, x| a.max(x.abs()));
        let difference = expected
            .iter()
            .zip(found)
            .map(|(e, f)| (f64::from(*e) - f64::from(*f)).abs())
            .fold(0.0, f64::max);
        assert!(difference.is_finite());
        difference / f64::from(largest)
    }
}
