//! What a GPU runs, as far as a CPU can: pixels sent as bytes, towers and prompt steps in half precision.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use burn::backend::{Autodiff, Flex};
use burn::module::Module;
use burn::tensor::{FloatDType, Tensor, TensorData};
use clipood_clip::encoder::{Clip, ImageTower, upload};
use clipood_clip::model::{Device, Dtype, Model};
use clipood_clip::prompt::{
    PromptData, PromptLearner, PromptLoss, PromptOptions, TrainOptions, Training, batch_step,
};
use clipood_clip::text::TextTransformer;
use clipood_clip::tokenizer::Tokenizer;
use clipood_clip::weights::tensor_to_vec;
use clipood_core::ClassToken;
use common::{config, hash_uniform, hash_weights, relative_difference};

const SEED: &str = "dev";

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Bytes as an image decodes, `[images, side, side, 3]`.
fn bytes(images: usize, side: usize) -> Vec<u8> {
    hash_uniform(SEED, "half/bytes", images * side * side * 3)
        .iter()
        .map(|v| (127.5 * (v + 1.0)) as u8)
        .collect()
}

#[test]
fn bytes_give_the_features_of_normalised_pixels() {
    for name in ["tiny-vit", "tiny-rn"] {
        let config = config(name);
        let side = config.image.size;
        let model = Model::new(config.clone(), hash_weights(SEED, name, &config)).unwrap();
        let encoder = model.image_encoder(Device::Cpu).unwrap();
        let bytes = bytes(3, side);
        let mut pixels = Vec::new();
        for image in bytes.chunks_exact(3 * side * side) {
            for channel in 0..3 {
                let (mean, std) = (config.mean[channel], config.std[channel]);
                let values = image.iter().skip(channel).step_by(3);
                pixels.extend(values.map(|v| (f32::from(*v) / 255.0 - mean) / std));
            }
        }
        let expected = encoder.encode(pixels, true).unwrap();
        let found = encoder.encode_bytes(bytes, true).unwrap();
        for (found, expected) in [
            (&found.global, &expected.global),
            (&found.local, &expected.local),
        ] {
            let off = relative_difference(found, expected);
            assert!(off < 1e-5, "{name}: relative difference {off}");
        }
        assert!(encoder.encode_bytes(vec![0; 7], false).is_err());
    }
}

#[test]
fn towers_in_bf16_keep_the_direction_of_features() {
    for name in ["tiny-vit", "tiny-rn"] {
        let config = config(name);
        let device = Default::default();
        let weights = hash_weights(SEED, name, &config);
        let tower = ImageTower::<Flex>::load(&weights, &config, &device).unwrap();
        let side = config.image.size;
        let pixels = upload::<Flex>(bytes(3, side), side, config.mean, config.std, &device);
        let expected = tower.forward(pixels.clone(), true);
        let half = tower.cast(FloatDType::BF16);
        let found = half.forward(pixels.cast(FloatDType::BF16), true);
        for (found, expected) in [
            (tensor_to_vec(found.global), tensor_to_vec(expected.global)),
            (
                tensor_to_vec(found.local.unwrap()),
                tensor_to_vec(expected.local.unwrap()),
            ),
        ] {
            let dim = config.embed_dim;
            for (found, expected) in found.chunks_exact(dim).zip(expected.chunks_exact(dim)) {
                let cosine = cosine(found, expected);
                assert!(cosine > 0.999, "{name}: cosine {cosine}");
            }
        }
    }
}

