//! Decoding and views compared with Pillow and torchvision on the same files.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clipood_data::{CropBox, DecodeLimits, decode, eval_view, train_view};
use safetensors::SafeTensors;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn image(folder: &Path, name: &str) -> clipood_data::RgbImage {
    let bytes = fs::read(folder.join(name)).unwrap();
    decode(&bytes, &DecodeLimits::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// (fraction of bytes that differ, largest difference, mean difference)
fn difference(found: &[u8], expected: &[u8]) -> (f64, u8, f64) {
    assert_eq!(found.len(), expected.len());
    let each = found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
    let n = found.len() as f64;
    let differing = each.clone().filter(|d| *d > 0).count() as f64 / n;
    let sum: f64 = each.clone().map(f64::from).sum();
    (differing, each.max().unwrap_or(0), sum / n)
}

/// Exact equality.
fn check(name: &str, found: &[u8], expected: &[u8]) {
    let (differing, worst, average) = difference(found, expected);
    assert!(
        worst == 0,
        "{name}: {:.2}% of the bytes differ, by up to {worst}, {average:.4} on average",
        differing * 100.0
    );
}

#[test]
fn evaluation_and_training_views_are_torchvisions() {
    let folder = folder("preprocess");
    let file = fs::read(folder.join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&file).unwrap();
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let mut seen = (0, 0);
    for (name, tensor) in expected.tensors() {
        assert_eq!(tensor.shape(), [224, 224, 3]);
        let found = match name.strip_prefix("crop/") {
            None => {
                seen.0 += 1;
                eval_view(&image(&folder, &name), 224)
            }
            Some(file) => {
                seen.1 += 1;
                let crop = &json["crops"][file];
                let place = |i: usize| crop["top_left_height_width"][i].as_u64().unwrap() as u32;
                let crop = CropBox {
                    top: place(0),
                    left: place(1),
                    height: place(2),
                    width: place(3),
                    mirror: crop["mirror"].as_bool().unwrap(),
                };
                train_view(&image(&folder, file), &crop, 224)
            }
        };
        check(&name, &found, tensor.data());
    }
    assert_eq!(seen, (25, 4));
}

#[test]
fn every_mode_decodes_to_pillows_rgb() {
    let folder = folder("modes");
    let file = fs::read(folder.join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&file).unwrap();
    let names: BTreeMap<_, _> = expected.tensors().into_iter().collect();
    assert_eq!(names.len(), 44);
    for (name, tensor) in names {
        let found = image(&folder, &name);
        let shape = [found.height as usize, found.width as usize, 3];
        assert_eq!(tensor.shape(), shape, "{name}");
        check(&name, &found.pixels, tensor.data());
    }
}
