//! The training loop.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, Module};
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::{Tensor, TensorData};
use clipood_clip::config::{
    Activation, ClipConfig, ImageConfig, ImageFamily, OPENAI_MEAN, OPENAI_STD, TextConfig,
};
use clipood_clip::contrastive::{contrastive_loss, count_right};
use clipood_clip::encoder::{Clip, normalise};
use clipood_clip::init::initial_weights;
use clipood_clip::text::{TokenBatch, cut};
use clipood_clip::tokenizer::Tokenizer;
use clipood_clip::weights::{WeightDtype, tensor_to_vec};
use rayon::prelude::*;

use super::checkpoint::{CheckpointFolder, CurvePoint, Progress};
use crate::stream::training_example;

type B = Autodiff<Flex>;

/// Steps between two lines of the loss curve.
const CURVE_EVERY: usize = 25;
/// Steps of linear learning-rate warm-up.
const WARMUP: usize = 50;
/// Fraction of the steps over which the difficulty rises to 1.
const EASY_SHARE: f64 = 0.4;

/// Options of one training run.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// Folder of the finished model.
    pub out: PathBuf,
    /// Folder of the checkpoint.
    pub work: PathBuf,
    /// Optimizer steps.
    pub steps: usize,
    /// Batch size: pictures per step.
    pub batch: usize,
    /// Side of the pictures in pixels, a multiple of 32.
    pub size: usize,
    /// Width of the ModifiedResNet; the shared embedding has 128 dimensions.
    pub width: usize,
    /// Transformer blocks of the text tower.
    pub text_layers: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Seed of the parameters and of the stream.
    pub seed: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
    /// Stop after this many steps of this call, leaving a checkpoint.
    pub pause_after: Option<usize>,
}

impl TrainOptions {
    /// The architecture that is trained.
    pub fn config(&self) -> ClipConfig {
        ClipConfig {
            embed_dim: 128,
            image: ImageConfig {
                size: self.size,
                width: self.width,
                heads: self.width * 32 / 64,
                family: ImageFamily::Resnet {
                    layers: [1, 1, 1, 1],
                },
            },
            text: TextConfig {
                context: 77,
                vocab: 49408,
                width: 64,
                heads: 1,
                layers: self.text_layers,
            },
            activation: Activation::QuickGelu,
            mean: OPENAI_MEAN,
            std: OPENAI_STD,
        }
    }

    /// Every option that affects the result, as text.
    fn identity(&self) -> String {
        format!(
            "steps {} batch {} size {} width {} text_layers {} lr {} seed {}",
            self.steps, self.batch, self.size, self.width, self.text_layers, self.lr, self.seed
        )
    }

    /// Learning rate of a step: linear warm-up times a cosine decay to 0.
    fn rate(&self, step: usize) -> f64 {
        let warm = ((step + 1) as f64 / WARMUP as f64).min(1.0);
        let done = step as f64 / self.steps as f64;
        self.lr * warm * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }

    fn difficulty(&self, step: usize) -> f32 {
        (step as f64 / (EASY_SHARE * self.steps as f64)).min(1.0) as f32
    }
}

/// One batch of the stream.
struct Batch {
    pixels: Vec<f32>,
    captions: Vec<String>,
    tokens: TokenBatch,
}

fn draw(options: &TrainOptions, tokenizer: &Tokenizer, step: usize) -> Result<Batch> {
    let side = options.size as u32;
    let difficulty = options.difficulty(step);
    let first = (step * options.batch) as u64;
    let drawn: Vec<(Vec<f32>, String)> = (0..options.batch as u64)
        .into_par_iter()
        .map(|i| {
            let example = training_example(options.seed, first + i, side, difficulty)?;
            Ok((normalised(&example.picture.pixels), example.caption))
        })
        .collect::<Result<_>>()?;
    let mut ids = Vec::with_capacity(options.batch * 77);
    for (_, caption) in &drawn {
        ids.extend(tokenizer.tokenize(caption, 77)?);
    }
    let (pixels, captions): (Vec<Vec<f32>>, Vec<String>) = drawn.into_iter().unzip();
    Ok(Batch {
        pixels: pixels.concat(),
        captions,
        tokens: cut(&ids, 77)?,
    })
}

/// `[side, side, 3]` bytes -> `[3, side, side]` floats, normalised with OpenAI's mean and standard deviation.
fn normalised(pixels: &[u8]) -> Vec<f32> {
    let area = pixels.len() / 3;
    let mut planes = vec![0f32; pixels.len()];
    for (i, pixel) in pixels.chunks_exact(3).enumerate() {
        for c in 0..3 {
            planes[c * area + i] = (f32::from(pixel[c]) / 255.0 - OPENAI_MEAN[c]) / OPENAI_STD[c];
        }
    }
    planes
}

/// The numbers of image and caption of each row: every picture is another one, equal captions have the number of the first.
fn numbered(captions: &[String]) -> Vec<(u32, u32)> {
    let first = |caption: &String| captions.iter().position(|other| other == caption);
    (0..)
        .zip(captions)
        .map(|(row, caption)| (row, first(caption).map_or(row, |first| first as u32)))
        .collect()
}

