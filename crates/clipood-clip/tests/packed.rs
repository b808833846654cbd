//! Image towers in bf16 on a CPU that multiplies it, against the reference implementation in float32.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use clipood_clip::model::{Device, Dtype, EncodedImages, Model};
use common::{config, floats, hash_uniform, hash_weights, model_file, relative_difference};
use safetensors::SafeTensors;

const SEED: &str = "dev";
const NAMES: [&str; 2] = ["tiny-vit", "tiny-rn"];

/// Smallest cosine of two lists of rows of `width` values.
fn smallest_cosine(found: &[f32], expected: &[f32], width: usize) -> f64 {
    assert_eq!(found.len(), expected.len());
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    found
        .chunks_exact(width)
        .zip(expected.chunks_exact(width))
        .map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt())
        .map(|cosine| if cosine.is_nan() { -1.0 } else { cosine })
        .fold(1.0, f64::min)
}

/// The reference model's features of its two images together, and of the second one alone without patches.
fn encoded(model: &Model, name: &str, dtype: Dtype) -> [EncodedImages; 2] {
    let side = model.config.image.size;
    let encoder = model.image_encoder_as(Device::Cpu, dtype).unwrap();
    let pixels: Vec<f32> = hash_uniform(SEED, &format!("{name}/image"), 2 * 3 * side * side)
        .into_iter()
        .map(|v| 2.0 * v)
        .collect();
    let last = pixels[3 * side * side..].to_vec();
    [
        encoder.encode(pixels, true).unwrap(),
        encoder.encode(last, false).unwrap(),
    ]
}

#[test]
fn features_in_bf16_point_where_the_references_do() {
    for name in NAMES {
        check(name);
    }
}

/// What CPUs with the instructions compute, in plain code; in a process of its own, which is told so from its start.
#[test]
fn plain_code_in_bf16_does_the_same() {
    let mut tests = std::process::Command::new(std::env::current_exe().unwrap());
    tests
        .env("CLIPOOD_CPU", "bf16")
        .arg("features_in_bf16_point");
    let output = tests.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("1 passed"), "{printed}");
}

fn check(name: &str) {
    let config = config(name);
    let dim = config.embed_dim;
    let model = Model::new(config.clone(), hash_weights(SEED, name, &config)).unwrap();
    if !clipood_kernels::bf16::is_supported() {
        let error = model.image_encoder_as(Device::Cpu, Dtype::Bf16).err();
        assert!(error.unwrap().to_string().contains("AVX-512 BF16"));
        return;
    }
    let bytes = model_file(&format!("{name}.safetensors"));
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let [found, last] = encoded(&model, name, Dtype::Bf16);
    let [wide, _] = encoded(&model, name, Dtype::F32);
    for (what, found, wide) in [
        ("image_global", &found.global, &wide.global),
        ("image_local", &found.local, &wide.local),
    ] {
        let cosine = smallest_cosine(found, &floats(&expected, what), dim);
        assert!(cosine > 0.999, "{name} {what}: cosine {cosine}");
        // Closer than rounding to 8 bits allows would mean that nothing was rounded.
        let off = relative_difference(found, wide);
        assert!(
            off > 1e-5,
            "{name} {what}: relative difference {off} to float32"
        );
    }
    // Alone an image has the same features, up to inputs that float32's own rounding moves across the middle of two bf16.
    assert!(last.local.is_empty());
    let off = relative_difference(&last.global, &found.global[dim..]);
    assert!(off < 1e-2, "{name} alone: relative difference {off}");
}
