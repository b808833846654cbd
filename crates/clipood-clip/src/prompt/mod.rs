//! Prompt learning: a few context vectors before (or around) every class name, trained through the frozen text tower.
//!
//! CoOp (Zhou et al. 2022), LoCoOp (Miyai et al. 2023) and SCT (Yu et al. 2024) differ only in their loss. Features of
//! the frozen image tower come in from outside, so a step costs a pass over the text tower and two small products.

mod learner;
mod loss;
mod schedule;
mod train;

pub use learner::{PromptLearner, PromptOptions};
pub use loss::{PatchLoss, PromptLoss, StepLoss};
pub use schedule::learning_rate;
pub use train::{
    BatchStep, EpochLog, PartialEpoch, PromptData, PromptState, TrainOptions, batch_step, sgd,
    train_prompt,
};
