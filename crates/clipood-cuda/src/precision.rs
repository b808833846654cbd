//! [`Precision`]: the number formats of weights and activations.

use half::slice::HalfFloatSliceExt;

/// Number format of weights and activations on the GPU. Sums, norms and softmax are float32 in any case, and so are features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// IEEE single precision, also inside products.
    F32,
    /// float32 in memory; products round their factors to TF32 (10 bits of mantissa) for the tensor cores.
    Tf32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl Precision {
    /// Bytes of a value in memory.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::Tf32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Values of a 16-byte access, `VECTOR` of the kernels.
    pub fn vector(self) -> usize {
        16 / self.bytes()
    }

    /// `ELEMENT` of the kernels.
    pub fn element(self) -> i64 {
        match self {
            Self::F32 | Self::Tf32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 2,
        }
    }

    /// Appends `values` in this format.
    pub fn append(self, bytes: &mut Vec<u8>, values: &[f32]) {
        match self {
            Self::F32 | Self::Tf32 => {
                bytes.extend(values.iter().flat_map(|value| value.to_ne_bytes()))
            }
            Self::F16 => {
                let mut halves = vec![half::f16::ZERO; values.len()];
                halves.convert_from_f32_slice(values);
                bytes.extend(halves.iter().flat_map(|value| value.to_ne_bytes()));
            }
            Self::Bf16 => {
                let mut halves = vec![half::bf16::ZERO; values.len()];
                halves.convert_from_f32_slice(values);
                bytes.extend(halves.iter().flat_map(|value| value.to_ne_bytes()));
            }
        }
    }

    /// The values that `bytes` hold in this format; a last incomplete value is left out.
    pub fn values(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 | Self::Tf32 => {
                let words = bytes.as_chunks::<4>().0.iter();
                words.map(|word| f32::from_ne_bytes(*word)).collect()
            }
            Self::F16 => {
                let words = bytes.as_chunks::<2>().0.iter();
                words
                    .map(|word| half::f16::from_ne_bytes(*word).to_f32())
                    .collect()
            }
            Self::Bf16 => {
                let words = bytes.as_chunks::<2>().0.iter();
                words
                    .map(|word| half::bf16::from_ne_bytes(*word).to_f32())
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_rounded_to_their_format() {
        let values = [0.0, 1.0, -2.5, 0.1, 65504.0, 1e-7];
        for (precision, tolerance) in [
            (Precision::F32, 0.0),
            (Precision::Tf32, 0.0),
            (Precision::F16, 1.0 / 2048.0),
            (Precision::Bf16, 1.0 / 256.0),
        ] {
            let mut bytes = Vec::new();
            precision.append(&mut bytes, &values);
            assert_eq!(bytes.len(), values.len() * precision.bytes());
            for (found, expected) in precision.values(&bytes).iter().zip(values) {
                let error = (found - expected).abs();
                assert!(
                    error <= tolerance * expected.abs() + 6e-8,
                    "{precision:?}: {found} for {expected}"
                );
            }
        }
    }
}
