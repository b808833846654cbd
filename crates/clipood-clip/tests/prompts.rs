//! Prompt learning against the reference: losses of five steps, first gradient, text features, final context, schedule.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use burn::backend::{Autodiff, Flex};
use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use clipood_clip::encoder::Clip;
use clipood_clip::prompt::{
    PatchLoss, PromptData, PromptLearner, PromptLoss, PromptOptions, PromptState, TrainOptions,
    Training, batch_step, learning_rate, sgd,
};
use clipood_clip::tokenizer::Tokenizer;
use clipood_clip::weights::tensor_to_vec;
use clipood_core::ClassToken;
use common::{config, floats, hash_uniform, hash_weights, relative_difference};
use safetensors::SafeTensors;

type B = Autodiff<Flex>;

const SEED: &str = "dev";

fn data(file: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn unit_rows(name: &str, rows: usize, dim: usize) -> Vec<f32> {
    let mut values = hash_uniform(SEED, name, rows * dim);
    for row in values.chunks_exact_mut(dim) {
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= norm);
    }
    values
}

#[test]
fn five_steps_of_every_method_and_position() {
    let json: serde_json::Value = serde_json::from_slice(&data("prompts.json")).unwrap();
    let bytes = data("prompts.safetensors");
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let config = config("tiny-vit");
    let device = Default::default();
    let clip = Clip::<B>::load(&hash_weights(SEED, "tiny-vit", &config), &config, &device)
        .unwrap()
        .no_grad();
    let tokenizer = Tokenizer::new();
    let strings = |key: &str| -> Vec<String> {
        let list = json[key].as_array().unwrap();
        list.iter().map(|v| v.as_str().unwrap().into()).collect()
    };
    let names = strings("classes");
    let labels: Vec<i32> = json["labels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_i64().unwrap() as i32)
        .collect();
    let patch = PatchLoss {
        lambda: json["lambda"].as_f64().unwrap(),
        top_k: json["topk"].as_u64().unwrap() as usize,
    };
    let prompt_data = PromptData {
        global: unit_rows("prompt/global", 8, 64),
        local: unit_rows("prompt/local", 8 * 9, 64),
        labels: labels.iter().map(|l| *l as u32).collect(),
        views: 1,
        patches: 9,
        dim: 64,
    };
    let cases = json["cases"].as_object().unwrap();
    assert_eq!(cases.len(), 12);
    for (case, values) in cases {
        let mut parts = case.split('/');
        let loss = match parts.next().unwrap() {
            "coop" => PromptLoss::Coop,
            "locoop" => PromptLoss::Locoop(patch),
            "sct" => PromptLoss::Sct(patch),
            other => panic!("{other}"),
        };
        let class_token = match parts.next().unwrap() {
            "end" => ClassToken::End,
            "middle" => ClassToken::Middle,
            "front" => ClassToken::Front,
            other => panic!("{other}"),
        };
        let class_specific = parts.next().unwrap() == "csc";
        let options = PromptOptions {
            n_ctx: 4,
            ctx_init: None,
            class_token,
            class_specific,
        };
        let learner = PromptLearner::new(&clip.text, &tokenizer, &names, &options).unwrap();
        let (name, rows) = if class_specific {
            ("prompt/ctx-csc", 48)
        } else {
            ("prompt/ctx", 4)
        };
        let scale = (0.02 * 3f64.sqrt()) as f32;
        let mut state = PromptState {
            context: hash_uniform(SEED, name, rows * 128)
                .iter()
                .map(|v| v * scale)
                .collect(),
            ..PromptState::default()
        };
        let context = TensorData::new(state.context.clone(), [rows, 128]);
        let text = learner
            .text_features(&clip.text, Tensor::from_data(context, &device))
            .unwrap();
        let near = |what: &str, found: &[f32], tolerance: f32| {
            let off = relative_difference(found, &floats(&expected, &format!("{case}/{what}")));
            assert!(off < tolerance, "{case} {what}: relative difference {off}");
        };
        near("text", &tensor_to_vec(text), 1e-4);
        let train = TrainOptions {
            loss,
            logit_scale: 100.0,
            epochs: 1,
            lr: 0.002,
            warmup_lr: 1e-5,
            momentum: 0.9,
            weight_decay: 5e-4,
            batch_size: 8,
            fresh_views: false,
            seed: 0,
        };
        let picked: Vec<usize> = (0..8).collect();
        for (step, expected_loss) in values["losses"].as_array().unwrap().iter().enumerate() {
            let training = Training {
                text: &clip.text,
                learner: &learner,
                data: &prompt_data,
                options: &train,
            };
            let found = batch_step(&training, &state.context, &picked, &labels).unwrap();
            if step == 0 {
                near("grad", &found.gradient, 1e-3);
            }
            let expected_loss = expected_loss.as_f64().unwrap() as f32;
            assert!(
                (found.loss - expected_loss).abs() < 1e-4 * expected_loss.abs().max(1.0),
                "{case} step {step}: loss {} instead of {expected_loss}",
                found.loss
            );
            sgd(
                &mut state,
                &found.gradient,
                train.lr,
                train.momentum,
                train.weight_decay,
            );
        }
        near("ctx_after", &state.context, 1e-3);
    }
}

#[test]
fn learning_rates_of_both_schedules() {
    let json: serde_json::Value = serde_json::from_slice(&data("prompts.json")).unwrap();
    for epochs in [20usize, 50] {
        let rates = json[format!("lr_{epochs}_epochs")].as_array().unwrap();
        assert_eq!(rates.len(), epochs);
        for (epoch, rate) in rates.iter().enumerate() {
            let found = learning_rate(epoch, epochs, 0.002, 1e-5);
            assert!(
                (found - rate.as_f64().unwrap()).abs() < 1e-12,
                "epoch {epoch} of {epochs}"
            );
        }
    }
}
