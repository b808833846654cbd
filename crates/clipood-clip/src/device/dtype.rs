//! Number formats: [`Dtype`].

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "cuda")]
use burn::tensor::FloatDType;

use super::Device;
use crate::error::{ClipError, Result};

/// Number format of parameters and activations. Layer norms, the softmax of trained prompts, logits and losses are
/// float32 in any case; on the CPU everything but the weights and inputs of a vision transformer's products.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single precision, also inside of products. Burn's own operations on GPUs, which models without kernels take, may
    /// round the products' inputs to TF32.
    #[default]
    F32,
    /// float32 whose products round their inputs to TF32 (10 bits of mantissa) for the tensor cores of a GPU.
    Tf32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl Dtype {
    /// Name as fingerprints, tables and the command line hold it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// The same format as Burn names it.
    #[cfg(feature = "cuda")]
    pub(crate) fn float(self) -> FloatDType {
        match self {
            Self::F32 | Self::Tf32 => FloatDType::F32,
            Self::F16 => FloatDType::F16,
            Self::Bf16 => FloatDType::BF16,
        }
    }

    /// The format in which prompts are trained where images are encoded in this one. On a GPU that is f16 with a loss scale
    /// instead of bf16, whose gradients are ten times as far from exact ones at the same speed.
    #[must_use]
    pub fn for_training(self, device: Device) -> Self {
        match (device, self) {
            (Device::Cuda(_), Self::Bf16) => Self::F16,
            (Device::Cuda(_) | Device::Cpu, other) => other,
        }
    }

    /// Whether `device` computes in this format. On the CPU bf16 means the matrix products of a vision transformer; see
    /// [`Model::check_dtype`](crate::model::Model::check_dtype) for the formats of a model.
    ///
    /// # Errors
    /// f16 or TF32 on the CPU, or bf16 on a CPU without instructions for it.
    pub fn check(self, device: Device) -> Result<()> {
        match (device, self) {
            (Device::Cuda(_), _) | (Device::Cpu, Self::F32) => Ok(()),
            (Device::Cpu, Self::Bf16) if clipood_kernels::bf16::is_supported() => Ok(()),
            (Device::Cpu, Self::Bf16) => Err(no_bf16()),
            (Device::Cpu, Self::F16 | Self::Tf32) => Err(ClipError::Device(format!(
                "the CPU does not compute in {self}; use f32, bf16 where the CPU has AVX-512 BF16, or a GPU"
            ))),
        }
    }
}

/// The error of a CPU without bf16 instructions.
pub(crate) fn no_bf16() -> ClipError {
    ClipError::Device("bf16 on the CPU needs AVX-512 BF16; this CPU lacks it: use f32".into())
}

impl FromStr for Dtype {
    type Err = ClipError;

    fn from_str(text: &str) -> Result<Self> {
        [Self::F32, Self::Tf32, Self::F16, Self::Bf16]
            .into_iter()
            .find(|dtype| dtype.name() == text)
            .ok_or_else(|| {
                ClipError::Device(format!(
                    "unknown dtype `{text}`; known: f32, tf32, f16, bf16"
                ))
            })
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
