//! CLIP's contrastive training: loss, optimizer, schedule, and the tuning of a checkpoint on pairs of images and captions.
//!
//! [`contrastive_loss`] also trains the demo model. [`Tuner`] goes on from a checkpoint: it learns either both projections
//! and the logit scale on the features of frozen towers, or all parameters. The caller makes the batches ([`batches`]) and
//! passes the learning rate of each step ([`learning_rate`]), so that it decides how images are read.

mod learner;
mod loss;
mod optimizer;
mod projections;
mod schedule;
#[cfg(test)]
mod tests;
mod tuner;

pub use loss::{Contrast, contrastive_loss, count_right};
pub use optimizer::AdamWOptions;
pub use schedule::{batches, learning_rate};
pub use tuner::{Part, StepReport, TuneInput, Tuner};
