//! The transformer block of [`clipood_kernels`] on Flex's tensors.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::backend::Backend;
use burn::tensor::{Shape, TensorData, TensorMetadata, ops::FloatTensor};
use clipood_kernels::activation::Activation;
use clipood_kernels::attention::Attention;
use clipood_kernels::block::{Block, Buffers};
use clipood_kernels::matrix::{Affine, Map};
use clipood_kernels::norm::Norm;

/// Parameters of a transformer block; pairs are factor and offset, weights `[input, output]`.
#[derive(Debug, Clone)]
pub struct BlockParameters<B: Backend> {
    /// Norm before attention.
    pub ln_1: (FloatTensor<B>, FloatTensor<B>),
    /// Queries, keys and values, `[width, 3 width]`.
    pub in_proj: (FloatTensor<B>, FloatTensor<B>),
    /// After attention.
    pub out_proj: (FloatTensor<B>, FloatTensor<B>),
    /// Norm before the perceptron.
    pub ln_2: (FloatTensor<B>, FloatTensor<B>),
    /// First layer of the perceptron.
    pub c_fc: (FloatTensor<B>, FloatTensor<B>),
    /// Second layer.
    pub c_proj: (FloatTensor<B>, FloatTensor<B>),
    /// Attention heads.
    pub heads: usize,
    /// QuickGELU instead of GELU.
    pub quick_gelu: bool,
}

/// Which part of a block's output is wanted.
#[derive(Debug, Clone, Copy)]
pub enum BlockPass<'a> {
    /// Every token: `[batch, tokens, width]`.
    All,
    /// One token of each row: `[batch, width]`.
    At(&'a [usize]),
    /// Every token through the value path alone, as local features take it: `[batch, tokens, width]`.
    Values,
}

/// Parameters whose memory follows their shape.
#[derive(Debug, Clone)]
pub(super) struct Contiguous {
    pairs: [(FlexTensor, FlexTensor); 6],
    heads: usize,
    quick_gelu: bool,
}

impl Contiguous {
    /// Copies only parameters whose memory does not.
    pub fn of(parameters: &BlockParameters<Flex>) -> Self {
        let pair = |(a, b): &(FlexTensor, FlexTensor)| (a.to_contiguous(), b.to_contiguous());
        Self {
            pairs: [
                &parameters.ln_1,
                &parameters.in_proj,
                &parameters.out_proj,
                &parameters.ln_2,
                &parameters.c_fc,
                &parameters.c_proj,
            ]
            .map(pair),
            heads: parameters.heads,
            quick_gelu: parameters.quick_gelu,
        }
    }

    /// The block that computes with them.
    pub fn block(&self, width: usize, causal: bool) -> Block<'_> {
        let [ln_1, in_proj, out_proj, ln_2, c_fc, c_proj] = &self.pairs;
        Block {
            ln_1: norm(ln_1),
            in_proj: affine(in_proj),
            out_proj: affine(out_proj),
            ln_2: norm(ln_2),
            c_fc: affine(c_fc),
            c_proj: affine(c_proj),
            activation: match self.quick_gelu {
                true => Activation::QuickGelu,
                false => Activation::Gelu,
            },
            attention: Attention {
                heads: self.heads,
                width,
                causal,
            },
        }
    }
}

/// As much of the block as `pass` says; in place if `x` is not shared.
pub(super) fn on_flex(
    x: FlexTensor,
    parameters: &BlockParameters<Flex>,
    causal: bool,
    pass: BlockPass<'_>,
) -> FlexTensor {
    let [_, _, width] = x.shape().dims();
    let parameters = Contiguous::of(parameters);
    run(&parameters.block(width, causal), x, pass)
}

/// As [`on_flex`], with a block of any kind of maps.
pub(super) fn run<M: Map>(block: &Block<'_, M>, x: FlexTensor, pass: BlockPass<'_>) -> FlexTensor {
    let [batch, tokens, width] = x.shape().dims();
    let shared = x;
    let mut x = shared.to_contiguous();
    // A second reference would force a copy before the first write.
    drop(shared);
    let buffers = Buffers::default();
    match pass {
        BlockPass::All => block.forward(x.storage_mut(), tokens, &buffers),
        BlockPass::Values => block.forward_values(x.storage_mut(), &buffers),
        BlockPass::At(at) => {
            let read = block.forward_at(x.storage(), tokens, at, &buffers);
            let shape = Shape::new([batch, width]);
            return FlexTensor::from_data(TensorData::new(read, shape));
        }
    }
    x
}

fn norm((gamma, beta): &(FlexTensor, FlexTensor)) -> Norm<'_> {
    Norm {
        gamma: gamma.storage(),
        beta: beta.storage(),
    }
}

fn affine((weight, bias): &(FlexTensor, FlexTensor)) -> Affine<'_> {
    Affine {
        weight: weight.storage(),
        bias: bias.storage(),
    }
}
