//! [`Model`]: a checkpoint and its configuration, and the encoders made from it. Nothing here is generic, so that the
//! crates above never see a tensor of Burn.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use burn::backend::{Autodiff, Flex};
use burn::module::Module;
use burn::tensor::{Tensor, TensorData};

use crate::checkpoint::{self, OpenOptions};
use crate::config::ClipConfig;
use crate::encoder::{ImageTower, normalise};
use crate::error::{ClipError, Result};
use crate::prompt::{
    EpochLog, PromptData, PromptLearner, PromptOptions, PromptState, TrainOptions, train_prompt,
};
use crate::text::{TextTransformer, cut};
use crate::tokenizer::Tokenizer;
use crate::weights::{Weights, tensor_to_vec};

/// Texts that go through the text tower at once.
const TEXT_BATCH: usize = 128;

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The processor, float32.
    Cpu,
}

impl Device {
    /// Name of the backend as fingerprints hold it: another backend rounds differently.
    pub fn backend(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
        }
    }
}

impl FromStr for Device {
    type Err = ClipError;

    /// `auto` and `cpu`; `cuda:N` is refused by a build without CUDA.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" | "cpu" => Ok(Self::Cpu),
            other => Err(ClipError::Device(format!(
                "unknown device `{other}`; this build runs on `cpu` (or `auto`)"
            ))),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.backend())
    }
}

/// A checkpoint in memory.
#[derive(Debug, Clone)]
pub struct Model {
    /// Sizes and preprocessing.
    pub config: ClipConfig,
    /// blake3 of configuration and parameters.
    pub hash: String,
    weights: Arc<Weights>,
    warnings: Vec<String>,
}

/// Features of a batch of images, row-major, before normalisation.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedImages {
    /// `[batch, D]`.
    pub global: Vec<f32>,
    /// `[batch, positions, D]`; empty unless asked for.
    pub local: Vec<f32>,
}

impl Model {
    /// A model from the two files of an open_clip folder.
    ///
    /// # Errors
    /// A malformed configuration, or parameters that are missing or of another shape.
    pub fn from_open_clip(config_json: &str, safetensors: &[u8], origin: &str) -> Result<Self> {
        let config = ClipConfig::from_open_clip(config_json, origin)?;
        let weights = Weights::from_safetensors(safetensors, origin)?;
        Self::new(config, weights)
    }

    /// Opens a checkpoint: a Hugging Face or open_clip folder, or a weight file alone, whose sizes are taken from its
    /// tensors (see [`crate::checkpoint`]).
    ///
    /// # Errors
    /// Files that are missing, damaged or of another architecture, and configurations that ask for what is not
    /// computed here.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self> {
        let checkpoint = checkpoint::open(path, options)?;
        let mut model = Self::new(checkpoint.config, checkpoint.weights)?;
        model.warnings = checkpoint.warnings;
        Ok(model)
    }

    /// What was assumed because the files of the checkpoint do not say it, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A model from parts.
    ///
    /// # Errors
    /// A parameter that the configuration asks for is missing or of another shape.
    pub fn new(config: ClipConfig, weights: Weights) -> Result<Self> {
        for (name, expected) in config.parameters() {
            let Some(found) = weights.get(&name) else {
                return Err(ClipError::MissingTensor {
                    origin: weights.origin.clone(),
                    name,
                    expected,
                });
            };
            let scalar = expected.is_empty() && found.data.len() == 1;
            if found.shape != expected && !scalar {
                return Err(ClipError::Shape {
                    origin: weights.origin.clone(),
                    name,
                    expected,
                    found: found.shape.clone(),
                });
            }
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(config.to_open_clip().as_bytes());
        hasher.update(weights.hash().as_bytes());
        Ok(Self {
            config,
            hash: hasher.finalize().to_hex().to_string(),
            weights: Arc::new(weights),
            warnings: Vec::new(),
        })
    }

    /// Factor on cosines that the model was trained with, at most 100, which every released CLIP has reached.
    pub fn logit_scale(&self) -> f64 {
        let log = self.weights.get("logit_scale").and_then(|t| t.data.first());
        log.map_or(100.0, |log| f64::from(*log).exp().min(100.0))
    }

    /// The image tower on `device`.
    ///
    /// # Errors
    /// A parameter is not finite.
    pub fn image_encoder(&self, device: Device) -> Result<ImageEncoder> {
        let Device::Cpu = device;
        Ok(ImageEncoder {
            tower: ImageTower::load(&self.weights, &self.config, &Default::default())?,
            size: self.config.image.size,
        })
    }

    /// The text tower on `device`.
    ///
    /// # Errors
    /// A parameter is not finite.
    pub fn text_encoder(&self, device: Device) -> Result<TextEncoder> {
        let Device::Cpu = device;
        Ok(TextEncoder {
            tower: TextTransformer::load(&self.weights, &self.config, &Default::default())?,
            tokenizer: Tokenizer::new(),
            dim: self.config.embed_dim,
        })
    }

    /// The frozen text tower with gradients for a context, on `device`.
    ///
    /// # Errors
    /// A parameter is not finite.
    pub fn prompt_trainer(&self, device: Device) -> Result<PromptTrainer> {
        let Device::Cpu = device;
        let tower = TextTransformer::load(&self.weights, &self.config, &Default::default())?;
        Ok(PromptTrainer {
            tower: tower.no_grad(),
            tokenizer: Tokenizer::new(),
        })
    }
}

