//! Weights on their way to the device: named slices in, one packed copy out.

use std::collections::HashMap;

use crate::error::{CudaError, Result};
use crate::precision::Precision;

/// Every weight begins at a multiple of this many bytes, which cuBLASLt's fast kernels ask for.
const ALIGNMENT: usize = 256;

/// Parameters of a model, row-major float32, by their names in OpenAI's state dict.
#[derive(Debug, Clone, Default)]
pub struct Tensors<'a> {
    by_name: HashMap<&'a str, &'a [f32]>,
}

impl<'a> FromIterator<(&'a str, &'a [f32])> for Tensors<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a [f32])>>(tensors: I) -> Self {
        Self {
            by_name: tensors.into_iter().collect(),
        }
    }
}

impl<'a> Tensors<'a> {
    /// The tensor `name`.
    ///
    /// # Errors
    /// It is missing or has another number of values.
    pub fn get(&self, name: &str, expected: usize) -> Result<&'a [f32]> {
        let found = self.by_name.get(name).copied().unwrap_or_default();
        match found.len() == expected {
            true => Ok(found),
            false => Err(CudaError::Weight {
                name: name.to_string(),
                expected,
                found: found.len(),
            }),
        }
    }
}

/// Weights in the format and order of the device.
#[derive(Debug)]
pub(super) struct Packed {
    precision: Precision,
    bytes: Vec<u8>,
}

impl Packed {
    pub fn new(precision: Precision) -> Self {
        Self {
            precision,
            bytes: Vec::new(),
        }
    }

    /// Appends a weight in the format of the model; its offset.
    pub fn add(&mut self, values: &[f32]) -> u64 {
        self.add_as(self.precision, values)
    }

    /// Appends a weight in float32, as the bias of a product that writes float32 must be; its offset.
    pub fn add_wide(&mut self, values: &[f32]) -> u64 {
        self.add_as(Precision::F32, values)
    }

    fn add_as(&mut self, precision: Precision, values: &[f32]) -> u64 {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        let at = self.bytes.len() as u64;
        precision.append(&mut self.bytes, values);
        at
    }

    /// Appends rows of `row` values, each padded with zeros to `padded`; its offset.
    pub fn add_padded(&mut self, values: &[f32], row: usize, padded: usize) -> u64 {
        if row == padded {
            return self.add(values);
        }
        let mut wider = vec![0.0; values.len() / row * padded];
        for (from, to) in values.chunks_exact(row).zip(wider.chunks_exact_mut(padded)) {
            to[..row].copy_from_slice(from);
        }
        self.add(&wider)
    }

    /// The copy for the device.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Offsets of a layer's weight and bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layer {
    pub weight: u64,
    pub bias: u64,
}

impl Layer {
    /// The layer called `prefix`, of `weight` and `bias` values.
    pub fn pack(
        packed: &mut Packed,
        tensors: &Tensors<'_>,
        prefix: &str,
        [weight, bias]: [usize; 2],
    ) -> Result<Self> {
        Ok(Self {
            weight: packed.add(tensors.get(&format!("{prefix}weight"), weight)?),
            bias: packed.add(tensors.get(&format!("{prefix}bias"), bias)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_and_weights_aligned() {
        let mut packed = Packed::new(Precision::F32);
        assert_eq!(packed.add(&[7.0]), 0);
        let at = packed.add_padded(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 4);
        assert_eq!(at, ALIGNMENT as u64);
        let bytes = packed.into_bytes();
        let found = Precision::F32.values(&bytes[ALIGNMENT..]);
        assert_eq!(found, [1.0, 2.0, 3.0, 0.0, 4.0, 5.0, 6.0, 0.0]);
    }

    #[test]
    fn a_missing_tensor_and_a_wrong_size_are_named() {
        let values = [1.0, 2.0];
        let tensors: Tensors<'_> = [("visual.proj", &values[..])].into_iter().collect();
        assert!(tensors.get("visual.proj", 2).is_ok());
        let message = tensors.get("visual.proj", 3).unwrap_err().to_string();
        assert_eq!(message, "tensor `visual.proj`: expected 3 values, found 2");
        assert!(tensors.get("visual.conv1.weight", 1).is_err());
    }
}
