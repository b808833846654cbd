//! Negative prompts: the loss against plain numpy (`data/negprompt/make.py`), its gradient through the text tower against
//! differences of the loss, and trainings that are stopped and resumed.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use burn::backend::{Autodiff, Flex};
use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use clipood_clip::encoder::{Clip, normalise};
use clipood_clip::model::{Device, Dtype, Model, NegativeTask, PromptTrainer, TrainedPrompt};
use clipood_clip::prompt::{
    CosineWaves, EpochLog, NegativeLoss, NegativeOptions, NegativeTraining, PromptData,
    PromptLearner, PromptOptions, PromptState, negative_step,
};
use clipood_clip::tokenizer::Tokenizer;
use clipood_clip::weights::tensor_to_vec;
use clipood_core::ClassToken;
use common::{config, floats, hash_uniform, hash_weights, relative_difference};
use safetensors::SafeTensors;

type B = Autodiff<Flex>;

const NAMES: [&str; 3] = ["fish", "striped cat", "sign"];
const WIDTH: usize = 128;
const DIM: usize = 64;
const N_CTX: usize = 4;
const PER_CLASS: usize = 2;
const IMAGES: usize = 7;
/// Two a batch of three; the last image of each epoch is left over.
const STEPS: usize = 2;

fn unit_rows(name: &str, rows: usize) -> Vec<f32> {
    let mut values = hash_uniform("negatives", name, rows * DIM);
    for row in values.chunks_exact_mut(DIM) {
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= norm);
    }
    values
}

fn images() -> PromptData {
    PromptData {
        global: unit_rows("global", IMAGES * 2),
        local: Vec::new(),
        labels: (0..IMAGES as u32).map(|i| i % 3).collect(),
        views: 2,
        patches: 0,
        dim: DIM,
    }
}

fn prompt(class_specific: bool) -> PromptOptions {
    PromptOptions {
        n_ctx: N_CTX,
        ctx_init: None,
        class_token: ClassToken::End,
        class_specific,
    }
}

/// A scale at which no sigmoid is so near 0 or 1 that differences of the loss are lost in f32.
fn options(epochs: usize) -> NegativeOptions {
    NegativeOptions {
        per_class: PER_CLASS,
        loss: NegativeLoss {
            distance: 0.1,
            diversity: 0.05,
        },
        logit_scale: 10.0,
        epochs,
        rates: CosineWaves {
            base: 0.1,
            fall: 50,
        },
        batch_size: 3,
        fresh_views: false,
        seed: 5,
    }
}

#[test]
fn loss_gradient_and_rates_hold_their_reference_values() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/negprompt/expected.safetensors"
    );
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let device = Default::default();
    let tensor = |name: &str| -> (Vec<f32>, Vec<usize>) {
        let shape = file.tensor(name).unwrap().shape().to_vec();
        (floats(&file, name), shape)
    };
    let matrix = |name: &str| {
        let (values, shape) = tensor(name);
        Tensor::<B, 2>::from_data(TensorData::new(values, shape), &device)
    };
    let (values, shape) = tensor("raw");
    let raw = Tensor::<B, 3>::from_data(TensorData::new(values, shape), &device).require_grad();
    let labels: Vec<i32> = floats(&file, "labels").iter().map(|l| *l as i32).collect();
    let labels = TensorData::new(labels.clone(), [labels.len()]);
    let labels = Tensor::<B, 1, Int>::from_data(labels, &device);
    let scale = f64::from(floats(&file, "scale")[0]);
    let weights = floats(&file, "weights");
    let loss_of = |distance: f64, diversity: f64| {
        let loss = NegativeLoss {
            distance,
            diversity,
        };
        let negative = normalise(raw.clone());
        let (positive, images) = (matrix("positive"), matrix("images"));
        loss.step(positive, negative, images, labels.clone(), scale)
    };
    let near =
        |found: f32, expected: f32| (found - expected).abs() < 1e-5 * expected.abs().max(1.0);

    let terms = floats(&file, "terms");
    let value = |distance: f64, diversity: f64| tensor_to_vec(loss_of(distance, diversity).loss)[0];
    let image = value(0.0, 0.0);
    assert!(near(image, terms[0]), "{image}, expected {}", terms[0]);
    for (found, expected) in [(value(1.0, 0.0), terms[1]), (value(0.0, 1.0), terms[2])] {
        assert!(near(found - image, expected), "{found}: {terms:?}");
    }

    let step = loss_of(f64::from(weights[0]), f64::from(weights[1]));
    let logits = tensor_to_vec(step.logits);
    let expected = matrix("images").matmul(matrix("positive").transpose()) * scale;
    assert!(relative_difference(&logits, &tensor_to_vec(expected)) < 1e-6);
    let found = tensor_to_vec(step.loss.clone())[0];
    let expected = floats(&file, "loss")[0];
    assert!(near(found, expected), "{found}, expected {expected}");
    let grads = step.loss.backward();
    let gradient = tensor_to_vec(raw.grad(&grads).unwrap());
    let expected = floats(&file, "gradient");
    assert!(relative_difference(&gradient, &expected) < 2e-5);

    // Six steps in each of five epochs.
    let rates = CosineWaves { base: 0.1, fall: 7 };
    let found: Vec<f32> = (0..30).map(|s| rates.rate(s / 6, s) as f32).collect();
    assert!(relative_difference(&found, &floats(&file, "rates")) < 1e-6);
}

