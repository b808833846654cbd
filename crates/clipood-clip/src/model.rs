//! [`Model`]: a checkpoint and its configuration, and the encoders made from it. Nothing here is generic, so that the
//! crates above never see a tensor of Burn.

use std::path::Path;
use std::sync::Arc;

use burn::backend::{Autodiff, Flex};
use burn::module::Module;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{FloatDType, Tensor, TensorData};

use crate::checkpoint::{self, OpenOptions};
use crate::config::{ClipConfig, ImageFamily};
use crate::device::no_bf16;
pub use crate::device::{Device, Devices, Dtype};
use crate::encoder::{ImageFeatures, ImageTower, normalise, upload};
use crate::error::{ClipError, Result};
use crate::kernels::ClipBackend;
use crate::packed_vit::PackedVit;
use crate::prompt::{
    EpochLog, PromptData, PromptLearner, PromptOptions, PromptState, TrainOptions, train_prompt,
};
use crate::text::{TextTransformer, cut};
use crate::tokenizer::Tokenizer;
use crate::vit::VisionTransformer;
use crate::weights::{WeightDtype, Weights, tensor_to_vec};

/// Texts that go through the text tower at once.
const TEXT_BATCH: usize = 128;

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

    /// The parameters in float32, as the safetensors file of an open_clip folder.
    ///
    /// # Errors
    /// The serializer refused (it does not for valid tensors).
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
    /// As [`Dtype::check`], and a ModifiedResNet in bf16 on the CPU.
    pub fn check_dtype(&self, device: Device, dtype: Dtype) -> Result<()> {
        dtype.check(device)?;
        match (device, dtype, &self.config.image.family) {
            (Device::Cpu, Dtype::Bf16, ImageFamily::Resnet { .. }) => Err(ClipError::Device(
                "bf16 on the CPU is for vision transformers, and this model's image tower is a ModifiedResNet: use f32"
                    .into(),
            )),
            _ => Ok(()),
        }
    }

    /// The image tower on `device` in float32.
    ///
    /// # Errors
    /// A parameter is not finite, or the device is not there.
    pub fn image_encoder(&self, device: Device) -> Result<ImageEncoder> {
        self.image_encoder_as(device, Dtype::F32)
    }

    /// The image tower on `device` in a number format. In bf16 on the CPU it is the products of the blocks that are bf16,
    /// of weights packed here; sums and everything else stay float32.
    ///
    /// # Errors
    /// As [`Model::image_encoder`], and a format that device or model do not run in.
    pub fn image_encoder_as(&self, device: Device, dtype: Dtype) -> Result<ImageEncoder> {
        self.check_dtype(device, dtype)?;
        let tower = match device {
            Device::Cpu if dtype == Dtype::Bf16 => {
                let device = Default::default();
                let tower = VisionTransformer::<Flex>::load(&self.weights, &self.config, &device)?;
                Towers::Packed(Box::new(PackedVit::new(tower).ok_or_else(no_bf16)?))
            }
            Device::Cpu => Towers::Cpu(Box::new(
                self.image_tower::<Flex>(&Default::default(), dtype)?,
            )),
            #[cfg(feature = "cuda")]
            Device::Cuda(index) => {
                let device = crate::device::cuda::burn_device(index)?;
                let tower = self.image_tower::<burn_cuda::Cuda>(&device, dtype)?;
                Towers::Cuda(Box::new(tower), device)
            }
            #[cfg(not(feature = "cuda"))]
            Device::Cuda(index) => return Err(crate::device::no_cuda(index)),
        };
        Ok(ImageEncoder {
            tower,
            dtype: match device {
                Device::Cpu => FloatDType::F32,
                Device::Cuda(_) => dtype.float(),
            },
            size: self.config.image.size,
            mean: self.config.mean,
            std: self.config.std,
        })
    }

    fn image_tower<B: ClipBackend>(
        &self,
        device: &B::Device,
        dtype: Dtype,
    ) -> Result<ImageTower<B>> {
        let tower = ImageTower::<B>::load(&self.weights, &self.config, device)?;
        Ok(tower.cast(dtype.float()))
    }

    /// The text tower on `device`, in float32: texts are few.
    ///
    /// # Errors
    /// A parameter is not finite, or the device is not there.
    pub fn text_encoder(&self, device: Device) -> Result<TextEncoder> {
        let tower = match device {
            Device::Cpu => TextTowers::Cpu(Box::new(self.text_tower::<Flex>(&Default::default())?)),
            #[cfg(feature = "cuda")]
            Device::Cuda(index) => {
                let device = crate::device::cuda::burn_device(index)?;
                TextTowers::Cuda(Box::new(self.text_tower::<burn_cuda::Cuda>(&device)?))
            }
            #[cfg(not(feature = "cuda"))]
            Device::Cuda(index) => return Err(crate::device::no_cuda(index)),
        };
        Ok(TextEncoder {
            tower,
            tokenizer: Tokenizer::new(),
            dim: self.config.embed_dim,
            context: self.config.text.context,
        })
    }

    fn text_tower<B: ClipBackend>(&self, device: &B::Device) -> Result<TextTransformer<B>> {
        TextTransformer::load(&self.weights, &self.config, device)
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

    /// Normalised text features `[classes, D]` of prompts with the given context, row-major, on the CPU.
    ///
    /// # Errors
    /// A context of another size, or a name that does not fit.
    pub fn prompt_features(
        &self,
        names: &[String],
        prompt: &PromptOptions,
        context: &[f32],
    ) -> Result<Vec<f32>> {
        let device = Default::default();
        let tower = self.text_tower::<Flex>(&device)?;
        let learner = PromptLearner::new(&tower, &Tokenizer::new(), names, prompt)?;
        let (rows, width) = (learner.context_rows(), tower.width());
        if context.len() != rows * width {
            return Err(ClipError::Input {
                what: "context values",
                expected: rows * width,
                found: context.len(),
            });
        }
        let context = TensorData::new(context.to_vec(), [rows, width]);
        let text = learner.text_features(&tower, Tensor::from_data(context, &device))?;
        Ok(tensor_to_vec(text))
    }

    /// The frozen text tower with gradients for a context, on `device` in float32.
    ///
    /// # Errors
    /// A parameter is not finite, or the device is not there.
    pub fn prompt_trainer(&self, device: Device) -> Result<PromptTrainer> {
        self.prompt_trainer_as(device, Dtype::F32)
    }

    /// The frozen text tower in a number format; context, norms, softmax, logits and loss stay float32. On the CPU the tower
    /// does, too, whatever the image tower computes in.
    ///
    /// # Errors
    /// As [`Model::prompt_trainer`], and as [`Dtype::check`].
    pub fn prompt_trainer_as(&self, device: Device, dtype: Dtype) -> Result<PromptTrainer> {
        let tower = match device {
            Device::Cpu => {
                dtype.check(device)?;
                let tower = self.text_tower::<Autodiff<Flex>>(&Default::default())?;
                TrainedTowers::Cpu(Box::new(tower.no_grad()))
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(index) => {
                let device = crate::device::cuda::burn_device(index)?;
                let tower = self.text_tower::<Autodiff<burn_cuda::Cuda>>(&device)?;
                let tower = tower.no_grad().cast(dtype.float());
                TrainedTowers::Cuda(Box::new(tower), device)
            }
            #[cfg(not(feature = "cuda"))]
            Device::Cuda(index) => return Err(crate::device::no_cuda(index)),
        };
        Ok(PromptTrainer {
            tower,
            tokenizer: Tokenizer::new(),
        })
    }
}

/// The image tower on each backend of this build.
#[derive(Debug, Clone)]
enum Towers {
    Cpu(Box<ImageTower<Flex>>),
    Packed(Box<PackedVit>),
    #[cfg(feature = "cuda")]
    Cuda(Box<ImageTower<burn_cuda::Cuda>>, burn_cuda::CudaDevice),
}

/// The image tower, ready for batches. Clones share the parameters.
#[derive(Debug, Clone)]
pub struct ImageEncoder {
    tower: Towers,
    dtype: FloatDType,
    size: usize,
    mean: [f32; 3],
    std: [f32; 3],
}

impl ImageEncoder {
    /// Normalised pixels, row-major `[batch, 3, size, size]` -> features.
    ///
    /// # Errors
    /// The pixels are not whole images, or the device failed.
    pub fn encode(&self, pixels: Vec<f32>, local: bool) -> Result<EncodedImages> {
        let batch = self.images(pixels.len())?;
        let data = TensorData::new(pixels, [batch, 3, self.size, self.size]);
        match &self.tower {
            Towers::Cpu(tower) => {
                let pixels = Tensor::<Flex, 4>::from_data(data, &Default::default());
                self.features(tower, pixels, local)
            }
            Towers::Packed(tower) => {
                let pixels = Tensor::<Flex, 4>::from_data(data, &Default::default());
                values_of(tower.forward(pixels, local))
            }
            #[cfg(feature = "cuda")]
            Towers::Cuda(tower, device) => {
                let pixels = Tensor::<burn_cuda::Cuda, 4>::from_data(data, device);
                self.features(tower, pixels, local)
            }
        }
    }

    /// Pixels as they decode, row-major `[batch, size, size, 3]`, a byte a channel -> features. They are normalised on
    /// the device; the values may differ from [`ImageEncoder::encode`]'s by rounding.
    ///
    /// # Errors
    /// The pixels are not whole images, or the device failed.
    pub fn encode_bytes(&self, pixels: Vec<u8>, local: bool) -> Result<EncodedImages> {
        self.launch_bytes(pixels, local)?.wait()
    }

    /// Begins what [`ImageEncoder::encode_bytes`] does. A GPU goes on by itself, so that the next batch can be uploaded before
    /// this one is waited for; on the CPU all of it is done on return.
    ///
    /// # Errors
    /// The pixels are not whole images, or the device failed.
    pub fn launch_bytes(&self, pixels: Vec<u8>, local: bool) -> Result<LaunchedImages> {
        self.images(pixels.len())?;
        let (size, mean, std) = (self.size, self.mean, self.std);
        match &self.tower {
            Towers::Cpu(tower) => {
                let pixels = upload::<Flex>(pixels, size, mean, std, &Default::default());
                Ok(self.features(tower, pixels, local)?.into())
            }
            Towers::Packed(tower) => {
                let pixels = upload::<Flex>(pixels, size, mean, std, &Default::default());
                Ok(values_of(tower.forward(pixels, local))?.into())
            }
            #[cfg(feature = "cuda")]
            Towers::Cuda(tower, device) => {
                let pixels = upload::<burn_cuda::Cuda>(pixels, size, mean, std, device);
                let features = tower.forward(pixels.cast(self.dtype), local);
                Ok(LaunchedImages(Launched::Cuda(Box::new(features))))
            }
        }
    }

    /// Images that so many values are.
    fn images(&self, values: usize) -> Result<usize> {
        let image = 3 * self.size * self.size;
        let batch = values / image;
        if batch == 0 || values != batch * image {
            return Err(ClipError::Input {
                what: "pixels of whole images",
                expected: batch.max(1) * image,
                found: values,
            });
        }
        Ok(batch)
    }

    fn features<B: ClipBackend>(
        &self,
        tower: &ImageTower<B>,
        pixels: Tensor<B, 4>,
        local: bool,
    ) -> Result<EncodedImages> {
        values_of(tower.forward(pixels.cast(self.dtype), local))
    }
}

/// Features that a device may still be computing.
#[derive(Debug)]
pub struct LaunchedImages(Launched);

#[derive(Debug)]
enum Launched {
    Done(EncodedImages),
    #[cfg(feature = "cuda")]
    Cuda(Box<ImageFeatures<burn_cuda::Cuda>>),
}

impl From<EncodedImages> for LaunchedImages {
    fn from(images: EncodedImages) -> Self {
        Self(Launched::Done(images))
    }
}

impl LaunchedImages {
    /// Waits for the features.
    ///
    /// # Errors
    /// The device failed.
    pub fn wait(self) -> Result<EncodedImages> {
        match self.0 {
            Launched::Done(images) => Ok(images),
            #[cfg(feature = "cuda")]
            Launched::Cuda(features) => values_of(*features),
        }
    }
}

/// The features themselves.
fn values_of<B: Backend>(features: ImageFeatures<B>) -> Result<EncodedImages> {
    Ok(EncodedImages {
        global: try_tensor_to_vec(features.global)?,
        local: match features.local {
            Some(local) => try_tensor_to_vec(local)?,
            None => Vec::new(),
        },
    })
}

/// The text tower on each backend of this build.
enum TextTowers {
    Cpu(Box<TextTransformer<Flex>>),
    #[cfg(feature = "cuda")]
    Cuda(Box<TextTransformer<burn_cuda::Cuda>>),
}

/// The text tower with its tokenizer.
pub struct TextEncoder {
    tower: TextTowers,
    tokenizer: Tokenizer,
    dim: usize,
    context: usize,
}

impl TextEncoder {
    /// Features before normalisation, row-major `[texts, D]`.
    ///
    /// # Errors
    /// A text is longer than the context.
    pub fn encode(&self, texts: &[String]) -> Result<Vec<f32>> {
        let context = self.context;
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
            let tokens = cut(&ids, context)?;
            out.extend(match &self.tower {
                TextTowers::Cpu(tower) => try_tensor_to_vec(tower.encode(&tokens)?)?,
                #[cfg(feature = "cuda")]
                TextTowers::Cuda(tower) => try_tensor_to_vec(tower.encode(&tokens)?)?,
            });
        }
        Ok(out)
    }

    /// One normalised feature a class, row-major `[classes, D]`: the templates (`{}` is the name) encoded, normalised,
    /// averaged and normalised again.
    ///
    /// # Errors
    /// A filled template is longer than the context.
    pub fn classes(&self, names: &[String], templates: &[&str]) -> Result<Vec<f32>> {
        let filled = |name: &String| -> Vec<String> {
            templates.iter().map(|t| t.replace("{}", name)).collect()
        };
        let texts: Vec<Vec<String>> = names.iter().map(filled).collect();
        self.ensembles(&texts)
    }

    /// One normalised feature a class, row-major `[classes, D]`: its texts, at least one, encoded, normalised, averaged
    /// and normalised again.
    ///
    /// # Errors
    /// A text is longer than the context.
    pub fn ensembles(&self, texts: &[Vec<String>]) -> Result<Vec<f32>> {
        let mut features = self.encode(&texts.concat())?;
        features.chunks_exact_mut(self.dim).for_each(unit);
        let mut rows = features.chunks_exact(self.dim);
        let mut means = Vec::with_capacity(texts.len() * self.dim);
        for class in texts {
            let mut mean = vec![0f32; self.dim];
            for row in rows.by_ref().take(class.len()) {
                for (m, v) in mean.iter_mut().zip(row) {
                    *m += v;
                }
            }
            unit(&mut mean);
            means.extend(mean);
        }
        Ok(means)
    }
}

