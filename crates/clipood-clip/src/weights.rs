//! A checkpoint in memory: named float32 tensors under OpenAI's state-dict names.
//!
//! Every file format is converted into this form first, so that the modules need only one naming scheme.

use std::collections::BTreeMap;

use burn::module::Param;
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor, TensorData};

use crate::error::{ClipError, Result};
use crate::safetensors_file::{NO_METADATA, NamedArray, to_bytes};

/// One tensor: row-major values and their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightTensor {
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub data: Vec<f32>,
}

/// Named tensors of one checkpoint.
#[derive(Debug, Clone, Default)]
pub struct Weights {
    /// File or program the tensors came from, for messages.
    pub origin: String,
    tensors: BTreeMap<String, WeightTensor>,
}

/// Storage type of a written checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightDtype {
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
}

impl Weights {
    /// No tensors yet.
    pub fn new(origin: impl Into<String>) -> Self {
        Self {
            origin: origin.into(),
            tensors: BTreeMap::new(),
        }
    }

    /// The tensors as a safetensors file.
    ///
    /// # Errors
    /// The shape of a tensor does not fit its values.
    pub fn to_safetensors(&self, dtype: WeightDtype) -> Result<Vec<u8>> {
        let arrays: Vec<NamedArray> = self
            .tensors
            .iter()
            .map(|(name, tensor)| match dtype {
                WeightDtype::F16 => NamedArray::f16(name, tensor.shape.clone(), &tensor.data),
                WeightDtype::F32 => NamedArray::f32(name, tensor.shape.clone(), &tensor.data),
            })
            .collect();
        to_bytes(&arrays, NO_METADATA).map_err(|error| ClipError::Format {
            origin: self.origin.clone(),
            reason: error.to_string(),
        })
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, shape: Vec<usize>, data: Vec<f32>) {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        self.tensors
            .insert(name.into(), WeightTensor { shape, data });
    }

    /// The tensors alone.
    pub(crate) fn into_tensors(self) -> BTreeMap<String, WeightTensor> {
        self.tensors
    }

    /// The tensor called `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<&WeightTensor> {
        self.tensors.get(name)
    }

    /// Names and tensors in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &WeightTensor)> {
        self.tensors.iter()
    }

    /// Names in name order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor called `name`, checked against `expected`, on `device`.
    ///
    /// # Errors
    /// Missing, of another shape, or not finite.
    pub fn tensor<B: Backend, const D: usize>(
        &self,
        name: &str,
        expected: [usize; D],
        device: &B::Device,
    ) -> Result<Tensor<B, D>> {
        let found = self.get(name).ok_or_else(|| ClipError::MissingTensor {
            origin: self.origin.clone(),
            name: name.to_string(),
            expected: expected.to_vec(),
        })?;
        // A scalar may be stored as rank 0 or as one value.
        let same_scalar = expected.iter().product::<usize>() == 1 && found.data.len() == 1;
        if found.shape != expected && !same_scalar {
            return Err(ClipError::Shape {
                origin: self.origin.clone(),
                name: name.to_string(),
                expected: expected.to_vec(),
                found: found.shape.clone(),
            });
        }
        if let Some(position) = found.data.iter().position(|v| !v.is_finite()) {
            return Err(ClipError::NotFinite {
                origin: self.origin.clone(),
                name: name.to_string(),
                position,
            });
        }
        Ok(Tensor::from_data(
            TensorData::new(found.data.clone(), expected),
            device,
        ))
    }

    /// [`Weights::tensor`] as a module parameter.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub(crate) fn param<B: Backend, const D: usize>(
        &self,
        name: &str,
        expected: [usize; D],
        device: &B::Device,
    ) -> Result<Param<Tensor<B, D>>> {
        Ok(Param::from_tensor(self.tensor(name, expected, device)?))
    }

    /// Stores a tensor of a module under `name`.
    pub fn store<B: Backend, const D: usize>(&mut self, name: &str, tensor: Tensor<B, D>) {
        let shape = tensor.dims().to_vec();
        self.insert(name, shape, tensor_to_vec(tensor));
    }

    /// blake3 over names, shapes and values, so that files with the same numbers have the same hash in any format.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (name, tensor) in &self.tensors {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(&(tensor.shape.len() as u64).to_le_bytes());
            for size in &tensor.shape {
                hasher.update(&(*size as u64).to_le_bytes());
            }
            for value in &tensor.data {
                hasher.update(&value.to_le_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// The values of a float tensor, row-major.
pub fn tensor_to_vec<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.into_vec::<f32>()
        .expect("a tensor converted to f32 is read as f32")
}

/// As [`tensor_to_vec`], but a device failure is an error. Half precision is widened on the device, which is faster.
pub(crate) fn try_tensor_to_vec<B: Backend, const D: usize>(
    tensor: Tensor<B, D>,
) -> Result<Vec<f32>> {
    let data = tensor
        .cast(FloatDType::F32)
        .try_into_data()
        .map_err(|error| ClipError::Device(format!("the device failed: {error}")))?;
    data.convert::<f32>()
        .into_vec::<f32>()
        .map_err(|error| ClipError::Device(format!("features are not numbers: {error:?}")))
}
