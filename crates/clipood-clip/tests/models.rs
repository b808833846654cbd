//! Image and text features of every reference configuration, at full size, against the reference implementation.

mod common;

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use clipood_clip::config::{
    Activation, ClipConfig, ImageConfig, ImageFamily, OPENAI_MEAN, OPENAI_STD, TextConfig,
};
use clipood_clip::encoder::Clip;
use clipood_clip::text::cut;
use clipood_clip::weights::tensor_to_vec;
use common::{hash_uniform, hash_weights, relative_difference};
use safetensors::SafeTensors;

const SEED: &str = "dev";

fn data(file: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/models/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    file.tensor(name)
        .unwrap()
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn config(name: &str) -> ClipConfig {
    let all: serde_json::Value = serde_json::from_slice(&data("configs.json")).unwrap();
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

fn check(name: &str) {
    let config = config(name);
    let weights = hash_weights(SEED, name, &config);
    let device = Default::default();
    let clip = Clip::<Flex>::load(&weights, &config, &device).unwrap();
    drop(weights);
    let bytes = data(&format!("{name}.safetensors"));
    let expected = SafeTensors::deserialize(&bytes).unwrap();

    let side = config.image.size;
    let pixels: Vec<f32> = hash_uniform(SEED, &format!("{name}/image"), 2 * 3 * side * side)
        .into_iter()
        .map(|v| 2.0 * v)
        .collect();
    let pixels = Tensor::from_data(TensorData::new(pixels, [2, 3, side, side]), &device);
    let features = clip.image.forward(pixels, true);
    for (what, found) in [
        ("image_global", tensor_to_vec(features.global)),
        ("image_local", tensor_to_vec(features.local.unwrap())),
    ] {
        let off = relative_difference(&found, &floats(&expected, what));
        assert!(off < 1e-4, "{name} {what}: relative difference {off}");
    }

    let ids: Vec<u32> = expected
        .tensor("token_ids")
        .unwrap()
        .data()
        .chunks_exact(4)
        .map(|b| u32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let text = tensor_to_vec(clip.text.encode(&cut(&ids, 77).unwrap()).unwrap());
    let off = relative_difference(&text, &floats(&expected, "text"));
    assert!(off < 1e-4, "{name} text: relative difference {off}");
}

#[test]
fn tiny_vit() {
    check("tiny-vit");
}

#[test]
fn tiny_rn() {
    check("tiny-rn");
}

#[test]
fn vit_b_32() {
    check("ViT-B-32");
}

#[test]
fn vit_b_16() {
    check("ViT-B-16");
}

#[test]
fn vit_l_14() {
    check("ViT-L-14");
}

#[test]
fn rn50() {
    check("RN50");
}
