//! Models with the exact GELU and their own preprocessing, against open_clip and transformers (`data/gelu/make.py`).

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Read;
use std::path::PathBuf;

use clipood_clip::checkpoint::OpenOptions;
use clipood_clip::config::Activation;
use clipood_clip::model::{Device, Model};
use common::{floats, relative_difference};
use safetensors::SafeTensors;

/// Checks the folder that these files make against the reference values called `name`.
fn check(name: &str, weights: &str, configs: &[&str]) {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/gelu");
    let folder = tempfile::tempdir().unwrap();
    for config in configs {
        std::fs::copy(data.join(config), folder.path().join(config)).unwrap();
    }
    let packed = std::fs::File::open(data.join(format!("{weights}.gz"))).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed)
        .read_to_end(&mut bytes)
        .unwrap();
    std::fs::write(folder.path().join(weights), bytes).unwrap();

    let model = Model::open(folder.path(), &OpenOptions::default()).unwrap();
    assert!(model.warnings().is_empty(), "{:?}", model.warnings());
    assert_eq!(model.config.activation, Activation::Gelu);
    assert_eq!(model.config.mean, [0.5, 0.25, 0.375]);
    assert_eq!(model.config.std, [0.25, 0.5, 0.375]);

    let bytes = std::fs::read(data.join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let features = |model: &Model| {
        let pixels = (0..2 * 3 * 32 * 32)
            .map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0)
            .collect();
        let image = model.image_encoder(Device::Cpu).unwrap();
        let texts = ["a photo of a cat", "two dogs, one of them asleep"].map(String::from);
        let text = model.text_encoder(Device::Cpu).unwrap();
        [
            ("image", image.encode(pixels, false).unwrap().global),
            ("text", text.encode(&texts).unwrap()),
        ]
    };
    let off = |what: &str, found: &[f32]| {
        let expected = floats(&expected, &format!("{name}/{what}"));
        relative_difference(found, &expected)
    };
    for (what, found) in features(&model) {
        let off = off(what, &found);
        assert!(off < 1e-4, "{name} {what}: relative difference {off}");
    }

    // The tolerance tells the activations apart.
    let options = OpenOptions {
        activation: Some(Activation::QuickGelu),
    };
    let other = Model::open(folder.path(), &options).unwrap();
    for (what, found) in features(&other) {
        assert!(off(what, &found) > 1e-3, "{name} {what}");
    }
}

#[test]
fn open_clip_with_gelu() {
    let config = "open_clip_config.json";
    check("open_clip", "open_clip_model.safetensors", &[config]);
}

#[test]
fn hugging_face_with_gelu() {
    let configs = ["config.json", "preprocessor_config.json"];
    check("hugging_face", "model.safetensors", &configs);
}
