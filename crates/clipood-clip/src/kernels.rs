//! Kernels for the few operations in which Burn's own leave most of a CPU idle.

mod backend;
mod block;
#[cfg(feature = "train-image-tower")]
mod conv_norm;
mod tower;

pub use backend::ClipBackend;
pub use block::{BlockParameters, BlockPass};
#[cfg(feature = "train-image-tower")]
pub use conv_norm::{ConvNormArgs, ConvNormOutput};
