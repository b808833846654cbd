//! Sizes and parameters of a text tower, and their place in device memory.

use crate::error::{CudaError, Result};
use crate::precision::Precision;
use crate::rows::Activation;
use crate::space::Space;

/// Sizes of a text tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextSizes {
    /// Values of a token, a multiple of 32.
    pub width: usize,
    /// Heads of attention.
    pub heads: usize,
    /// Blocks, at least one.
    pub layers: usize,
    /// Most tokens of a text.
    pub context: usize,
    /// Values of a feature.
    pub dim: usize,
    /// Of the perceptrons.
    pub activation: Activation,
}

/// Finds a float32 parameter by its name in OpenAI's state dict.
pub type Parameters<'a> = &'a dyn Fn(&str) -> Option<&'a [f32]>;

/// A layer norm's parameters, float32, as offsets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NormPlace {
    pub weight: u64,
    pub bias: u64,
}

/// A linear layer's parameters, as offsets: weight `[outputs, inputs]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinearPlace {
    pub weight: u64,
    pub bias: u64,
    pub inputs: usize,
    pub outputs: usize,
}

/// The parameters of one block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockPlace {
    pub ln_1: NormPlace,
    pub in_proj: LinearPlace,
    pub out_proj: LinearPlace,
    pub ln_2: NormPlace,
    pub c_fc: LinearPlace,
    pub c_proj: LinearPlace,
}

/// All parameters but the token embedding.
#[derive(Debug, Clone)]
pub(crate) struct WeightPlaces {
    /// `[context, width]`, float32.
    pub position: u64,
    pub blocks: Vec<BlockPlace>,
    pub ln_final: NormPlace,
    /// `[width, dim]`.
    pub projection: u64,
}

impl TextSizes {
    /// Values of a head.
    pub fn head(&self) -> usize {
        self.width / self.heads
    }

    /// Whether the kernels cover these sizes.
    ///
    /// # Errors
    /// They do not.
    pub fn check(&self) -> Result<()> {
        let Self {
            width,
            heads,
            layers,
            dim,
            ..
        } = *self;
        // Rows of features and tokens are whole 16-byte vectors in every format.
        let whole = width.is_multiple_of(32) && dim.is_multiple_of(8);
        if heads == 0
            || width == 0
            || !whole
            || !width.is_multiple_of(heads)
            || layers == 0
            || dim == 0
        {
            return Err(CudaError::Unsupported(format!(
                "a text tower of width {width}, {heads} heads, {layers} blocks and features of {dim} values"
            )));
        }
        Ok(())
    }
}

/// The parameter `name`, which has `expected` values.
///
/// # Errors
/// It is missing or has another number of values.
pub(crate) fn parameter<'a>(
    parameters: Parameters<'a>,
    name: &str,
    expected: usize,
) -> Result<&'a [f32]> {
    match parameters(name) {
        Some(values) if values.len() == expected => Ok(values),
        found => Err(CudaError::Weight {
            name: name.to_string(),
            expected,
            found: found.map_or(0, <[f32]>::len),
        }),
    }
}

impl WeightPlaces {
    /// Places the parameters, linear layers in `precision`.
    pub fn new(
        space: &mut Space,
        parameters: Parameters<'_>,
        sizes: &TextSizes,
        precision: Precision,
    ) -> Result<Self> {
        let (width, dim) = (sizes.width, sizes.dim);
        let mut placer = Placer {
            space,
            parameters,
            precision,
        };
        let blocks = (0..sizes.layers)
            .map(|i| {
                let name = |part: &str| format!("transformer.resblocks.{i}.{part}");
                Ok(BlockPlace {
                    ln_1: placer.norm(&name("ln_1"), width)?,
                    in_proj: placer.linear(
                        [&name("attn.in_proj_weight"), &name("attn.in_proj_bias")],
                        width,
                        3 * width,
                    )?,
                    out_proj: placer.linear(
                        [&name("attn.out_proj.weight"), &name("attn.out_proj.bias")],
                        width,
                        width,
                    )?,
                    ln_2: placer.norm(&name("ln_2"), width)?,
                    c_fc: placer.linear(
                        [&name("mlp.c_fc.weight"), &name("mlp.c_fc.bias")],
                        width,
                        4 * width,
                    )?,
                    c_proj: placer.linear(
                        [&name("mlp.c_proj.weight"), &name("mlp.c_proj.bias")],
                        4 * width,
                        width,
                    )?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            position: placer.floats("positional_embedding", sizes.context * width)?,
            ln_final: placer.norm("ln_final", width)?,
            projection: placer.values("text_projection", width * dim)?,
            blocks,
        })
    }
}

struct Placer<'s, 'p> {
    space: &'s mut Space,
    parameters: Parameters<'p>,
    precision: Precision,
}

impl Placer<'_, '_> {
    fn floats(&mut self, name: &str, count: usize) -> Result<u64> {
        let values = parameter(self.parameters, name, count)?;
        Ok(self.space.holding(Precision::F32, values))
    }

    fn values(&mut self, name: &str, count: usize) -> Result<u64> {
        let values = parameter(self.parameters, name, count)?;
        Ok(self.space.holding(self.precision, values))
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<NormPlace> {
        Ok(NormPlace {
            weight: self.floats(&format!("{name}.weight"), width)?,
            bias: self.floats(&format!("{name}.bias"), width)?,
        })
    }

    fn linear(
        &mut self,
        [weight, bias]: [&str; 2],
        inputs: usize,
        outputs: usize,
    ) -> Result<LinearPlace> {
        Ok(LinearPlace {
            weight: self.values(weight, inputs * outputs)?,
            bias: self.values(bias, outputs)?,
            inputs,
            outputs,
        })
    }
}
