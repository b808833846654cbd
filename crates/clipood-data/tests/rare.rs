//! Rare and damaged files: the pixels that Pillow 12.3 reads, and an error where it reports one.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clipood_data::{DecodeLimits, decode};
use safetensors::SafeTensors;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rare")
}

#[test]
fn what_pillow_reads_has_its_pixels() {
    let file = fs::read(folder().join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&file).unwrap();
    let expected: BTreeMap<_, _> = expected.tensors().into_iter().collect();
    let mut problems = Vec::new();
    for (name, tensor) in &expected {
        let bytes = fs::read(folder().join(name)).unwrap();
        match decode(&bytes, &DecodeLimits::default()) {
            Err(error) => problems.push(format!("{name}: {error}")),
            Ok(image) => {
                let shape = [image.height as usize, image.width as usize, 3];
                let differing = image
                    .pixels
                    .iter()
                    .zip(tensor.data())
                    .filter(|(a, b)| a != b);
                let count = differing.clone().count();
                let worst = differing.map(|(a, b)| a.abs_diff(*b)).max();
                if shape != tensor.shape() {
                    problems.push(format!("{name}: {shape:?}, expected {:?}", tensor.shape()));
                } else if let Some(worst) = worst {
                    let all = image.pixels.len();
                    problems.push(format!(
                        "{name}: {count} of {all} bytes differ, by up to {worst}"
                    ));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn what_pillow_refuses_is_refused() {
    let refused = fs::read(folder().join("refused.json")).unwrap();
    let refused: BTreeMap<String, String> = serde_json::from_slice(&refused).unwrap();
    let mut problems = Vec::new();
    for (name, reason) in &refused {
        let bytes = fs::read(folder().join(name)).unwrap();
        match decode(&bytes, &DecodeLimits::default()) {
            Err(error) => println!("{name}: {error}"),
            // Refused by Pillow for the size of a text or a profile, which is never decompressed here.
            Ok(_) if name.ends_with("_bomb.png") => {}
            Ok(_) => problems.push(format!("{name} was read, Pillow: {reason}")),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
