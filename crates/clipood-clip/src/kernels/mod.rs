//! Kernels of our own, for the few operations where stock Burn leaves most of a CPU idle.

mod backend;
mod block;
mod conv_norm;
mod packed;
mod tower;

pub use backend::{ClipBackend, ConvNormArgs, ConvNormOutput};
pub use block::{BlockParameters, BlockPass};
pub(crate) use packed::PackedBlock;
