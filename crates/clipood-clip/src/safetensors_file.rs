//! Small safetensors files of named arrays: written to bytes, and read back by name with a checked type.
//!
//! Checkpoints of whole models are read as a stream instead (see [`crate::checkpoint`]).
//!
//! ```
//! use clipood_clip::safetensors_file::{ArrayFile, NamedArray, to_bytes};
//!
//! let rows = NamedArray::f32("rows", vec![2, 2], &[1.0, 2.0, 3.0, 4.0]);
//! let bytes = to_bytes(&[rows], [("epoch", "3".to_owned())])?;
//! let file = ArrayFile::read(&bytes)?;
//! assert_eq!(file.f32("rows")?, [1.0, 2.0, 3.0, 4.0]);
//! assert_eq!(file.count("epoch")?, 3);
//! # Ok::<(), clipood_clip::safetensors_file::ArrayFileError>(())
//! ```

use std::collections::{BTreeSet, HashMap};

use half::f16;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

pub use safetensors::tensor::Dtype;

/// No metadata, for [`to_bytes`].
pub const NO_METADATA: [(&str, String); 0] = [];

/// What can be wrong with such a file. Messages name the array or the metadata key, not the file: the caller knows it.
#[derive(Debug, thiserror::Error)]
pub enum ArrayFileError {
    /// The bytes are not safetensors, are damaged, or lack the array; on writing, an array's shape and bytes disagree.
    #[error(transparent)]
    Format(#[from] safetensors::SafeTensorError),
    /// Two arrays to write have one name.
    #[error("two arrays are called `{0}`")]
    Duplicate(String),
    /// An array has another type.
    #[error("tensor `{name}` is {found:?}, expected {expected:?}")]
    Dtype {
        /// Its name.
        name: String,
        /// Type that was asked for.
        expected: Dtype,
        /// Type in the file.
        found: Dtype,
    },
    /// A key of the metadata is missing.
    #[error("no `{0}` in its metadata")]
    NoEntry(String),
    /// A value of the metadata is not a number.
    #[error("`{key}` is `{found}`, expected a number")]
    NotANumber {
        /// The key.
        key: String,
        /// Its value.
        found: String,
    },
}

/// Result of this module.
type Result<T> = std::result::Result<T, ArrayFileError>;

/// An array to write.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedArray {
    /// Its key in the file.
    pub name: String,
    /// Type of the values.
    pub dtype: Dtype,
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The values, little-endian, row-major.
    pub bytes: Vec<u8>,
}