#[test]
fn the_gradient_is_the_slope_of_the_loss() {
    let config = config("tiny-vit");
    let weights = hash_weights("dev", "tiny-vit", &config);
    let clip = Clip::<B>::load(&weights, &config, &Default::default())
        .unwrap()
        .no_grad();
    let names = NAMES.map(String::from);
    let data = images();
    let options = options(1);
    for class_specific in [false, true] {
        let prompt = prompt(class_specific);
        let learner = PromptLearner::new(&clip.text, &Tokenizer::new(), &names, &prompt).unwrap();
        let positive = unit_rows("positive", NAMES.len());
        let training = NegativeTraining {
            text: &clip.text,
            learner: &learner,
            positive: &positive,
            data: &data,
            options: &options,
        };
        let values = PER_CLASS * learner.context_rows() * WIDTH;
        let contexts: Vec<f32> = hash_uniform("negatives", "contexts", values)
            .iter()
            .map(|v| 0.1 * v)
            .collect();
        let (picked, labels) = ([0, 3, 4, 9], [0, 1, 2, 1]);
        let step = |contexts: &[f32]| negative_step(&training, contexts, &picked, &labels).unwrap();
        let gradient = step(&contexts).gradient;
        assert_eq!(gradient.len(), values);
        // Each negative alone, so that none of them can hide behind another.
        for number in 0..PER_CLASS {
            let mut direction = hash_uniform("negatives", "direction", values);
            for (at, value) in direction.iter_mut().enumerate() {
                if at * PER_CLASS / values != number {
                    *value = 0.0;
                }
            }
            let moved = |size: f32| -> f64 {
                let moved = contexts.iter().zip(&direction).map(|(c, d)| c + size * d);
                f64::from(step(&moved.collect::<Vec<_>>()).loss)
            };
            let slope = (moved(2e-3) - moved(-2e-3)) / 4e-3;
            let products = gradient.iter().zip(&direction);
            let expected: f64 = products.map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
            let difference = (slope - expected).abs();
            assert!(
                expected.abs() > 1e-3 && difference < 0.02 * expected.abs(),
                "negative {number}: slope {slope}, gradient {expected}"
            );
        }
    }
}

fn model() -> Model {
    let config = config("tiny-vit");
    let weights = hash_weights("dev", "tiny-vit", &config);
    Model::new(config, weights).unwrap()
}

fn train(
    trainer: &PromptTrainer,
    (data, options): (&PromptData, &NegativeOptions),
    from: Option<PromptState>,
    stop: impl Fn(&PromptState) -> bool,
) -> (TrainedPrompt, Vec<EpochLog>) {
    let names = NAMES.map(String::from);
    let context: Vec<f32> = hash_uniform("negatives", "positive context", N_CTX * WIDTH)
        .iter()
        .map(|v| 0.1 * v)
        .collect();
    let mut logs = Vec::new();
    let task = NegativeTask {
        names: &names,
        prompt: &prompt(false),
        positive_context: &context,
        positive_text: &unit_rows("positive", NAMES.len()),
        data,
        train: options,
    };
    let trained = trainer.train_negatives(&task, from, |log, state| {
        logs.extend(log.cloned());
        !stop(state)
    });
    (trained.unwrap(), logs)
}

#[test]
fn a_training_on_all_images_at_once_lowers_its_loss() {
    let data = PromptData {
        global: unit_rows("global", IMAGES),
        views: 1,
        ..images()
    };
    let options = NegativeOptions {
        batch_size: IMAGES,
        rates: CosineWaves {
            base: 0.02,
            fall: 50,
        },
        ..options(8)
    };
    let trainer = model().prompt_trainer_as(Device::Cpu, Dtype::F32).unwrap();
    let (_, logs) = train(&trainer, (&data, &options), None, |_| false);
    assert!(logs[7].loss < logs[0].loss - 1e-3, "{logs:?}");
}

#[test]
fn a_stop_after_any_step_changes_no_bit() {
    const EPOCHS: usize = 4;
    let (data, options) = (images(), options(EPOCHS));
    let task = (&data, &options);
    let trainer = model().prompt_trainer_as(Device::Cpu, Dtype::F32).unwrap();
    let (whole, logs) = train(&trainer, task, None, |_| false);
    let done = (whole.state.epoch, whole.state.step);
    assert_eq!(done, (EPOCHS, EPOCHS * STEPS));
    assert_eq!(whole.context_rows, PER_CLASS * N_CTX);
    assert_eq!(whole.text.len(), PER_CLASS * NAMES.len() * DIM);
    assert_eq!(logs.len(), EPOCHS);
    let rates: Vec<f64> = logs.iter().map(|log| log.lr).collect();
    // The second step of each epoch, after one tick for each epoch before.
    let expected = [1, 4, 7, 10].map(|ticks| options.rates.rate(0, ticks));
    assert_eq!(rates, expected);
    for step in 1..EPOCHS * STEPS {
        let (stopped, first) = train(&trainer, task, None, |state| state.step == step);
        assert_eq!(stopped.state.step, step);
        assert_ne!(stopped.state.context, whole.state.context);
        let (resumed, rest) = train(&trainer, task, Some(stopped.state), |_| false);
        assert_eq!(resumed, whole, "stopped after step {step}");
        assert_eq!([first, rest].concat(), logs, "stopped after step {step}");
    }
}
