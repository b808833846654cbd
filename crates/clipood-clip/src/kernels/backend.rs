//! [`ClipBackend`]: a Burn backend, with faster kernels for some of them.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;

use super::block::{self, BlockParameters, BlockPass};
use super::conv_norm::{self, ConvNormArgs, ConvNormOutput};
use super::tower;

/// A Burn backend that CLIP runs on. The provided methods are for backends without kernels of this crate.
pub trait ClipBackend: Backend {
    /// In the training of an image tower: convolution, batch norm with batch statistics and optional ReLU as one
    /// differentiable operation (epsilon 1e-5); `None` where the backend has no such kernel and the caller composes stock
    /// operations.
    fn conv_norm_train(args: ConvNormArgs<Self>) -> Option<ConvNormOutput<Self>> {
        let _ = args;
        None
    }

    /// A transformer block at inference as one operation on `x` `[batch, tokens, width]`.
    ///
    /// # Errors
    /// `x` itself, where the backend has no such kernel and the caller composes stock operations.
    fn residual_block(
        x: FloatTensor<Self>,
        parameters: BlockParameters<Self>,
        causal: bool,
        pass: BlockPass<'_>,
    ) -> Result<FloatTensor<Self>, FloatTensor<Self>> {
        let _ = (parameters, causal, pass);
        Err(x)
    }

    /// Texts that start with the same `shared` tokens through a causal transformer as one operation, differentiable in
    /// `x` alone: `x` `[shared + sum of lengths, width]` holds embedded tokens with their positions, the shared ones and
    /// then those of each text up to its end; the result `[texts, width]` is the last block's output at each end. `None`
    /// where the backend has no such kernel, or a parameter is to be trained.
    fn frozen_tower(
        x: &FloatTensor<Self>,
        blocks: &[BlockParameters<Self>],
        shared: usize,
        lengths: &[usize],
    ) -> Option<FloatTensor<Self>> {
        let _ = (x, blocks, shared, lengths);
        None
    }
}

impl ClipBackend for Flex {
    fn residual_block(
        x: FlexTensor,
        parameters: BlockParameters<Self>,
        causal: bool,
        pass: BlockPass<'_>,
    ) -> Result<FlexTensor, FlexTensor> {
        Ok(block::on_flex(x, &parameters, causal, pass))
    }

    fn frozen_tower(
        x: &FlexTensor,
        blocks: &[BlockParameters<Self>],
        shared: usize,
        lengths: &[usize],
    ) -> Option<FlexTensor> {
        Some(tower::on_flex(x, blocks, shared, lengths))
    }
}

/// Burn's operations, fused and autotuned.
#[cfg(feature = "cuda")]
impl ClipBackend for burn_cuda::Cuda {}

/// Burn's operations, fused and autotuned.
#[cfg(feature = "cuda")]
impl<C: CheckpointStrategy> ClipBackend for Autodiff<burn_cuda::Cuda, C> {}

impl<C: CheckpointStrategy> ClipBackend for Autodiff<Flex, C> {
    fn conv_norm_train(args: ConvNormArgs<Self>) -> Option<ConvNormOutput<Self>> {
        Some(conv_norm::on_autodiff(args))
    }

    fn frozen_tower(
        x: &FloatTensor<Self>,
        blocks: &[BlockParameters<Self>],
        shared: usize,
        lengths: &[usize],
    ) -> Option<FloatTensor<Self>> {
        tower::on_autodiff(x, blocks, shared, lengths)
    }
}
