//! A training that was stopped after any step ends with the bits of one that was not.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use clipood_clip::model::{Device, Dtype, Model, PromptTask, PromptTrainer};
use clipood_clip::prompt::{
    EpochLog, PatchLoss, PromptData, PromptLoss, PromptOptions, PromptState, TrainOptions,
};
use clipood_core::ClassToken;
use common::{config, hash_uniform, hash_weights};

const IMAGES: usize = 7;
const EPOCHS: usize = 3;
/// Two a batch of three; the last image of each epoch is left over.
const STEPS: usize = 2;

fn unit_rows(name: &str, rows: usize) -> Vec<f32> {
    let mut values = hash_uniform("resume", name, rows * 64);
    for row in values.chunks_exact_mut(64) {
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= norm);
    }
    values
}

/// Trains from `from` until `stop` says so; the last state and the logs of the epochs that ended.
fn train(
    trainer: &PromptTrainer,
    from: Option<PromptState>,
    stop: impl Fn(&PromptState) -> bool,
) -> (PromptState, Vec<EpochLog>) {
    let data = PromptData {
        global: unit_rows("global", IMAGES * 2),
        local: unit_rows("local", IMAGES * 2 * 9),
        labels: (0..IMAGES as u32).map(|i| i % 3).collect(),
        views: 2,
        patches: 9,
        dim: 64,
    };
    let options = TrainOptions {
        loss: PromptLoss::Locoop(PatchLoss {
            lambda: 0.25,
            top_k: 1,
        }),
        logit_scale: 100.0,
        epochs: EPOCHS,
        lr: 0.02,
        warmup_lr: 1e-5,
        momentum: 0.9,
        weight_decay: 5e-4,
        batch_size: 3,
        fresh_views: false,
        seed: 5,
    };
    let prompt = PromptOptions {
        n_ctx: 4,
        ctx_init: None,
        class_token: ClassToken::End,
        class_specific: false,
    };
    let names = ["fish", "striped cat", "sign"].map(String::from);
    let mut logs = Vec::new();
    let task = PromptTask {
        names: &names,
        prompt: &prompt,
        data: &data,
        train: &options,
    };
    let trained = trainer.train(&task, from, |log, state| {
        logs.extend(log.cloned());
        !stop(state)
    });
    (trained.unwrap().state, logs)
}

#[test]
fn a_stop_after_any_step_changes_no_bit() {
    let config = config("tiny-vit");
    let model = Model::new(config.clone(), hash_weights("dev", "tiny-vit", &config)).unwrap();
    let trainer = model.prompt_trainer_as(Device::Cpu, Dtype::F32).unwrap();
    let (whole, logs) = train(&trainer, None, |_| false);
    assert_eq!((whole.epoch, whole.step), (EPOCHS, EPOCHS * STEPS));
    assert_eq!(logs.len(), EPOCHS);
    for step in 1..EPOCHS * STEPS {
        let (stopped, first) = train(&trainer, None, |state| state.step == step);
        assert_eq!(stopped.step, step);
        assert_ne!(stopped.context, whole.context);
        let (resumed, rest) = train(&trainer, Some(stopped), |_| false);
        assert_eq!(resumed, whole, "stopped after step {step}");
        assert_eq!([first, rest].concat(), logs, "stopped after step {step}");
    }
}
