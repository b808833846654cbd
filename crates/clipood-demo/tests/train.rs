//! The training program: a run that is paused and resumed ends with the same model as an uninterrupted one.
#![cfg(feature = "train")]

use std::path::Path;

use clipood_clip::checkpoint::OpenOptions;
use clipood_clip::model::Model;
use clipood_demo::train::{TrainOptions, train};

fn options(folder: &Path, name: &str, pause_after: Option<usize>) -> TrainOptions {
    TrainOptions {
        out: folder.join(name).join("model"),
        work: folder.join(name).join("work"),
        steps: 6,
        batch: 8,
        size: 32,
        width: 4,
        text_layers: 1,
        lr: 1e-3,
        seed: 7,
        checkpoint_every: 100,
        pause_after,
    }
}

#[test]
fn a_paused_training_goes_on_to_the_same_model() {
    let folder = tempfile::TempDir::new().unwrap();
    train(&options(folder.path(), "whole", None)).unwrap();
    train(&options(folder.path(), "parts", Some(2))).unwrap();
    train(&options(folder.path(), "parts", Some(3))).unwrap();
    train(&options(folder.path(), "parts", None)).unwrap();
    let read = |name: &str, file: &str| {
        std::fs::read(folder.path().join(name).join("model").join(file)).unwrap()
    };
    assert_eq!(
        read("whole", "open_clip_config.json"),
        read("parts", "open_clip_config.json")
    );
    // Compared with a tolerance: equal bits are not promised across a checkpoint.
    let features = |name: &str| {
        let model = Model::open(
            &folder.path().join(name).join("model"),
            &OpenOptions::default(),
        )
        .unwrap();
        let device = "cpu".parse().unwrap();
        let pixels = (0..3 * 32 * 32).map(|i| (i % 7) as f32 / 7.0).collect();
        let image = model
            .image_encoder(device)
            .unwrap()
            .encode(pixels, false)
            .unwrap();
        let text = model
            .text_encoder(device)
            .unwrap()
            .encode(&["a star".into()])
            .unwrap();
        [image.global, text].concat()
    };
    let (whole, parts) = (features("whole"), features("parts"));
    let largest = whole.iter().fold(0f32, |m, v| m.max(v.abs()));
    for (a, b) in whole.iter().zip(&parts) {
        assert!((a - b).abs() < 2e-2 * largest, "{a} and {b}");
    }
    // Another configuration does not resume from this checkpoint.
    let other = TrainOptions {
        lr: 2e-3,
        ..options(folder.path(), "parts", None)
    };
    let error = train(&other).unwrap_err().to_string();
    assert!(
        error.contains("lr 0.001") && error.contains("lr 0.002"),
        "{error}"
    );
}
