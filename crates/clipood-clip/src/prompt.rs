//! Prompt learning: a few context vectors before (or around) every class name, trained through the frozen text tower.
//!
//! CoOp (Zhou et al. 2022), LoCoOp (Miyai et al. 2023) and SCT (Yu et al. 2024) differ only in their loss; NegPrompt (Li et al.
//! 2024) learns further contexts beside a frozen one. The caller provides the features of the frozen image tower, so a step costs
//! a pass over the text tower and two small products.

mod coop_file;
mod learner;
mod loss;
mod negative;
mod schedule;
mod train;

pub use coop_file::{CoopContext, CoopContextError};
#[cfg(feature = "cuda")]
pub(crate) use learner::PromptLayout;
pub use learner::{PromptLearner, PromptOptions};
pub use loss::{PatchLoss, PromptLoss, StepLoss};
pub(crate) use negative::negative_features;
pub use negative::{NegativeLoss, NegativeOptions, NegativeTraining, negative_step};
pub use schedule::{CosineWaves, learning_rate};
pub(crate) use train::train_prompt;
pub use train::{
    BatchStep, EpochLog, PartialEpoch, PromptData, PromptState, TrainOptions, Training, batch_step,
    sgd,
};