/// Divides a feature by its length.
fn unit(row: &mut [f32]) {
    let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
    row.iter_mut().for_each(|v| *v /= norm);
}

/// The text tower under autodiff on each backend of this build.
enum TrainedTowers {
    Cpu(Box<TextTransformer<Autodiff<Flex>>>),
    #[cfg(feature = "cuda")]
    Cuda(
        Box<TextTransformer<Autodiff<burn_cuda::Cuda>>>,
        burn_cuda::CudaDevice,
    ),
}

/// The frozen text tower under autodiff.
pub struct PromptTrainer {
    tower: TrainedTowers,
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
    /// Trains a context for `names` from `resume`, or from its initial values. `after` sees every step and may
    /// stop it, as [`train_prompt`] says.
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
        after: impl FnMut(Option<&EpochLog>, &PromptState) -> bool,
    ) -> Result<TrainedPrompt> {
        let tokenizer = &self.tokenizer;
        match &self.tower {
            TrainedTowers::Cpu(tower) => {
                let device = Default::default();
                train_on(
                    tower, &device, tokenizer, names, prompt, data, options, resume, after,
                )
            }
            #[cfg(feature = "cuda")]
            TrainedTowers::Cuda(tower, device) => train_on(
                tower, device, tokenizer, names, prompt, data, options, resume, after,
            ),
        }
    }
}

