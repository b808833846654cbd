//! The convolution with its norm on Flex's tensors, as one step of the autodiff graph.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients as GradientStore;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::backend::Backend;
use burn::tensor::{Shape, TensorData, TensorMetadata, ops::FloatTensor};

use super::{Geometry, Layer, Saved};

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
        let layer = Layer {
            geometry: &state.geometry,
            x: state.x.storage(),
            weight: state.weight.storage(),
            gamma: state.gamma.storage(),
            beta: state.beta.storage(),
            relu: state.relu,
        };
        let found = layer.backward(&state.saved, dy.storage(), x.is_some());
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

/// Batch statistics and output; gradients flow to all four operands.
pub(in crate::kernels) fn on_autodiff<C: CheckpointStrategy>(
    args: ConvNormArgs<Autodiff<Flex, C>>,
) -> ConvNormOutput<Autodiff<Flex, C>> {
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
    let layer = Layer {
        geometry: &geometry,
        x: x.storage(),
        weight: weight.storage(),
        gamma: gamma.storage(),
        beta: beta.storage(),
        relu: args.relu,
    };
    let (y, saved) = layer.forward();
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
    ConvNormOutput { y, mean, variance }
}