/// Draws batches on a thread, up to two ahead of the training loop.
fn stream(options: &TrainOptions, from: usize) -> Receiver<Result<Batch>> {
    let (send, receive) = sync_channel(2);
    let options = options.clone();
    std::thread::spawn(move || {
        let tokenizer = Tokenizer::new();
        for step in from..options.steps {
            if send.send(draw(&options, &tokenizer, step)).is_err() {
                return;
            }
        }
    });
    receive
}

/// Trains to `options.steps` and writes the model folder.
///
/// # Errors
/// A checkpoint of other options, a folder that cannot be written, or a loss that is not finite.
pub fn train(options: &TrainOptions) -> Result<()> {
    let device = <B as burn::tensor::backend::BackendTypes>::Device::default();
    let config = options.config();
    let folder = CheckpointFolder::new(&options.work);
    std::fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    let weights = initial_weights(&config, options.seed);
    let mut model = Clip::<B>::load(&weights, &config, &device)?;
    let mut optimizer = AdamWConfig::new()
        .with_beta_2(0.98)
        .with_epsilon(1e-6)
        .with_weight_decay(0.01)
        .init();
    let mut progress = Progress {
        options: options.identity(),
        ..Progress::default()
    };
    if let Some(found) = folder.progress()? {
        ensure!(
            found.options == progress.options,
            "the checkpoint in {} was made with `{}`, this run has `{}`",
            options.work.display(),
            found.options,
            progress.options
        );
        model = model.load_record(folder.load::<B, _>("model", &device)?);
        optimizer = optimizer.load_record(folder.load::<B, _>("optimizer", &device)?);
        progress = found;
        println!("resuming at step {}", progress.step);
    }
    let started = (progress.step, Instant::now());
    let mut sums = (0f64, 0f64, 0usize);
    for batch in stream(options, progress.step) {
        let batch = batch?;
        let step = progress.step;
        let (n, side) = (options.batch, options.size);
        let pixels = Tensor::from_data(TensorData::new(batch.pixels, [n, 3, side, side]), &device);
        let image = normalise(model.image.forward(pixels, false).global);
        let text = normalise(model.text.encode(&batch.tokens)?);
        let scale = model.logit_scale.val().exp().clamp_max(100.0);
        let pairs = numbered(&batch.captions);
        let contrast = contrastive_loss(image, text, scale.clone(), &pairs);
        let loss: f32 = contrast.loss.clone().into_scalar();
        ensure!(loss.is_finite(), "the loss of step {step} is {loss}");
        let right = count_right(&tensor_to_vec(contrast.logits), &pairs);
        let grads = GradientsParams::from_grads(contrast.loss.backward(), &model);
        let rate = options.rate(step);
        model = optimizer.step(rate, model, grads);
        progress.step += 1;
        sums = (
            sums.0 + f64::from(loss),
            sums.1 + right as f64 / n as f64,
            sums.2 + 1,
        );
        if progress.step.is_multiple_of(CURVE_EVERY) || progress.step == options.steps {
            let point = CurvePoint {
                step: progress.step,
                loss: (sums.0 / sums.2 as f64) as f32,
                accuracy: (sums.1 / sums.2 as f64) as f32,
                lr: rate,
                scale: scale.into_scalar(),
            };
            let seconds = started.1.elapsed().as_secs_f64() / (progress.step - started.0) as f64;
            println!(
                "step {} of {}: loss {:.3}, accuracy {:.3}, scale {:.1}, {seconds:.2} s per step",
                point.step, options.steps, point.loss, point.accuracy, point.scale
            );
            progress.curve.push(point);
            sums = (0.0, 0.0, 0);
        }
        let pause = options
            .pause_after
            .is_some_and(|n| progress.step - started.0 >= n);
        if pause
            || progress.step.is_multiple_of(options.checkpoint_every)
            || progress.step == options.steps
        {
            folder.save::<B, _, _>(
                model.clone().into_record(),
                optimizer.to_record(),
                &progress,
            )?;
            write_model(options, &config, &model, &progress)?;
        }
        if pause {
            break;
        }
    }
    Ok(())
}

/// Writes the open_clip folder and the loss curve.
fn write_model(
    options: &TrainOptions,
    config: &ClipConfig,
    model: &Clip<B>,
    progress: &Progress,
) -> Result<()> {
    let weights = model.valid().to_weights("demo CLIP");
    let write = |name: &str, bytes: &[u8]| {
        let path = options.out.join(name);
        let fresh = options.out.join(format!(".{name}.new"));
        std::fs::write(&fresh, bytes)
            .and_then(|()| std::fs::rename(&fresh, &path))
            .with_context(|| path.display().to_string())
    };
    write(
        "open_clip_model.safetensors",
        &weights.to_safetensors(WeightDtype::F16)?,
    )?;
    write("open_clip_config.json", config.to_open_clip().as_bytes())?;
    let mut curve = String::from("step,loss,accuracy,lr,scale\n");
    for p in &progress.curve {
        curve += &format!(
            "{},{:.4},{:.4},{:.3e},{:.2}\n",
            p.step, p.loss, p.accuracy, p.lr, p.scale
        );
    }
    write("loss.csv", curve.as_bytes())
}
