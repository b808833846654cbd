//! `clipood bench prompt`.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use clipood_clip::model::{Device, Devices, Dtype, Model, PromptTask};
use clipood_clip::prompt::{
    EpochLog, PatchLoss, PromptData, PromptLoss, PromptOptions, PromptState, TrainOptions,
};
use clipood_core::{ClassToken, Method, SplitMix64};
use clipood_pipeline::PipelineError;
use serde_json::{Value, json};

use super::super::args::{MOST_IMAGES, count};
use super::models::model;
use super::{Common, exit, median, relative_difference, report, smallest_cosine};

/// Classes and steps of the comparison with the CPU.
const COMPARED: (usize, usize) = (20, 5);
/// Steps before the first one that is timed.
const WARM: usize = 3;

/// Options of `clipood bench prompt`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// Methods, separated by commas: coop, locoop, sct.
    #[arg(long, value_delimiter = ',', default_value = "coop,locoop")]
    methods: Vec<String>,
    /// Classes.
    #[arg(long, default_value_t = 100, value_parser = count::<100_000>)]
    classes: usize,
    /// Images per step.
    #[arg(long, default_value_t = 32, value_parser = count::<MOST_IMAGES>)]
    images: usize,
    /// Steps that are timed.
    #[arg(long, default_value_t = 10, value_parser = count::<1_000_000>)]
    steps: usize,
}

/// Measures every number format and method.
pub fn run(args: &Args) -> Result<ExitCode> {
    let formats = args.common.devices()?;
    let methods = args
        .methods
        .iter()
        .map(|name| name.parse::<Method>())
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(method) = methods.iter().find(|m| !m.trains_prompt()) {
        return Err(PipelineError::Usage(format!("{method} trains no prompt")).into());
    }
    let trained_in_f32 = |d: &&Devices| d.first() == Device::Cpu && d.dtype != Dtype::F32;
    if let Some(devices) = formats.iter().find(trained_in_f32) {
        return Err(PipelineError::Usage(format!(
            "--dtypes {}: on the CPU prompts are trained in f32",
            devices.dtype
        ))
        .into());
    }
    let model = model(&args.common.model)?;
    let mut all_done = true;
    for devices in &formats {
        for method in &methods {
            all_done &= report("prompt-agreement", &args.common.model, devices, || {
                compare(args, &model, devices, *method)
            })?;
            all_done &= report("prompt", &args.common.model, devices, || {
                measure(args, &model, devices, *method)
            })?;
        }
    }
    Ok(exit(all_done))
}

/// Results of the steps.
struct Steps {
    /// When each was done.
    at: Vec<Instant>,
    losses: Vec<f64>,
    /// The momentum after the first step, that is its gradient and the weight decay of the context.
    gradient: Vec<f32>,
    /// The context after the first step and after the last.
    contexts: [Vec<f32>; 2],
}

impl Steps {
    /// How far the context moved after its first step.
    fn moved(&self) -> Vec<f32> {
        let [first, last] = &self.contexts;
        last.iter().zip(first).map(|(a, b)| a - b).collect()
    }
}

/// Trains on random features, one step per epoch.
fn train(
    model: &Model,
    (device, dtype): (Device, Dtype),
    method: Method,
    (classes, images, steps): (usize, usize, usize),
) -> Result<Steps> {
    let names = class_names(classes);
    let patch = PatchLoss {
        lambda: 0.25,
        top_k: (classes / 5).max(1),
    };
    let loss = match method.trainer() {
        Method::Locoop => PromptLoss::Locoop(patch),
        Method::Sct => PromptLoss::Sct(patch),
        _ => PromptLoss::Coop,
    };
    let dim = model.config.embed_dim;
    let patches = match loss.uses_patches() {
        true => model.config.image.positions(),
        false => 0,
    };
    let data = PromptData {
        global: unit_rows("global", images, dim),
        local: unit_rows("local", images * patches, dim),
        labels: (0..images).map(|i| (i * classes / images) as u32).collect(),
        views: 1,
        patches,
        dim,
    };
    let prompt = PromptOptions {
        n_ctx: 16,
        ctx_init: None,
        class_token: ClassToken::End,
        class_specific: false,
    };
    let options = TrainOptions {
        loss,
        logit_scale: 100.0,
        epochs: steps,
        lr: 0.002,
        warmup_lr: 1e-5,
        momentum: 0.9,
        weight_decay: 5e-4,
        batch_size: images,
        fresh_views: false,
        seed: 1,
    };
    let trainer = model.prompt_trainer_as(device, dtype)?;
    let mut found = Steps {
        at: Vec::new(),
        losses: Vec::new(),
        gradient: Vec::new(),
        contexts: Default::default(),
    };
    // Each step is an epoch here.
    let after_step = |log: Option<&EpochLog>, state: &PromptState| {
        found.at.push(Instant::now());
        found.losses.extend(log.map(|log| log.loss));
        if found.gradient.is_empty() {
            found.gradient.clone_from(&state.momentum);
            found.contexts[0].clone_from(&state.context);
        }
        true
    };
    let task = PromptTask {
        names: &names,
        prompt: &prompt,
        data: &data,
        train: &options,
    };
    let trained = trainer.train(&task, None, after_step)?;
    found.contexts[1] = trained.state.context;
    Ok(found)
}

