//! A checkpoint: named float32 tensors under OpenAI's state-dict names, in memory or in a mapped file.
//!
//! Every file format is converted into this form first, so that the modules need only one naming scheme.

mod floats;

use std::collections::BTreeMap;

use burn::module::Param;
use burn::tensor::FloatDType;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use crate::error::{ClipError, Result};
use crate::safetensors_file::{NO_METADATA, NamedArray, to_bytes};

pub use self::floats::Floats;

/// Values that are hashed at once.
const HASHED_VALUES: usize = 1 << 14;

/// One tensor: row-major values and their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightTensor {
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub data: Floats,
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
        self.insert_tensor(
            name.into(),
            WeightTensor {
                shape,
                data: data.into(),
            },
        );
    }

    /// Adds or replaces a tensor, wherever its values lie.
    pub(crate) fn insert_tensor(&mut self, name: String, tensor: WeightTensor) {
        let WeightTensor { shape, data } = &tensor;
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        self.tensors.insert(name, tensor);
    }

    /// Takes the tensor called `name` out, if there is one.
    pub(crate) fn remove(&mut self, name: &str) -> Option<WeightTensor> {
        self.tensors.remove(name)
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
        self.check_finite(name, found)?;
        Ok(Tensor::from_data(
            TensorData::new(found.data.to_vec(), expected),
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

    /// Values that a model can have: finite ones, variances of batch norms that are not negative, and a logarithm of the
    /// logit scale between -10 and 10 (100, the factor of every released CLIP, is 4.6).
    ///
    /// # Errors
    /// Another value, with its tensor and position.
    pub(crate) fn check_values(&self) -> Result<()> {
        for (name, tensor) in &self.tensors {
            self.check_finite(name, tensor)?;
            let (allowed, is_allowed): (_, fn(f32) -> bool) = if name.ends_with(".running_var") {
                ("0 and more, because it is a variance", |value| value >= 0.0)
            } else if name == "logit_scale" {
                ("-10 to 10, because it is a logarithm", |value| {
                    (-10.0..=10.0).contains(&value)
                })
            } else {
                continue;
            };
            if let Some(position) = tensor.data.iter().position(|value| !is_allowed(*value)) {
                return Err(ClipError::Value {
                    origin: self.origin.clone(),
                    name: name.clone(),
                    position,
                    found: tensor.data[position],
                    allowed,
                });
            }
        }
        Ok(())
    }

    fn check_finite(&self, name: &str, tensor: &WeightTensor) -> Result<()> {
        match first_not_finite(&tensor.data) {
            None => Ok(()),
            Some(position) => Err(ClipError::NotFinite {
                origin: self.origin.clone(),
                name: name.to_owned(),
                position,
            }),
        }
    }

    /// blake3 over names, shapes and values, so that files with the same numbers have the same hash in any format.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut bytes = Vec::with_capacity(4 * HASHED_VALUES);
        for (name, tensor) in &self.tensors {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(&(tensor.shape.len() as u64).to_le_bytes());
            for size in &tensor.shape {
                hasher.update(&(*size as u64).to_le_bytes());
            }
            // Many values at once: a call of the hasher for each takes most of the time of opening a model.
            for values in tensor.data.chunks(HASHED_VALUES) {
                bytes.clear();
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                hasher.update(&bytes);
            }
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Index of the first value that is NaN or infinite. Whole blocks are looked at first, without a branch per value.
pub(crate) fn first_not_finite(values: &[f32]) -> Option<usize> {
    const BLOCK: usize = 1024;
    /// The bits of infinity; those of NaN are larger, those of finite numbers smaller, apart from their sign.
    const INFINITE: u32 = 0x7F80_0000;
    let block = values.chunks(BLOCK).position(|block| {
        let largest = |most: u32, value: &f32| most.max(value.to_bits() & 0x7FFF_FFFF);
        block.iter().fold(0, largest) >= INFINITE
    })?;
    let start = block * BLOCK;
    let within = values[start..]
        .iter()
        .position(|value| !value.is_finite())?;
    Some(start + within)
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
        .map_err(|error| ClipError::Device(format!("its values are not numbers: {error:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_that_is_not_finite_is_found_anywhere() {
        assert_eq!(first_not_finite(&[]), None);
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
            for place in [0, 1, 1023, 1024, 2500, 2999] {
                let mut values = vec![f32::MAX; 3000];
                assert_eq!(first_not_finite(&values), None);
                values[place] = wrong;
                values[2999] = f32::NAN;
                assert_eq!(first_not_finite(&values), Some(place));
            }
        }
    }

    #[test]
    fn values_that_no_model_has_are_named() {
        let with = |name: &str, data: Vec<f32>| {
            let mut weights = Weights::new("x.pt");
            weights.insert(name, vec![data.len()], data);
            weights.check_values().map_err(|error| error.to_string())
        };
        let variance = "visual.bn1.running_var";
        assert_eq!(with(variance, vec![0.0, 3.0]), Ok(()));
        assert_eq!(
            with(variance, vec![0.5, -1e-3]).unwrap_err(),
            "x.pt: tensor `visual.bn1.running_var` holds -0.001 at position 1, allowed: 0 and more, because it is a variance"
        );
        assert_eq!(with("logit_scale", vec![4.6052]), Ok(()));
        for scale in [100.0, 1e38, -1000.0] {
            let message = with("logit_scale", vec![scale]).unwrap_err();
            assert!(message.contains("allowed: -10 to 10"), "{message}");
        }
        let message = with("visual.proj", vec![1.0, f32::NAN]).unwrap_err();
        assert!(
            message.contains("`visual.proj`") && message.contains("position 1"),
            "{message}"
        );
    }

    /// The hash enters the fingerprints of users' stores.
    #[test]
    fn a_hash_is_that_of_the_bytes_one_after_another() {
        let data: Vec<f32> = (0..HASHED_VALUES + 5).map(|i| i as f32).collect();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&1u64.to_le_bytes());
        hasher.update(b"a");
        hasher.update(&1u64.to_le_bytes());
        hasher.update(&(data.len() as u64).to_le_bytes());
        for value in &data {
            hasher.update(&value.to_le_bytes());
        }
        let mut weights = Weights::new("x");
        weights.insert("a", vec![data.len()], data);
        assert_eq!(weights.hash(), hasher.finalize().to_hex().to_string());
    }
}