/// The image tower, ready for batches. Clones share the parameters.
#[derive(Debug, Clone)]
pub struct ImageEncoder {
    tower: ImageTower<Flex>,
    size: usize,
}

impl ImageEncoder {
    /// Normalised pixels, row-major `[batch, 3, size, size]` -> features.
    ///
    /// # Errors
    /// The pixels are not whole images.
    pub fn encode(&self, pixels: Vec<f32>, local: bool) -> Result<EncodedImages> {
        let image = 3 * self.size * self.size;
        let batch = pixels.len() / image;
        if batch == 0 || pixels.len() != batch * image {
            return Err(ClipError::Input {
                what: "pixels of whole images",
                expected: batch.max(1) * image,
                found: pixels.len(),
            });
        }
        let shape = [batch, 3, self.size, self.size];
        let pixels = Tensor::from_data(TensorData::new(pixels, shape), &Default::default());
        let features = self.tower.forward(pixels, local);
        Ok(EncodedImages {
            global: tensor_to_vec(features.global),
            local: features.local.map(tensor_to_vec).unwrap_or_default(),
        })
    }
}

/// The text tower with its tokenizer.
pub struct TextEncoder {
    tower: TextTransformer<Flex>,
    tokenizer: Tokenizer,
    dim: usize,
}

impl TextEncoder {
    /// Features before normalisation, row-major `[texts, D]`.
    ///
    /// # Errors
    /// A text is longer than the context.
    pub fn encode(&self, texts: &[String]) -> Result<Vec<f32>> {
        let context = self.tower.context();
        let mut out = Vec::with_capacity(texts.len() * self.dim);
        for batch in texts.chunks(TEXT_BATCH) {
            let mut ids = Vec::with_capacity(batch.len() * context);
            for text in batch {
                let row = self
                    .tokenizer
                    .tokenize(text, context)
                    .map_err(|e| ClipError::Text(e.to_string()))?;
                ids.extend(row);
            }
            out.extend(tensor_to_vec(self.tower.encode(&cut(&ids, context)?)?));
        }
        Ok(out)
    }

    /// One normalised feature a class, row-major `[classes, D]`: the templates (`{}` is the name) encoded, normalised,
    /// averaged and normalised again.
    ///
    /// # Errors
    /// A filled template is longer than the context.
    pub fn classes(&self, names: &[String], templates: &[&str]) -> Result<Vec<f32>> {
        let texts: Vec<String> = names
            .iter()
            .flat_map(|name| templates.iter().map(move |t| t.replace("{}", name)))
            .collect();
        let mut features = self.encode(&texts)?;
        features.chunks_exact_mut(self.dim).for_each(unit);
        Ok(features
            .chunks_exact(self.dim * templates.len().max(1))
            .flat_map(|class| {
                let mut mean = vec![0f32; self.dim];
                for row in class.chunks_exact(self.dim) {
                    for (m, v) in mean.iter_mut().zip(row) {
                        *m += v;
                    }
                }
                unit(&mut mean);
                mean
            })
            .collect())
    }
}

/// Divides a feature by its length.
fn unit(row: &mut [f32]) {
    let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
    row.iter_mut().for_each(|v| *v /= norm);
}

/// The frozen text tower under autodiff.
pub struct PromptTrainer {
    tower: TextTransformer<Autodiff<Flex>>,
    tokenizer: Tokenizer,
}

/// A trained context and what it makes of the class list.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedPrompt {
    /// Where the training stands; done when its epochs are the options' epochs.
    pub state: PromptState,
    /// Rows of the context.
    pub context_rows: usize,
    /// Normalised text features `[classes, D]`.
    pub text: Vec<f32>,
}

impl PromptTrainer {
    /// Trains a context for `names` from `resume`, or from its initial values. `after_epoch` may stop it.
    ///
    /// # Errors
    /// Names that do not fit, data of the wrong size, or a loss that is not finite.
    pub fn train(
        &self,
        names: &[String],
        prompt: &PromptOptions,
        data: &PromptData,
        options: &TrainOptions,
        resume: Option<PromptState>,
        after_epoch: impl FnMut(&EpochLog, &PromptState) -> bool,
    ) -> Result<TrainedPrompt> {
        let device = Default::default();
        let learner = PromptLearner::new(&self.tower, &self.tokenizer, names, prompt)?;
        let state = match resume {
            Some(state) => state,
            None => PromptState {
                context: learner.initial_context(
                    &self.tower,
                    &self.tokenizer,
                    prompt,
                    options.seed,
                )?,
                ..PromptState::default()
            },
        };
        let state = train_prompt(
            &self.tower,
            &learner,
            data,
            options,
            state,
            &device,
            after_epoch,
        )?;
        let rows = learner.context_rows();
        let context = TensorData::new(state.context.clone(), [rows, self.tower.width()]);
        let text = learner.text_features(&self.tower, Tensor::from_data(context, &device))?;
        Ok(TrainedPrompt {
            state,
            context_rows: rows,
            text: tensor_to_vec(normalise(text)),
        })
    }
}
