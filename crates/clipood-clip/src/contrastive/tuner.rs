//! [`Tuner`]: a checkpoint that is trained step by step on batches of pairs. Nothing here is generic, so that dependent crates
//! need no types of Burn.

use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use super::learner::{Learner, Parts};
use super::loss::{contrastive_loss, count_right};
use super::optimizer::{AdamWOptions, DecayGroups, unusable};
use super::projections::Projections;
use crate::device::Device;
use crate::encoder::{Clip, normalise};
use crate::error::{ClipError, Result};
use crate::kernels::ClipBackend;
use crate::model::Model;
use crate::safetensors_file::{ArrayFile, NamedArray};
use crate::tokenizer::Tokenizer;
use crate::weights::{Weights, try_tensor_to_vec};

/// What is learnt, always together with the logit scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The last linear map of each tower. The towers are frozen, so their features are computed once.
    Projections,
    /// All parameters of both towers. The batch norms of a ModifiedResNet use the statistics of the batch, and keep running
    /// ones for later.
    All,
}

/// The images and texts of a batch, row by row.
#[derive(Debug, Clone, PartialEq)]
pub enum TuneInput {
    /// For [`Part::Projections`]: features before the projections, as [`Model::trunk`] gives them.
    Trunks {
        /// `[batch, image width]`.
        image: Vec<f32>,
        /// `[batch, text width]`.
        text: Vec<f32>,
    },
    /// For [`Part::All`].
    Pairs {
        /// Bytes `[batch, size, size, 3]`.
        pixels: Vec<u8>,
        /// One per image; those that are longer than the context are cut.
        captions: Vec<String>,
    },
}

/// One optimizer step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Loss before the step.
    pub loss: f32,
    /// Images whose most similar caption of the batch is theirs.
    pub right: usize,
    /// Logit scale (the factor on cosines) after the step.
    pub scale: f32,
}

/// A model in training.
pub struct Tuner {
    model: Model,
    steps: Box<dyn Steps>,
}

impl Model {
    /// Starts a training of `part` of this model on `device`, in float32.
    ///
    /// # Errors
    /// A device that does not exist, or lacks Burn's own operations.
    pub fn tuner(&self, part: Part, device: Device, options: &AdamWOptions) -> Result<Tuner> {
        let steps: Box<dyn Steps> = match device {
            Device::Cpu => begin::<Autodiff<Flex>>(self, part, Default::default(), options)?,
            #[cfg(feature = "cuda")]
            Device::Cuda(index) => {
                let device = crate::device::stock::burn_device(index)?;
                begin::<Autodiff<burn_cuda::Cuda>>(self, part, device, options)?
            }
            #[cfg(not(feature = "cuda"))]
            Device::Cuda(index) => return Err(crate::device::no_cuda(index)),
        };
        Ok(Tuner {
            model: self.clone(),
            steps,
        })
    }
}

impl Tuner {
    /// Forward and backward pass over a batch, and a step with the learning rate `lr`. `pairs` are the numbers of image and
    /// caption of each row; pairs of the same image or caption are positives of each other.
    ///
    /// # Errors
    /// An input of another kind or size, or a loss that is not finite.
    pub fn step(&mut self, lr: f64, input: &TuneInput, pairs: &[(u32, u32)]) -> Result<StepReport> {
        self.steps.step(lr, input, pairs)
    }

    /// What [`Tuner::restore`] goes on from: the learnt parameters, called `model.NAME`, and the moments of the optimizer.
    ///
    /// # Errors
    /// The last step failed, or the device does.
    pub fn arrays(&self) -> Result<Vec<NamedArray>> {
        self.steps.arrays()
    }

    /// Goes on from [`Tuner::arrays`] of a tuner of the same model, part and options: all later steps are those that it would
    /// have made.
    ///
    /// # Errors
    /// The arrays are those of another model or part. The tuner is as before then.
    pub fn restore(&mut self, arrays: &ArrayFile<'_>) -> Result<()> {
        self.steps.restore(arrays)
    }

    /// The trained model.
    ///
    /// # Errors
    /// A parameter is not finite, or the last step failed.
    pub fn finish(self) -> Result<Model> {
        let mut weights = (*self.model.weights).clone();
        self.steps.save(&mut weights)?;
        Model::new(self.model.config.clone(), weights)
    }
}

/// Start of the names of learnt parameters among the arrays of a training.
const LEARNT: &str = "model.";

/// The training on one backend.
trait Steps {
    fn step(&mut self, lr: f64, input: &TuneInput, pairs: &[(u32, u32)]) -> Result<StepReport>;