#[test]
fn prompt_steps_in_bf16_go_the_same_way() {
    type B = Autodiff<Flex>;
    let config = config("tiny-vit");
    let device = Default::default();
    let weights = hash_weights(SEED, "tiny-vit", &config);
    let text = Clip::<B>::load(&weights, &config, &device)
        .unwrap()
        .text
        .no_grad();
    let half = text.clone().cast(FloatDType::BF16);
    let names: Vec<String> = ["red kite", "mute swan", "wren"].map(String::from).to_vec();
    let unit = |name: &str, rows: usize| {
        let mut values = hash_uniform(SEED, name, rows * config.embed_dim);
        for row in values.chunks_exact_mut(config.embed_dim) {
            let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            row.iter_mut().for_each(|v| *v /= norm);
        }
        values
    };
    let data = PromptData {
        global: unit("half/global", 6),
        local: Vec::new(),
        labels: vec![0, 1, 2, 0, 1, 2],
        views: 1,
        patches: 0,
        dim: config.embed_dim,
    };
    let options = TrainOptions {
        loss: PromptLoss::Coop,
        logit_scale: 10.0,
        epochs: 1,
        lr: 0.002,
        warmup_lr: 1e-5,
        momentum: 0.9,
        weight_decay: 5e-4,
        batch_size: 6,
        fresh_views: false,
        seed: 0,
    };
    // At the end the prefix is shared; in the middle every prompt is dense and causal.
    for class_token in [ClassToken::End, ClassToken::Middle] {
        let prompt = PromptOptions {
            n_ctx: 4,
            ctx_init: None,
            class_token,
            class_specific: false,
        };
        let tokenizer = Tokenizer::new();
        let step = |text: &TextTransformer<B>| {
            let learner = PromptLearner::new(text, &tokenizer, &names, &prompt).unwrap();
            let context = learner.initial_context(text, &tokenizer, &prompt, 0);
            let context = context.unwrap();
            let rows = TensorData::new(context.clone(), [4, text.width()]);
            let features = learner.text_features(text, Tensor::from_data(rows, &device));
            let picked: Vec<usize> = (0..6).collect();
            let labels = [0, 1, 2, 0, 1, 2];
            let training = Training {
                text,
                learner: &learner,
                data: &data,
                options: &options,
            };
            let step = batch_step(&training, &context, &picked, &labels);
            (tensor_to_vec(features.unwrap()), step.unwrap())
        };
        let (expected_text, expected) = step(&text);
        let (found_text, found) = step(&half);
        let cosine_of = |a: &[f32], b: &[f32], least: f32| {
            let cosine = cosine(a, b);
            assert!(cosine > least, "{class_token:?}: cosine {cosine}");
        };
        cosine_of(&found_text, &expected_text, 0.999);
        cosine_of(&found.gradient, &expected.gradient, 0.98);
        assert!((found.loss - expected.loss).abs() < 0.05 * expected.loss);
    }
}

#[test]
fn a_cpu_refuses_formats_that_it_does_not_compute_in() {
    let model = |name: &str| {
        let config = config(name);
        Model::new(config.clone(), hash_weights(SEED, name, &config)).unwrap()
    };
    let (vit, resnet) = (model("tiny-vit"), model("tiny-rn"));
    let bf16 = clipood_kernels::bf16::is_supported();
    let lacking = (!bf16).then_some("AVX-512 BF16");
    for (dtype, model, named) in [
        (Dtype::F32, &vit, None),
        (Dtype::F32, &resnet, None),
        (Dtype::Tf32, &vit, Some("tf32")),
        (Dtype::F16, &vit, Some("f16")),
        (Dtype::F16, &resnet, Some("f16")),
        (Dtype::Bf16, &vit, lacking),
        (Dtype::Bf16, &resnet, lacking.or(Some("ModifiedResNet"))),
    ] {
        let error = model.image_encoder_as(Device::Cpu, dtype).err();
        let error = error.map(|e| e.to_string());
        match (named, &error) {
            (None, None) => {}
            (Some(named), Some(error)) => assert!(error.contains(named), "{dtype}: {error}"),
            _ => panic!("{dtype}: expected {named:?}, found {error:?}"),
        }
    }
    // The text tower is float32 beside an image tower in bf16.
    assert!(vit.prompt_trainer_as(Device::Cpu, Dtype::F16).is_err());
    assert_eq!(
        vit.prompt_trainer_as(Device::Cpu, Dtype::Bf16).is_ok(),
        bf16
    );
}
