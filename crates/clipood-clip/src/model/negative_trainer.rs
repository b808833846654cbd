//! [`PromptTrainer::train_negatives`]: learns the contexts of negative prompts beside a frozen positive one.

use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};

use super::prompt_trainer::{PromptTrainer, TrainedPrompt, TrainedTowers};
use super::text_encoder::repeat_equal;
use crate::encoder::normalise;
use crate::error::{ClipError, Result};
use crate::kernels::ClipBackend;
use crate::prompt::{
    EpochLog, NegativeOptions, NegativeTraining, PromptData, PromptLearner, PromptOptions,
    PromptState, negative_features, negative_step, train_prompt,
};
use crate::text::TextTransformer;
use crate::tokenizer::Tokenizer;
use crate::weights::tensor_to_vec;

/// What negative contexts are trained for, on what and how.
#[derive(Debug, Clone, Copy)]
pub struct NegativeTask<'a> {
    /// Class names, by label.
    pub names: &'a [String],
    /// Shape of the positive context, which is that of each negative one.
    pub prompt: &'a PromptOptions,
    /// The positive context, row-major `[rows, width]`. It stays as it is.
    pub positive_context: &'a [f32],
    /// Normalised text features of the classes with it, `[classes, D]`.
    pub positive_text: &'a [f32],
    /// Image features of the shots.
    pub data: &'a PromptData,
    /// Loss, optimizer and schedule.
    pub train: &'a NegativeOptions,
}

impl PromptTrainer {
    /// Trains negative contexts from `resume`, or from noisy copies of the positive one, to the last epoch. `after` is called as
    /// by [`PromptTrainer::train`]. The result has `per_class` times the rows of the positive context, and the text features
    /// `[per class, classes, D]`. GPUs compute this with Burn's operations.
    ///
    /// # Errors
    /// Names that do not fit the context, data, context or text features of the wrong size, or a loss that is not finite.
    pub fn train_negatives(
        &self,
        task: &NegativeTask<'_>,
        resume: Option<PromptState>,
        after: impl FnMut(Option<&EpochLog>, &PromptState) -> bool,
    ) -> Result<TrainedPrompt> {
        let tokenizer = &self.tokenizer;
        match &self.tower {
            TrainedTowers::Cpu(tower) => train_on(tower, tokenizer, task, resume, after),
            #[cfg(feature = "cuda")]
            TrainedTowers::Cuda(trainer) => {
                train_on(trainer.stock()?, tokenizer, task, resume, after)
            }
        }
    }
}

/// [`PromptTrainer::train_negatives`] on one backend.
fn train_on<B: AutodiffBackend + ClipBackend>(
    tower: &TextTransformer<B>,
    tokenizer: &Tokenizer,
    task: &NegativeTask<'_>,
    resume: Option<PromptState>,
    after: impl FnMut(Option<&EpochLog>, &PromptState) -> bool,
) -> Result<TrainedPrompt> {
    task.data.check(false)?;
    let learner = PromptLearner::new(tower, tokenizer, task.names, task.prompt)?;
    let (rows, width) = (learner.context_rows(), tower.width());
    if task.positive_context.len() != rows * width {
        return Err(ClipError::Input {
            what: "positive context values",
            expected: rows * width,
            found: task.positive_context.len(),
        });
    }
    let options = task.train;
    let state = match resume {
        Some(state) => state,
        None => PromptState {
            context: options.initial_contexts(task.positive_context),
            ..PromptState::default()
        },
    };
    let training = NegativeTraining {
        text: tower,
        learner: &learner,
        positive: task.positive_text,
        data: task.data,
        options,
    };
    let mut step = |contexts: &[f32], picked: &[usize], labels: &[i32]| {
        negative_step(&training, contexts, picked, labels)
    };
    let rows = options.per_class * rows;
    let optimizer = options.optimizer();
    let state = train_prompt(task.data, &optimizer, rows * width, state, &mut step, after)?;
    let contexts = TensorData::new(state.context.clone(), [rows, width]);
    let contexts = Tensor::from_data(contexts, &tower.device());
    let text = negative_features((tower, &learner), options.per_class, contexts)?;
    let [per_class, classes, dim] = text.dims();
    let text = normalise(text.reshape([per_class * classes, dim]));
    let mut text = tensor_to_vec(text);
    if !task.prompt.class_specific {
        for own in text.chunks_exact_mut(classes * dim) {
            repeat_equal(task.names, dim, own);
        }
    }
    Ok(TrainedPrompt {
        state,
        context_rows: rows,
        text,
    })
}
