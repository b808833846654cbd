//! Kernels for the few operations in which Burn's own leave most of a CPU idle.

mod backend;
mod block;
mod conv_norm;
mod tower;

pub use backend::ClipBackend;
pub use block::{BlockParameters, BlockPass};
pub use conv_norm::{ConvNormArgs, ConvNormOutput};
