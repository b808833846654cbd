//! Learning of prompts on a GPU: the text tower forwards and backwards, and the losses of CoOp, LoCoOp and SCT.
//!
//! Kernels: `kernels/text`, of which `losses.cu` has the formulas.

mod loss;
mod plan;
mod step;
mod tokens;

pub use loss::{Loss, LossKind};
pub use plan::{PromptPlan, PromptTask, prompt_program};
pub use step::{Batch, PromptStep, StepResult};
pub use tokens::PromptTokens;
