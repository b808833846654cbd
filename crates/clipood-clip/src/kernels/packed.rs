//! A transformer block whose weights are kept in bf16, on Flex's tensors.

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorMetadata, TensorPrimitive};
use clipood_kernels::activation::Activation;
use clipood_kernels::attention::Attention;
use clipood_kernels::bf16::PackedAffine;
use clipood_kernels::block::Block;
use clipood_kernels::norm::Norm;

use super::block::{self, BlockParameters, BlockPass, Contiguous};

/// A block without masking at inference. Its four maps multiply in bf16; norms, attention, activation, sums and residuals
/// are float32.
#[derive(Debug, Clone)]
pub(crate) struct PackedBlock {
    ln_1: OwnedNorm,
    in_proj: PackedAffine,
    out_proj: PackedAffine,
    ln_2: OwnedNorm,
    c_fc: PackedAffine,
    c_proj: PackedAffine,
    activation: Activation,
    attention: Attention,
}

#[derive(Debug, Clone)]
struct OwnedNorm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

impl PackedBlock {
    /// `None` on a CPU that does not multiply bf16.
    pub fn new(parameters: &BlockParameters<Flex>) -> Option<Self> {
        let [width] = parameters.out_proj.1.shape().dims();
        let contiguous = Contiguous::of(parameters);
        let wide = contiguous.block(width, false);
        Some(Self {
            ln_1: OwnedNorm::new(wide.ln_1),
            in_proj: PackedAffine::new(wide.in_proj)?,
            out_proj: PackedAffine::new(wide.out_proj)?,
            ln_2: OwnedNorm::new(wide.ln_2),
            c_fc: PackedAffine::new(wide.c_fc)?,
            c_proj: PackedAffine::new(wide.c_proj)?,
            activation: wide.activation,
            attention: wide.attention,
        })
    }

    /// The part of the output for `x` `[batch, tokens, width]` that `pass` selects, in a tensor of that part's shape.
    pub fn run<const D: usize>(&self, x: Tensor<Flex, 3>, pass: BlockPass<'_>) -> Tensor<Flex, D> {
        let block = Block {
            ln_1: self.ln_1.norm(),
            in_proj: &self.in_proj,
            out_proj: &self.out_proj,
            ln_2: self.ln_2.norm(),
            c_fc: &self.c_fc,
            c_proj: &self.c_proj,
            activation: self.activation,
            attention: self.attention,
        };
        let y = block::run(&block, x.into_primitive().tensor(), pass);
        Tensor::from_primitive(TensorPrimitive::Float(y))
    }
}

impl OwnedNorm {
    fn new(norm: Norm<'_>) -> Self {
        Self {
            gamma: norm.gamma.to_vec(),
            beta: norm.beta.to_vec(),
        }
    }

    fn norm(&self) -> Norm<'_> {
        Norm {
            gamma: &self.gamma,
            beta: &self.beta,
        }
    }
}
