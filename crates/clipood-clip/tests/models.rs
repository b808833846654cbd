//! Image and text features of every reference configuration, at full size, against the reference implementation.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use clipood_clip::encoder::Clip;
use clipood_clip::model::{Device, Model};
use clipood_clip::text::cut;
use clipood_clip::tokenizer::Tokenizer;
use clipood_clip::weights::tensor_to_vec;
use common::{config, floats, hash_uniform, hash_weights, model_file, relative_difference};
use safetensors::SafeTensors;

const SEED: &str = "dev";

fn check(name: &str) {
    let config = config(name);
    let weights = hash_weights(SEED, name, &config);
    let device = Default::default();
    let clip = Clip::<Flex>::load(&weights, &config, &device).unwrap();
    let model = Model::new(config.clone(), weights).unwrap();
    let encoder = model.image_encoder(Device::Cpu).unwrap();
    // One text is shared out among the threads, several are divided among them.
    let texts: Vec<String> = (0..9)
        .map(|i| format!("a photo of {}a bird", "quite ".repeat(i)))
        .collect();
    for texts in [&texts[..], &texts[..1]] {
        let ids: Vec<u32> = (texts.iter())
            .flat_map(|text| Tokenizer::new().tokenize(text, 77).unwrap())
            .collect();
        let stock = tensor_to_vec(clip.text.encode(&cut(&ids, 77).unwrap()).unwrap());
        let text_encoder = model.text_encoder(Device::Cpu).unwrap();
        let off = relative_difference(&text_encoder.encode(texts).unwrap(), &stock);
        assert!(off < 1e-5, "{name} texts: relative difference {off}");
    }
    drop(model);
    let bytes = model_file(&format!("{name}.safetensors"));
    let expected = SafeTensors::deserialize(&bytes).unwrap();

    let side = config.image.size;
    let pixels: Vec<f32> = hash_uniform(SEED, &format!("{name}/image"), 2 * 3 * side * side)
        .into_iter()
        .map(|v| 2.0 * v)
        .collect();
    let alone = encoder
        .encode(pixels[3 * side * side..].to_vec(), true)
        .unwrap();
    let encoded = encoder.encode(pixels.clone(), true).unwrap();
    // One image, whose work all threads share, has the features that it has among others.
    for (alone, among) in [
        (&alone.global, &encoded.global),
        (&alone.local, &encoded.local),
    ] {
        let off = relative_difference(alone, &among[alone.len()..]);
        assert!(off < 1e-5, "{name} alone: relative difference {off}");
    }
    let pixels = Tensor::from_data(TensorData::new(pixels, [2, 3, side, side]), &device);
    let features = clip.image.forward(pixels, true);
    for (what, found) in [
        ("image_global", tensor_to_vec(features.global)),
        ("image_local", tensor_to_vec(features.local.unwrap())),
        ("image_global", encoded.global),
        ("image_local", encoded.local),
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

/// The slower instruction sets of this CPU, each in a process of its own, because a process chooses once.
#[test]
fn slower_instructions_compute_the_same() {
    for instructions in ["avx2", "plain"] {
        let mut tests = std::process::Command::new(std::env::current_exe().unwrap());
        tests.env("CLIPOOD_CPU", instructions).arg("tiny_");
        let output = tests.output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{instructions}: {printed}");
        assert!(printed.contains("2 passed"), "{instructions}: {printed}");
    }
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
