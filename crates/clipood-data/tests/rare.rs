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

/// What Pillow reads and this crate names as unsupported.
const NOT_READ: [&str; 4] = [
    "tiff_cielab_bare.tif",
    "tiff_grey_lzma.tif",
    "tiff_lab.tif",
    "tiff_rgb_lzma.tif",
];

/// What is read with other pixels: where two restart markers in a row are lost, libjpeg leaves the second interval grey, and
/// libjpeg-turbo-rs decodes its first block from bits of 0, as both do with the first interval. In compressed numbers that
/// start with their high byte, Pillow exchanges bytes that libtiff has exchanged already.
const OTHER_PIXELS: [&str; 2] = [
    "jpeg_restart_lost_two.jpg",
    "tiff_float_big_endian_deflate.tif",
];

/// What Pillow refuses and this crate reads: layouts and depths of BMP, PAM, and PNG files with
/// texts or profiles that are too large, which are never decompressed here.
const ALSO_READ: [&str; 8] = [
    "bmp_32_masks_rgb.bmp",
    "bmp_444_masks.bmp",
    "bmp_palette2.bmp",
    "bmp_palette2_short.bmp",
    "bmp_rle8_delta.bmp",
    "png_profile_bomb.png",
    "png_text_bomb.png",
    "pnm_pam.pam",
];

#[test]
fn what_pillow_reads_has_its_pixels() {
    let file = fs::read(folder().join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&file).unwrap();
    let expected: BTreeMap<_, _> = expected.tensors().into_iter().collect();
    let mut problems = Vec::new();
    for (name, tensor) in &expected {
        let bytes = fs::read(folder().join(name)).unwrap();
        match decode(&bytes, &DecodeLimits::default()) {
            Err(_) if NOT_READ.contains(&name.as_str()) => {}
            Err(error) => problems.push(format!("{name}: {error}")),
            // The list must stay true.
            Ok(_) if NOT_READ.contains(&name.as_str()) => problems.push(format!("{name} is read")),
            Ok(image) if OTHER_PIXELS.contains(&name.as_str()) => {
                if image.pixels == tensor.data() {
                    problems.push(format!("{name} has Pillow's pixels"));
                }
            }
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
            Err(error) if ALSO_READ.contains(&name.as_str()) => {
                problems.push(format!("{name}: {error}"));
            }
            Err(error) => println!("{name}: {error}"),
            Ok(_) if ALSO_READ.contains(&name.as_str()) => {}
            Ok(_) => problems.push(format!("{name} was read, Pillow: {reason}")),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
