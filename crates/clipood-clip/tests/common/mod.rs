//! Hash-made tensors: inputs and parameters that both sides of a reference value compute instead of storing.
#![allow(dead_code, clippy::unwrap_used)]

use clipood_clip::config::{
    Activation, ClipConfig, ImageConfig, ImageFamily, OPENAI_MEAN, OPENAI_STD, TextConfig,
};
use clipood_clip::weights::Weights;
use safetensors::SafeTensors;

/// `n` values in [-1, 1), exact in float32 (splitmix64 keyed by FNV-1a of `seed/name`).
pub fn hash_uniform(seed: &str, name: &str, n: usize) -> Vec<f32> {
    let mut key: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in format!("{seed}/{name}").bytes() {
        key = (key ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (1..=n as u64)
        .map(|i| {
            let mut z = key.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            ((z >> 40) as f64 / (1u64 << 23) as f64 - 1.0) as f32
        })
        .collect()
}

/// The parameters of the reference model `name`.
pub fn hash_weights(seed: &str, name: &str, config: &ClipConfig) -> Weights {
    let mut weights = Weights::new(name);
    for (tensor, shape) in config.parameters() {
        let n = shape.iter().product();
        let r = hash_uniform(seed, &format!("{name}/{tensor}"), n);
        let last = tensor.rsplit('.').next().unwrap_or_default();
        let data: Vec<f32> = if tensor == "logit_scale" {
            vec![100f32.ln()]
        } else if last == "running_var" || (last == "weight" && shape.len() == 1) {
            r.iter().map(|r| 1.0 + 0.1 * r).collect()
        } else if last.ends_with("bias")
            || last == "running_mean"
            || tensor == "token_embedding.weight"
            || tensor.ends_with("positional_embedding")
            || tensor.ends_with("class_embedding")
        {
            r.iter().map(|r| 0.1 * r).collect()
        } else {
            let fan_in: usize = if tensor == "visual.proj" || tensor == "text_projection" {
                shape[0]
            } else {
                shape[1..].iter().product()
            };
            let scale = (3.0f64 / fan_in as f64).sqrt() as f32;
            r.iter().map(|r| r * scale).collect()
        };
        weights.insert(tensor, shape, data);
    }
    weights
}

/// Largest difference of two slices relative to the largest absolute reference value.
pub fn relative_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len(), "lengths differ");
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    let worst = found
        .iter()
        .zip(expected)
        .map(|(a, b)| {
            if a.is_finite() {
                (a - b).abs()
            } else {
                f32::INFINITY
            }
        })
        .fold(0f32, f32::max);
    worst / largest
}

/// A file of `tests/data/models`.
pub fn model_file(file: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/models/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A float32 tensor of a reference file.
pub fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    file.tensor(name)
        .unwrap()
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

/// The reference configuration `name`.
pub fn config(name: &str) -> ClipConfig {
    let all: serde_json::Value = serde_json::from_slice(&model_file("configs.json")).unwrap();
    let c = &all[name];
    let size = |key: &str| c[key].as_u64().unwrap() as usize;
    let width = size("vision_width");
    let (family, heads) = match c["vision_layers"].as_array() {
        Some(stages) => {
            let layers: Vec<usize> = stages
                .iter()
                .map(|v| v.as_u64().unwrap() as usize)
                .collect();
            let layers = layers.try_into().unwrap();
            (ImageFamily::Resnet { layers }, width * 32 / 64)
        }
        None => {
            let layers = size("vision_layers");
            let patch = size("vision_patch_size");
            (ImageFamily::Vit { layers, patch }, width / 64)
        }
    };
    ClipConfig {
        embed_dim: size("embed_dim"),
        image: ImageConfig {
            size: size("image_resolution"),
            width,
            heads,
            family,
        },
        text: TextConfig {
            context: 77,
            vocab: 49408,
            width: size("transformer_width"),
            heads: size("transformer_heads"),
            layers: size("transformer_layers"),
        },
        activation: Activation::QuickGelu,
        mean: OPENAI_MEAN,
        std: OPENAI_STD,
    }
}