impl NamedArray {
    /// An array of float32.
    pub fn f32(name: impl Into<String>, shape: Vec<usize>, values: &[f32]) -> Self {
        Self {
            name: name.into(),
            dtype: Dtype::F32,
            shape,
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    /// An array of float64.
    pub fn f64(name: impl Into<String>, shape: Vec<usize>, values: &[f64]) -> Self {
        Self {
            name: name.into(),
            dtype: Dtype::F64,
            shape,
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    /// An array of IEEE half precision; `values` are rounded to the nearest.
    pub fn f16(name: impl Into<String>, shape: Vec<usize>, values: &[f32]) -> Self {
        let halves = values.iter().map(|v| f16::from_f32(*v));
        Self {
            name: name.into(),
            dtype: Dtype::F16,
            shape,
            bytes: halves.flat_map(f16::to_le_bytes).collect(),
        }
    }
}

/// The file of `arrays`, ordered by the size of their type and then by name, as the format recommends, with `metadata`
/// (none where it is empty).
///
/// # Errors
/// The shape of an array does not fit its bytes, or two arrays have one name.
pub fn to_bytes<K: Into<String>>(
    arrays: &[NamedArray],
    metadata: impl IntoIterator<Item = (K, String)>,
) -> Result<Vec<u8>> {
    let mut names = BTreeSet::new();
    if let Some(array) = arrays.iter().find(|array| !names.insert(&array.name)) {
        return Err(ArrayFileError::Duplicate(array.name.clone()));
    }
    let views = arrays
        .iter()
        .map(|array| {
            TensorView::new(array.dtype, array.shape.clone(), &array.bytes)
                .map(|view| (array.name.as_str(), view))
        })
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let metadata: HashMap<String, String> = metadata
        .into_iter()
        .map(|(key, value)| (key.into(), value))
        .collect();
    let metadata = (!metadata.is_empty()).then_some(metadata);
    Ok(safetensors::serialize(views, metadata)?)
}

/// A file in memory whose header has been read and checked.
#[derive(Debug)]
pub struct ArrayFile<'a> {
    arrays: SafeTensors<'a>,
    metadata: HashMap<String, String>,
}

impl<'a> ArrayFile<'a> {
    /// Reads the header of the file `bytes`.
    ///
    /// # Errors
    /// The bytes are cut off, damaged or not safetensors.
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        Ok(Self {
            arrays: SafeTensors::deserialize(bytes)?,
            metadata: header.metadata().clone().unwrap_or_default(),
        })
    }

    /// The names of the arrays.
    pub fn names(&self) -> Vec<&str> {
        self.arrays.names()
    }

    /// The values of the array `name` of float32, row-major.
    ///
    /// # Errors
    /// There is no such array, or it has another type.
    pub fn f32(&self, name: &str) -> Result<Vec<f32>> {
        let words = self.data(name, Dtype::F32)?.as_chunks::<4>().0.iter();
        Ok(words.map(|word| f32::from_le_bytes(*word)).collect())
    }

    /// The values of the array `name` of float64, row-major.
    ///
    /// # Errors
    /// As [`ArrayFile::f32`].
    pub fn f64(&self, name: &str) -> Result<Vec<f64>> {
        let words = self.data(name, Dtype::F64)?.as_chunks::<8>().0.iter();
        Ok(words.map(|word| f64::from_le_bytes(*word)).collect())
    }

    /// The sizes of the array `name`, outermost first.
    ///
    /// # Errors
    /// There is no such array.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.arrays.tensor(name)?.shape().to_vec())
    }

    /// Whether the metadata has the key `key`.
    pub fn has_entry(&self, key: &str) -> bool {
        self.metadata.contains_key(key)
    }

    /// The value of `key` in the metadata.
    ///
    /// # Errors
    /// It is missing.
    pub fn entry(&self, key: &str) -> Result<&str> {
        let value = self.metadata.get(key);
        value
            .map(String::as_str)
            .ok_or_else(|| ArrayFileError::NoEntry(key.to_owned()))
    }

    /// The value of `key` in the metadata as a number.
    ///
    /// # Errors
    /// It is missing or not a number.
    pub fn count(&self, key: &str) -> Result<usize> {
        let found = self.entry(key)?;
        found.parse().map_err(|_| ArrayFileError::NotANumber {
            key: key.to_owned(),
            found: found.to_owned(),
        })
    }

    fn data(&self, name: &str, expected: Dtype) -> Result<&[u8]> {
        let view = self.arrays.tensor(name)?;
        let found = view.dtype();
        if found != expected {
            return Err(ArrayFileError::Dtype {
                name: name.to_owned(),
                expected,
                found,
            });
        }
        Ok(view.data())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Vec<u8> {
        let arrays = [
            NamedArray::f32(
                "single",
                vec![5],
                &[0.1, -0.0, 1e-45, f32::MAX, f32::MIN_POSITIVE],
            ),
            NamedArray::f64("double", vec![1, 2], &[0.1 + 0.2, -1.0 / 3.0]),
            NamedArray::f16("half", vec![], &[1.0 / 3.0]),
        ];
        let metadata = [("steps", "17".to_owned()), ("words", "a [b]".to_owned())];
        to_bytes(&arrays, metadata).unwrap()
    }

    #[test]
    fn what_is_written_is_read_bit_for_bit() {
        let bytes = example();
        let file = ArrayFile::read(&bytes).unwrap();
        let single: Vec<u32> = file
            .f32("single")
            .unwrap()
            .iter()
            .map(|v| v.to_bits())
            .collect();
        let expected = [0.1, -0.0, 1e-45, f32::MAX, f32::MIN_POSITIVE].map(f32::to_bits);
        assert_eq!(single, expected);
        assert_eq!(file.f64("double").unwrap(), [0.1 + 0.2, -1.0 / 3.0]);
        assert_eq!(file.shape("double").unwrap(), [1, 2]);
        assert_eq!(file.shape("half").unwrap(), [0usize; 0]);
        assert_eq!(
            (file.count("steps").unwrap(), file.entry("words").unwrap()),
            (17, "a [b]")
        );
        assert!(file.has_entry("words") && !file.has_entry("epoch"));
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_named() {
        let bytes = example();
        let file = ArrayFile::read(&bytes).unwrap();
        for (error, expected) in [
            (
                file.f32("double").unwrap_err(),
                "tensor `double` is F64, expected F32",
            ),
            (
                file.f32("half").unwrap_err(),
                "tensor `half` is F16, expected F32",
            ),
            (
                file.entry("epoch").unwrap_err(),
                "no `epoch` in its metadata",
            ),
            (
                file.count("words").unwrap_err(),
                "`words` is `a [b]`, expected a number",
            ),
        ] {
            assert_eq!(error.to_string(), expected);
        }
        let absent = file.f64("triple").unwrap_err().to_string();
        assert!(absent.contains("triple"), "{absent}");
    }

    #[test]
    fn damaged_files_and_inconsistent_arrays_are_refused() {
        let bytes = example();
        for length in 0..bytes.len() {
            assert!(
                ArrayFile::read(&bytes[..length]).is_err(),
                "{length} bytes were read"
            );
        }
        let wrong = NamedArray::f32("rows", vec![3], &[1.0, 2.0]);
        assert!(to_bytes(&[wrong], NO_METADATA).is_err());
        let twice = NamedArray::f32("rows", vec![1], &[1.0]);
        let error = to_bytes(&[twice.clone(), twice], NO_METADATA).unwrap_err();
        assert_eq!(error.to_string(), "two arrays are called `rows`");
    }

    #[test]
    fn a_file_without_metadata_is_what_the_format_says() {
        let array = NamedArray::f32("a", vec![1], &[1.0]);
        let bytes = to_bytes(&[array], NO_METADATA).unwrap();
        let view = TensorView::new(Dtype::F32, vec![1], &bytes[bytes.len() - 4..]).unwrap();
        assert_eq!(bytes, safetensors::serialize([("a", view)], None).unwrap());
    }
}