    fn save(&self, weights: &mut Weights) -> Result<()>;

    fn arrays(&self) -> Result<Vec<NamedArray>>;

    fn restore(&mut self, arrays: &ArrayFile<'_>) -> Result<()>;
}

fn begin<B: AutodiffBackend + ClipBackend>(
    model: &Model,
    part: Part,
    device: B::Device,
    options: &AdamWOptions,
) -> Result<Box<dyn Steps>> {
    let (weights, config) = (&*model.weights, &model.config);
    Ok(match part {
        Part::Projections => {
            let learner = Projections::<B>::load(weights, config, &device)?;
            Box::new(Training::new(model, learner, device, options))
        }
        Part::All => {
            let learner = Clip::<B>::load(weights, config, &device)?;
            Box::new(Training::new(model, learner, device, options))
        }
    })
}

struct Training<B: AutodiffBackend, L: Learner<B>> {
    /// Absent after a step that failed.
    learner: Option<L>,
    optimizer: DecayGroups<B, L>,
    options: AdamWOptions,
    parts: Parts<B>,
}

impl<B: AutodiffBackend, L: Learner<B>> Training<B, L> {
    fn new(model: &Model, learner: L, device: B::Device, options: &AdamWOptions) -> Self {
        Self {
            optimizer: DecayGroups::new(&learner, options),
            options: *options,
            learner: Some(learner.with_bounded_scale()),
            parts: Parts {
                config: model.config.clone(),
                tokenizer: Tokenizer::new(),
                device,
            },
        }
    }
}

/// The value of a tensor that holds one.
fn value<B: AutodiffBackend>(tensor: Tensor<B, 1>) -> Result<f32> {
    let values = try_tensor_to_vec(tensor)?;
    let expected = || ClipError::Tuning("a tensor holds no value".into());
    values.first().copied().ok_or_else(expected)
}

fn failed() -> ClipError {
    ClipError::Tuning("an earlier step has failed".into())
}

impl<B: AutodiffBackend, L: Learner<B>> Steps for Training<B, L> {
    fn step(&mut self, lr: f64, input: &TuneInput, pairs: &[(u32, u32)]) -> Result<StepReport> {
        if pairs.is_empty() {
            return Err(ClipError::Tuning("a batch holds no pair".into()));
        }
        let mut learner = self.learner.take().ok_or_else(failed)?;
        let (image, text) = learner.features(input, pairs.len(), &self.parts)?;
        let scale = learner.log_scale().val().exp();
        let contrast = contrastive_loss(normalise(image), normalise(text), scale, pairs);
        let loss = value(contrast.loss.clone())?;
        if !loss.is_finite() {
            return Err(ClipError::Tuning(format!(
                "the loss is {loss} at a learning rate of {lr}: lower it"
            )));
        }
        let right = count_right(&try_tensor_to_vec(contrast.logits)?, pairs);
        let gradients = contrast.loss.backward();
        let mut learner = self
            .optimizer
            .step(lr, learner, gradients)
            .with_bounded_scale();
        let scale = value(learner.log_scale().val())?.exp();
        self.learner = Some(learner);
        Ok(StepReport { loss, right, scale })
    }

    fn save(&self, weights: &mut Weights) -> Result<()> {
        self.learner.as_ref().ok_or_else(failed)?.save(weights);
        Ok(())
    }
    fn arrays(&self) -> Result<Vec<NamedArray>> {
        let learner = self.learner.as_ref().ok_or_else(failed)?;
        let mut weights = Weights::new("training");
        learner.save(&mut weights);
        let mut arrays: Vec<NamedArray> = weights
            .iter()
            .map(|(name, tensor)| {
                let name = format!("{LEARNT}{name}");
                NamedArray::f32(name, tensor.shape.clone(), &tensor.data)
            })
            .collect();
        arrays.extend(self.optimizer.moments(learner)?);
        Ok(arrays)
    }

    fn restore(&mut self, arrays: &ArrayFile<'_>) -> Result<()> {
        let mut weights = Weights::new("checkpoint of a training");
        for name in arrays.names() {
            if let Some(learnt) = name.strip_prefix(LEARNT) {
                let shape = arrays.shape(name).map_err(unusable)?;
                weights.insert(learnt, shape, arrays.f32(name).map_err(unusable)?);
            }
        }
        let learner = L::load(&weights, &self.parts.config, &self.parts.device)?;
        let optimizer = DecayGroups::new(&learner, &self.options);
        self.optimizer = optimizer.with_moments(&learner, arrays)?;
        self.learner = Some(learner);
        Ok(())
    }
}
