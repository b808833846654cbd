//! [`PromptTrainer`]: learns the context vectors of prompts.

#[cfg(feature = "cuda")]
use std::sync::OnceLock;

use burn::backend::{Autodiff, Flex};
use burn::module::Module;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};

use super::Model;
#[cfg(feature = "cuda")]
use super::gpu_prompt::GpuPrompts;
#[cfg(feature = "cuda")]
use super::gpu_text::lacks_kernels;
use super::text_encoder::repeat_equal;
use crate::device::{Device, Dtype};
use crate::encoder::normalise;
use crate::error::{ClipError, Result};
use crate::kernels::ClipBackend;
use crate::prompt::{
    EpochLog, PromptData, PromptLearner, PromptOptions, PromptState, TrainOptions, Training,
    batch_step, train_prompt,
};
use crate::text::TextTransformer;
use crate::tokenizer::Tokenizer;
use crate::weights::tensor_to_vec;

impl Model {
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
        let mut text = tensor_to_vec(text);
        if !prompt.class_specific {
            repeat_equal(names, self.config.embed_dim, &mut text);
        }
        Ok(text)
    }

    /// The frozen text tower with gradients for a context, on `device`. On a GPU the tower runs in `dtype`; context, norms,
    /// softmax, logits and loss stay float32. On the CPU everything is float32, whatever the image tower computes in.
    ///
    /// # Errors
    /// A parameter is not finite, the device does not exist, and as [`Dtype::check`].
    pub fn prompt_trainer_as(&self, device: Device, dtype: Dtype) -> Result<PromptTrainer> {
        let tower = match device {
            Device::Cpu => {
                dtype.check(device)?;
                let tower = self.text_tower::<Autodiff<Flex>>(&Default::default())?;
                TrainedTowers::Cpu(Box::new(tower.no_grad()))
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(index) => {
                crate::device::cuda::checked(index)?;
                TrainedTowers::Cuda(Box::new(CudaTrainer {
                    kernels: GpuPrompts::new(self, index, dtype),
                    model: self.clone(),
                    index,
                    dtype,
                    stock: OnceLock::new(),
                }))
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

/// The text tower under autodiff on each backend of this build.
pub(super) enum TrainedTowers {
    Cpu(Box<TextTransformer<Autodiff<Flex>>>),
    #[cfg(feature = "cuda")]
    Cuda(Box<CudaTrainer>),
}

/// The kernels of `clipood-cuda`, and Burn's operations for models and prompts that they do not cover.
#[cfg(feature = "cuda")]
pub(super) struct CudaTrainer {
    kernels: GpuPrompts,
    model: Model,
    index: usize,
    dtype: Dtype,
    /// Made when it is first needed.
    stock: OnceLock<TextTransformer<Autodiff<burn_cuda::Cuda>>>,
}

#[cfg(feature = "cuda")]
impl CudaTrainer {
    fn train(
        &self,
        tokenizer: &Tokenizer,
        task: &PromptTask<'_>,
        resume: Option<PromptState>,
        mut after: impl FnMut(Option<&EpochLog>, &PromptState) -> bool,
    ) -> Result<TrainedPrompt> {
        match self
            .kernels
            .train(tokenizer, task, resume.clone(), &mut after)
        {
            Ok(outcome) => outcome,
            Err(problem) if lacks_kernels(&problem) => {
                train_on(self.stock()?, tokenizer, task, resume, after)
            }
            Err(problem) => Err(problem.into()),
        }
    }

    /// The tower for Burn's operations.
    pub fn stock(&self) -> Result<&TextTransformer<Autodiff<burn_cuda::Cuda>>> {
        if let Some(tower) = self.stock.get() {
            return Ok(tower);
        }
        let device = crate::device::stock::burn_device(self.index)?;
        let tower = self
            .model
            .text_tower::<Autodiff<burn_cuda::Cuda>>(&device)?;
        let tower = tower.no_grad().cast(self.dtype.float());
        Ok(self.stock.get_or_init(|| tower))
    }
}

/// The frozen text tower under autodiff.
pub struct PromptTrainer {
    pub(super) tower: TrainedTowers,
    pub(super) tokenizer: Tokenizer,
}

/// What a context is trained for, on what and how.
#[derive(Debug, Clone, Copy)]
pub struct PromptTask<'a> {
    /// Class names, by label.
    pub names: &'a [String],
    /// Shape of the context.
    pub prompt: &'a PromptOptions,
    /// Image features of the shots.
    pub data: &'a PromptData,
    /// Loss, optimizer and schedule.
    pub train: &'a TrainOptions,
}

/// A trained context and the text features of the class list with it.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedPrompt {
    /// State after the last step; the training is complete when its epochs are the options' epochs.
    pub state: PromptState,
    /// Rows of the context.
    pub context_rows: usize,
    /// Normalised text features `[classes, D]`.
    pub text: Vec<f32>,
}

impl PromptTrainer {
    /// Trains a context from `resume`, or from its initial values, to the last epoch. `after` is called after every step with
    /// the state, and at the end of an epoch with its log; it stops the training by returning false, and a later call can resume
    /// from the state it was given.
    ///
    /// # Errors
    /// Names that do not fit the context, data of the wrong size, or a loss that is not finite.
    pub fn train(
        &self,
        task: &PromptTask<'_>,
        resume: Option<PromptState>,
        after: impl FnMut(Option<&EpochLog>, &PromptState) -> bool,
    ) -> Result<TrainedPrompt> {
        let tokenizer = &self.tokenizer;
        match &self.tower {
            TrainedTowers::Cpu(tower) => train_on(tower, tokenizer, task, resume, after),
            #[cfg(feature = "cuda")]
            TrainedTowers::Cuda(trainer) => trainer.train(tokenizer, task, resume, after),
        }
    }
}

/// [`PromptTrainer::train`] on one backend.
fn train_on<B: AutodiffBackend + ClipBackend>(
    tower: &TextTransformer<B>,
    tokenizer: &Tokenizer,
    task: &PromptTask<'_>,
    resume: Option<PromptState>,
    after: impl FnMut(Option<&EpochLog>, &PromptState) -> bool,
) -> Result<TrainedPrompt> {
    task.data.check(task.train.loss.uses_patches())?;
    let learner = PromptLearner::new(tower, tokenizer, task.names, task.prompt)?;
    let state = match resume {
        Some(state) => state,
        None => PromptState {
            context: learner.initial_context(tower, tokenizer, task.prompt, task.train.seed)?,
            ..PromptState::default()
        },
    };
    let training = Training {
        text: tower,
        learner: &learner,
        data: task.data,
        options: task.train,
    };
    let rows = learner.context_rows();
    let mut step = |context: &[f32], picked: &[usize], labels: &[i32]| {
        batch_step(&training, context, picked, labels)
    };
    let values = rows * tower.width();
    let optimizer = task.train.optimizer();
    let state = train_prompt(task.data, &optimizer, values, state, &mut step, after)?;
    let context = TensorData::new(state.context.clone(), [rows, tower.width()]);
    let text = learner.text_features(tower, Tensor::from_data(context, &tower.device()))?;
    let dim = text.dims()[1];
    let mut text = tensor_to_vec(normalise(text));
    if !task.prompt.class_specific {
        repeat_equal(task.names, dim, &mut text);
    }
    Ok(TrainedPrompt {
        state,
        context_rows: rows,
        text,
    })
}
