//! What an image tower computes from a batch.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Features of a batch of images, before normalisation.
#[derive(Debug, Clone)]
pub struct ImageFeatures<B: Backend> {
    /// `[batch, D]`.
    pub global: Tensor<B, 2>,
    /// `[batch, positions, D]`, when asked for.
    pub local: Option<Tensor<B, 3>>,
}
