//! [`Model`]: a checkpoint and its configuration, and what is made from it: an [`ImageEncoder`], a [`TextEncoder`] and a
//! [`PromptTrainer`]. Nothing here is generic, so that dependent crates need no types of Burn.

#[cfg(feature = "cuda")]
mod gpu_prompt;
#[cfg(feature = "cuda")]
mod gpu_text;
#[cfg(feature = "cuda")]
mod gpu_tower;
mod image_encoder;
mod negative_trainer;
mod prompt_trainer;
mod text_encoder;

use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::{self, OpenOptions};
use crate::config::ClipConfig;
use crate::error::{ClipError, Result};
use crate::weights::{WeightDtype, Weights};

pub use self::image_encoder::{EncodedImages, ImageEncoder, LaunchedImages};
pub use self::negative_trainer::NegativeTask;
pub use self::prompt_trainer::{PromptTask, PromptTrainer, TrainedPrompt};
pub use self::text_encoder::TextEncoder;
pub use crate::device::{Device, Devices, Dtype};

/// A checkpoint, in memory or in a mapped file.
#[derive(Debug, Clone)]
pub struct Model {
    /// Sizes and preprocessing.
    pub config: ClipConfig,
    /// blake3 of configuration and parameters.
    pub hash: String,
    pub(crate) weights: Arc<Weights>,
    warnings: Vec<String>,
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
    /// Files that are missing, damaged or of another architecture, and configurations with settings that this crate does
    /// not implement.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self> {
        let checkpoint = checkpoint::open(path, options)?;
        let mut model = Self::new(checkpoint.config, checkpoint.weights)?;
        model.warnings = checkpoint.warnings;
        Ok(model)
    }

    /// What was assumed because the files of the checkpoint do not say it, one sentence per assumption.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A model from parts.
    ///
    /// # Errors
    /// A configuration out of range, a parameter that it asks for and that is missing or of another shape, or values that no
    /// model has: not finite, a negative variance, a logit scale out of range.
    pub fn new(config: ClipConfig, weights: Weights) -> Result<Self> {
        config.check(&weights.origin)?;
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
        // Both read all values, from the file if it is mapped.
        let (checked, hash) = rayon::join(|| weights.check_values(), || weights.hash());
        checked?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(config.to_open_clip().as_bytes());
        hasher.update(hash.as_bytes());
        Ok(Self {
            config,
            hash: hasher.finalize().to_hex().to_string(),
            weights: Arc::new(weights),
            warnings: Vec::new(),
        })
    }

    /// The parameters in float32, as the safetensors file of an open_clip folder.
    ///
    /// # Errors
    /// The serializer rejected a tensor, which it does not for those of a [`Model`].
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        self.weights.to_safetensors(WeightDtype::F32)
    }

    /// Factor on cosines that the model was trained with, at most 100, which every released CLIP has reached.
    pub fn logit_scale(&self) -> f64 {
        let log = self.weights.get("logit_scale").and_then(|t| t.data.first());
        log.map_or(100.0, |log| f64::from(*log).exp().min(100.0))
    }

    /// Whether the image tower runs on `device` in a number format.
    ///
    /// # Errors
    /// As [`Dtype::check`]; every model runs in every format of the device.
    pub fn check_dtype(&self, device: Device, dtype: Dtype) -> Result<()> {
        dtype.check(device)
    }

    /// Token embeddings `[vocabulary, width]`, row-major, and the width.
    ///
    /// # Errors
    /// A checkpoint without them.
    pub fn token_embedding(&self) -> Result<(&[f32], usize)> {
        let name = "token_embedding.weight";
        match self.weights.get(name) {
            Some(tensor) => Ok((&tensor.data, self.config.text.width)),
            None => Err(ClipError::Text(format!("the checkpoint has no `{name}`"))),
        }
    }
}