/// [`PromptTrainer::train`] on one backend.
#[allow(clippy::too_many_arguments)]
fn train_on<B: AutodiffBackend + ClipBackend>(
    tower: &TextTransformer<B>,
    device: &B::Device,
    tokenizer: &Tokenizer,
    names: &[String],
    prompt: &PromptOptions,
    data: &PromptData,
    options: &TrainOptions,
    resume: Option<PromptState>,
    after: impl FnMut(Option<&EpochLog>, &PromptState) -> bool,
) -> Result<TrainedPrompt> {
    let learner = PromptLearner::new(tower, tokenizer, names, prompt)?;
    let state = match resume {
        Some(state) => state,
        None => PromptState {
            context: learner.initial_context(tower, tokenizer, prompt, options.seed)?,
            ..PromptState::default()
        },
    };
    let state = train_prompt(tower, &learner, data, options, state, device, after)?;
    let rows = learner.context_rows();
    let context = TensorData::new(state.context.clone(), [rows, tower.width()]);
    let text = learner.text_features(tower, Tensor::from_data(context, device))?;
    Ok(TrainedPrompt {
        state,
        context_rows: rows,
        text: tensor_to_vec(normalise(text)),
    })
}

/// [`tensor_to_vec`], of which a device that failed is an error. Half precision is widened on the device, which is faster.
fn try_tensor_to_vec<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<f32>> {
    let data = tensor
        .cast(FloatDType::F32)
        .try_into_data()
        .map_err(|error| ClipError::Device(format!("the device failed: {error}")))?;
    data.convert::<f32>()
        .into_vec::<f32>()
        .map_err(|error| ClipError::Device(format!("features are not numbers: {error:?}")))
}
