//! Training of the demo CLIP with Burn's autodiff, through the modules that serve inference.

mod checkpoint;
mod contrastive;
mod run;

pub use contrastive::contrastive_loss;
pub use run::{TrainOptions, train};
