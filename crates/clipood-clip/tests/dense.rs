//! The packed prompt step against the dense one: every class as 77 tokens, each layer of stock operations, as the reference
//! code has it.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::OnceLock;

use burn::backend::{Autodiff, Flex};
use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use clipood_clip::encoder::{Clip, normalise};
use clipood_clip::prompt::{
    PatchLoss, PromptData, PromptLearner, PromptLoss, PromptOptions, TrainOptions, Training,
    batch_step,
};
use clipood_clip::tokenizer::{EOT, SOT, Tokenizer};
use clipood_clip::weights::tensor_to_vec;
use clipood_core::ClassToken;
use common::{config, hash_uniform, hash_weights, relative_difference};
use proptest::prelude::*;

type B = Autodiff<Flex>;

const CONTEXT: usize = 77;
const WIDTH: usize = 128;
const DIM: usize = 64;
const PATCHES: usize = 9;
const BATCH: usize = 4;

fn clip() -> &'static Clip<B> {
    static CLIP: OnceLock<Clip<B>> = OnceLock::new();
    CLIP.get_or_init(|| {
        let config = config("tiny-vit");
        let weights = hash_weights("dev", "tiny-vit", &config);
        Clip::load(&weights, &config, &Default::default())
            .unwrap()
            .no_grad()
    })
}

fn unit_rows(name: &str, rows: usize) -> Vec<f32> {
    let mut values = hash_uniform("dense", name, rows * DIM);
    for row in values.chunks_exact_mut(DIM) {
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= norm);
    }
    values
}

/// Loss and gradient of the context, with nothing shared, cut or packed.
fn dense(
    names: &[String],
    options: &PromptOptions,
    context: &[f32],
    data: &PromptData,
    train: &TrainOptions,
    labels: &[i32],
) -> (f32, Vec<f32>) {
    let (device, tokenizer, text) = (Default::default(), Tokenizer::new(), &clip().text);
    let rows = context.len() / WIDTH;
    // Row of the context that stands at each place, or none.
    let (mut ids, mut places, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for (class, name) in names.iter().enumerate() {
        let own = tokenizer.encode(name);
        let stop = tokenizer.encode(&format!("{name}."))[own.len()..].to_vec();
        let first = if options.class_specific {
            class * options.n_ctx
        } else {
            0
        };
        let vectors: Vec<Option<usize>> = (first..first + options.n_ctx).map(Some).collect();
        let half = match options.class_token {
            ClassToken::End => options.n_ctx,
            ClassToken::Middle => options.n_ctx / 2,
            ClassToken::Front => 0,
        };
        let mut row: Vec<(u32, Option<usize>)> = vec![(SOT, None)];
        row.extend(vectors[..half].iter().map(|v| (0, *v)));
        row.extend(own.iter().map(|id| (*id, None)));
        row.extend(vectors[half..].iter().map(|v| (0, *v)));
        row.extend(stop.iter().map(|id| (*id, None)));
        ends.push(row.len());
        row.push((EOT, None));
        row.resize(CONTEXT, (0, None));
        for (id, place) in row {
            places.push(place.map_or(ids.len(), |vector| names.len() * CONTEXT + vector) as i32);
            ids.push(id);
        }
    }
    let leaf = Tensor::<B, 2>::from_data(TensorData::new(context.to_vec(), [rows, WIDTH]), &device)
        .require_grad();
    let fixed = text
        .embed(&ids, names.len(), CONTEXT)
        .unwrap()
        .reshape([names.len() * CONTEXT, WIDTH]);
    let index = Tensor::<B, 1, Int>::from_data(TensorData::new(places, [ids.len()]), &device);
    let embedded = Tensor::cat(vec![fixed, leaf.clone()], 0)
        .select(0, index)
        .reshape([names.len(), CONTEXT, WIDTH]);
    let features = normalise(text.forward(embedded, &ends).unwrap());
    let global = Tensor::from_data(TensorData::new(data.global.clone(), [BATCH, DIM]), &device);
    let local = train.loss.uses_patches().then(|| {
        Tensor::from_data(
            TensorData::new(data.local.clone(), [BATCH, PATCHES, DIM]),
            &device,
        )
    });
    let labels = Tensor::from_data(TensorData::new(labels.to_vec(), [BATCH]), &device);
    let step = train
        .loss
        .step(features, global, local, labels, train.logit_scale)
        .unwrap();
    let loss = tensor_to_vec(step.loss.clone())[0];
    let grads = step.loss.backward();
    (loss, tensor_to_vec(leaf.grad(&grads).unwrap()))
}

const NAMES: [&str; 8] = [
    "fish",
    "great white shark",
    "sign",
    "black and gold garden spider",
    "T-shirt",
    "crème brûlée",
    "crossword",
    "three-toed sloth of the rain forest",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn loss_and_gradient_are_those_of_77_tokens(
        seed in 0usize..10_000,
        names in prop::sample::subsequence(&NAMES[..], 2..=8),
        n_ctx in 1usize..=16,
        position in 0usize..3,
        class_specific: bool,
        loss in 0usize..3,
    ) {
        let names: Vec<String> = names.into_iter().map(String::from).collect();
        let options = PromptOptions {
            n_ctx,
            ctx_init: None,
            class_token: [ClassToken::End, ClassToken::Middle, ClassToken::Front][position],
            class_specific,
        };
        let learner = PromptLearner::new(&clip().text, &Tokenizer::new(), &names, &options).unwrap();
        let rows = learner.context_rows();
        let context: Vec<f32> = hash_uniform("dense", &format!("ctx/{seed}"), rows * WIDTH)
            .iter()
            .map(|v| v * 0.05)
            .collect();
        let patch = PatchLoss { lambda: 0.25, top_k: 1 };
        let labels: Vec<i32> = (0..BATCH).map(|i| ((i + seed) % names.len()) as i32).collect();
        let data = PromptData {
            global: unit_rows(&format!("global/{seed}"), BATCH),
            local: unit_rows(&format!("local/{seed}"), BATCH * PATCHES),
            labels: labels.iter().map(|l| *l as u32).collect(),
            views: 1,
            patches: PATCHES,
            dim: DIM,
        };
        let train = TrainOptions {
            loss: [PromptLoss::Coop, PromptLoss::Locoop(patch), PromptLoss::Sct(patch)][loss],
            // With 100 a few random features make losses near 0, whose gradients are noise.
            logit_scale: 10.0,
            epochs: 1,
            lr: 0.002,
            warmup_lr: 1e-5,
            momentum: 0.9,
            weight_decay: 5e-4,
            batch_size: BATCH,
            fresh_views: false,
            seed: 0,
        };
        let picked: Vec<usize> = (0..BATCH).collect();
        let training = Training { text: &clip().text, learner: &learner, data: &data, options: &train };
        let found = batch_step(&training, &context, &picked, &labels).unwrap();
        let (loss, gradient) = dense(&names, &options, &context, &data, &train, &labels);
        prop_assert!((found.loss - loss).abs() <= 1e-4 * loss.abs().max(1.0), "loss {} and {loss}", found.loss);
        let off = relative_difference(&found.gradient, &gradient);
        prop_assert!(off < 1e-4, "gradient: relative difference {off}");
    }
}
