//! [`ClipBackend`]: a Burn backend and, where we have them, faster kernels for it.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients as GradientStore;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::backend::Backend;
use burn::tensor::{Shape, TensorData, TensorMetadata, ops::FloatTensor};

use super::block::{self, BlockParameters, BlockPass};
use super::conv_norm::{self, Geometry, Saved};
use super::tower;

/// Operands of a convolution with batch norm in training mode.
#[derive(Debug, Clone)]
pub struct ConvNormArgs<B: Backend> {
    /// `[batch, input, height, width]`.
    pub x: FloatTensor<B>,
    /// `[output, input, kernel, kernel]`, kernel 1 or 3, padded by half of it.
    pub weight: FloatTensor<B>,
    /// Norm weight `[output]`.
    pub gamma: FloatTensor<B>,
    /// Norm bias `[output]`.
    pub beta: FloatTensor<B>,
    /// Step of the convolution.
    pub stride: usize,
    /// Whether a ReLU follows the norm.
    pub relu: bool,
}

/// Result of a convolution with batch norm in training mode.
#[derive(Debug, Clone)]
pub struct ConvNormOutput<B: Backend> {
    /// `[batch, output, height / stride, width / stride]`.
    pub y: FloatTensor<B>,
    /// Batch mean of each output channel.
    pub mean: Vec<f32>,
    /// Biased batch variance of each output channel.
    pub variance: Vec<f32>,
}

/// A Burn backend that CLIP runs on.
pub trait ClipBackend: Backend {
    /// Convolution, batch norm with batch statistics and optional ReLU as one differentiable operation (epsilon 1e-5);
    /// `None` where the backend has no such kernel and the caller composes stock operations.
    fn conv_norm_train(args: ConvNormArgs<Self>) -> Option<ConvNormOutput<Self>> {
        let _ = args;
        None
    }

    /// A transformer block at inference as one operation; gives `x` `[batch, tokens, width]` back where the backend has
    /// no such kernel and the caller composes stock operations.
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

/// A convolution with its norm as one step of the graph.
#[derive(Debug)]
struct ConvNormStep;

#[derive(Debug, Clone)]
struct ConvNormState {
    geometry: Geometry,
    x: FlexTensor,
    weight: FlexTensor,
    gamma: FlexTensor,
    beta: FlexTensor,
    relu: bool,
    saved: Saved,
}

fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

impl Backward<Flex, 4> for ConvNormStep {
    type State = ConvNormState;

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        grads: &mut GradientStore,
        _checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let state = ops.state;
        let [x, weight, gamma, beta] = ops.parents;
        let found = conv_norm::backward(
            &state.geometry,
            state.x.storage(),
            state.weight.storage(),
            (state.gamma.storage(), state.beta.storage()),
            state.relu,
            &state.saved,
            dy.storage(),
            x.is_some(),
        );
        if let (Some(node), Some(values)) = (x, found.x) {
            grads.register::<Flex>(node.id, tensor(values, state.x.shape()));
        }
        for (node, values, shape) in [
            (weight, found.weight, state.weight.shape()),
            (gamma, found.gamma, state.gamma.shape()),
            (beta, found.beta, state.beta.shape()),
        ] {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, tensor(values, shape));
            }
        }
    }
}

impl<C: CheckpointStrategy> ClipBackend for Autodiff<Flex, C> {
    fn conv_norm_train(args: ConvNormArgs<Self>) -> Option<ConvNormOutput<Self>> {
        let [images, input, height, width] = args.x.shape().dims();
        let [output, _, kernel, _] = args.weight.shape().dims();
        let geometry = Geometry {
            images,
            input,
            height,
            width,
            output,
            kernel,
            stride: args.stride,
        };
        let [x, weight, gamma, beta] = [&args.x, &args.weight, &args.gamma, &args.beta]
            .map(|operand| operand.primitive.to_contiguous());
        let (y, saved) = conv_norm::forward(
            &geometry,
            x.storage(),
            weight.storage(),
            gamma.storage(),
            beta.storage(),
            args.relu,
        );
        let shape = Shape::new([images, output, geometry.out_height(), geometry.out_width()]);
        let y = tensor(y, shape);
        let (mean, variance) = (saved.mean.clone(), saved.variance.clone());
        let nodes = [&args.x, &args.weight, &args.gamma, &args.beta].map(|o| o.node.clone());
        let y = match ConvNormStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(step) => step.finish(
                ConvNormState {
                    geometry,
                    x,
                    weight,
                    gamma,
                    beta,
                    relu: args.relu,
                    saved,
                },
                y,
            ),
            OpsKind::UnTracked(step) => step.finish(y),
        };
        Some(ConvNormOutput { y, mean, variance })
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
