//! Training of the demo CLIP with Burn's autodiff, using the same modules as inference.

mod checkpoint;
mod run;

pub use run::{TrainOptions, train};