fn compare(args: &Args, model: &Model, devices: &Devices, method: Method) -> Result<Value> {
    let (classes, steps) = COMPARED;
    let sizes = (classes, args.images.clamp(1, 8), steps);
    let expected = train(model, (Device::Cpu, Dtype::F32), method, sizes)?;
    let found = train(model, (devices.first(), devices.dtype), method, sizes)?;
    let pairs = found.losses.iter().zip(&expected.losses);
    let loss = pairs
        .map(|(a, b)| (a - b).abs() / b.abs().max(1.0))
        .fold(
            0.0,
            |m: f64, d| if d.is_nan() { f64::INFINITY } else { m.max(d) },
        );
    let off = relative_difference(&found.gradient, &expected.gradient);
    let moved = relative_difference(&found.moved(), &expected.moved());
    let cosine = smallest_cosine(&found.gradient, &expected.gradient, expected.gradient.len());
    let values = json!({
        "method": method.name(),
        "classes": classes,
        "loss_difference": loss,
        "gradient_difference": off,
        "context_difference": moved,
        "steps": steps,
        "gradient_cosine": cosine,
    });
    let good = match devices.dtype {
        Dtype::F32 => loss < 1e-3 && off < 1e-3 && moved < 1e-3,
        Dtype::Tf32 => loss < 1e-2 && off < 1e-2 && moved < 1e-2,
        Dtype::F16 | Dtype::Bf16 => loss < 0.05 && cosine > 0.98,
    };
    match good {
        true => Ok(values),
        false => Err(anyhow!("steps differ from the CPU's: {values}")),
    }
}

/// Seconds of a step of `method` on the first of `devices`, by the median of a few steps on random features.
pub(in super::super) fn step_seconds(
    model: &Model,
    devices: &Devices,
    method: Method,
    (classes, images): (usize, usize),
) -> Result<f64> {
    let sizes = (classes.max(1), images.max(1), WARM + 3);
    let found = train(model, (devices.first(), devices.dtype), method, sizes)?;
    Ok(median(&found.seconds()))
}

impl Steps {
    /// The durations of the steps after the first ones.
    fn seconds(&self) -> Vec<f64> {
        let pairs = self.at.windows(2).skip(WARM - 1);
        pairs
            .map(|pair| (pair[1] - pair[0]).as_secs_f64())
            .collect()
    }
}

fn measure(args: &Args, model: &Model, devices: &Devices, method: Method) -> Result<Value> {
    let sizes = (
        args.classes.max(1),
        args.images.max(1),
        WARM + args.steps.max(1),
    );
    let found = train(model, (devices.first(), devices.dtype), method, sizes)?;
    let seconds = found.seconds();
    let last = found.losses.last().copied().context("no step was made")?;
    Ok(json!({
        "method": method.name(),
        "classes": sizes.0,
        "images": sizes.1,
        "steps": seconds.len(),
        "median_ms": 1e3 * median(&seconds),
        "last_loss": last,
        "memory_in_use_mb": devices.first().memory_in_use()?.map(|bytes| bytes / 1_000_000),
    }))
}

/// Normalised rows from a fixed seed.
fn unit_rows(name: &str, rows: usize, width: usize) -> Vec<f32> {
    let mut rng = SplitMix64::keyed(1, name, 0);
    let mut values: Vec<f32> = (0..rows * width).map(|_| rng.normal() as f32).collect();
    for row in values.chunks_exact_mut(width) {
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= norm);
    }
    values
}

/// Names of one to three words, with as many tokens as those of common benchmarks.
fn class_names(classes: usize) -> Vec<String> {
    const WORDS: [&str; 20] = [
        "red", "striped", "northern", "small", "wooden", "kite", "beetle", "castle", "piano",
        "river", "terrier", "mushroom", "wagon", "lantern", "harbour", "swan", "pepper", "drum",
        "glacier", "violin",
    ];
    (0..classes)
        .map(|i| {
            let word = |step: usize| WORDS[(i / step) % WORDS.len()];
            match i % 3 {
                0 => format!("{} {}", word(1), word(20)),
                1 => format!("{} {} {}", word(1), word(20), word(400)),
                _ => word(1).to_string() + word(20),
            }
        })
        .collect()
}
