//! Tensors of a tower by their names, as slices.

use clipood_kernels::norm::Norm;
use clipood_kernels::vit::{BlockParameters, Linear};

use crate::error::{ClipError, Result};
use crate::weights::Weights;

/// The tensors whose names start with `prefix`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'a> {
    pub weights: &'a Weights,
    pub prefix: &'static str,
}

impl<'a> Named<'a> {
    /// The values of a tensor, row-major.
    ///
    /// # Errors
    /// Missing, or of another shape.
    pub fn tensor(&self, name: &str, expected: &[usize]) -> Result<&'a [f32]> {
        let (origin, name) = (&self.weights.origin, format!("{}{name}", self.prefix));
        let Some(found) = self.weights.get(&name) else {
            return Err(ClipError::MissingTensor {
                origin: origin.clone(),
                name,
                expected: expected.to_vec(),
            });
        };
        if found.shape != expected {
            return Err(ClipError::Shape {
                origin: origin.clone(),
                name,
                expected: expected.to_vec(),
                found: found.shape.clone(),
            });
        }
        Ok(&found.data)
    }

    /// A layer norm.
    ///
    /// # Errors
    /// As [`Named::tensor`].
    pub fn norm(&self, name: &str, width: usize) -> Result<Norm<'a>> {
        Ok(Norm {
            gamma: self.tensor(&format!("{name}.weight"), &[width])?,
            beta: self.tensor(&format!("{name}.bias"), &[width])?,
        })
    }

    /// A weight `[output, input]` and its bias; `sizes` are input and output.
    ///
    /// # Errors
    /// As [`Named::tensor`].
    pub fn linear(&self, weight: &str, bias: &str, sizes: [usize; 2]) -> Result<Linear<'a>> {
        let [input, output] = sizes;
        Ok((
            self.tensor(weight, &[output, input])?,
            self.tensor(bias, &[output])?,
        ))
    }

    /// Block `i` of a transformer.
    ///
    /// # Errors
    /// As [`Named::tensor`].
    pub fn block(&self, i: usize, width: usize) -> Result<BlockParameters<'a>> {
        let at = |name: &str| format!("transformer.resblocks.{i}.{name}");
        let linear = |name: &str, sizes: [usize; 2]| {
            let (weight, bias) = (at(&format!("{name}.weight")), at(&format!("{name}.bias")));
            self.linear(&weight, &bias, sizes)
        };
        let (weight, bias) = (at("attn.in_proj_weight"), at("attn.in_proj_bias"));
        Ok(BlockParameters {
            ln_1: self.norm(&at("ln_1"), width)?,
            in_proj: self.linear(&weight, &bias, [width, 3 * width])?,
            out_proj: linear("attn.out_proj", [width, width])?,
            ln_2: self.norm(&at("ln_2"), width)?,
            c_fc: linear("mlp.c_fc", [width, 4 * width])?,
            c_proj: linear("mlp.c_proj", [4 * width, width])?,
        })
    }
}
