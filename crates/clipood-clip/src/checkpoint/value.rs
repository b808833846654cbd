//! What a file of `torch.save` holds.

use std::io::Read;
use std::sync::Arc;

use half::{bf16, f16};

use super::problem::Result;

/// Bytes that are read and converted at once; a multiple of the width of every type.
const CHUNK: usize = 1 << 20;

/// A Python value with tensors as `T`, which is [`Tensor`] once the numbers are loaded.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<T> {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A text.
    Text(Arc<str>),
    /// A list.
    List(Vec<Value<T>>),
    /// A tuple.
    Tuple(Vec<Value<T>>),
    /// A dictionary (plain or ordered) in the order of the file.
    Dict(Vec<(Value<T>, Value<T>)>),
    /// A tensor.
    Tensor(T),
    /// An object of a TorchScript class, and its attributes.
    Record(Arc<str>, Box<Value<T>>),
    /// An object of another class, whose contents are not read; by the name of its class.
    Opaque(Arc<str>),
}

impl<T> Value<T> {
    /// The value under the text `key` of a dictionary or of a record's attributes; of equal keys the last one, as in
    /// Python.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.items()
            .iter()
            .rev()
            .find(|(found, _)| matches!(found, Value::Text(text) if &**text == key))
            .map(|(_, value)| value)
    }

    /// Keys and values of a dictionary or of a record's attributes; nothing for other values.
    pub fn items(&self) -> &[(Self, Self)] {
        match self {
            Value::Dict(items) => items,
            Value::Record(_, state) => match &**state {
                Value::Dict(items) => items,
                _ => &[],
            },
            _ => &[],
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The tensor, if it is one.
    pub fn as_tensor(&self) -> Option<&T> {
        match self {
            Value::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
}

/// A dictionary with text keys, for values to write.
impl<T> FromIterator<(String, Value<T>)> for Value<T> {
    fn from_iter<I: IntoIterator<Item = (String, Value<T>)>>(items: I) -> Self {
        Value::Dict(
            items
                .into_iter()
                .map(|(key, value)| (Value::Text(key.into()), value))
                .collect(),
        )
    }
}

/// A tensor whose numbers are still in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorRef {
    /// Name of the storage in the file.
    pub(super) storage: Arc<str>,
    /// Type of its elements.
    pub(super) dtype: Dtype,
    /// First element.
    pub(super) offset: usize,
    /// Sizes, outermost first; empty for a scalar.
    pub(super) shape: Vec<usize>,
    /// Elements from one index to the next, one stride per dimension.
    pub(super) strides: Vec<usize>,
}

/// A tensor in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Values,
}

/// Numbers of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Half, bfloat16, single and (rounded to single) double precision.
    Float(Vec<f32>),
    /// Integers and truth values.
    Int(Vec<i64>),
}

impl Tensor {
    /// A tensor of floats.
    pub fn floats(shape: Vec<usize>, values: Vec<f32>) -> Self {
        Self {
            shape,
            values: Values::Float(values),
        }
    }

    /// The values, if they are floats.
    pub fn as_floats(&self) -> Option<&[f32]> {
        match &self.values {
            Values::Float(values) => Some(values),
            Values::Int(_) => None,
        }
    }
}

/// Types of a storage's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dtype {
    F16,
    Bf16,
    F32,
    F64,
    I8,
    U8,
    I16,
    I32,
    I64,
    Bool,
}

impl Dtype {
    /// The type that a class of `torch` stores.
    pub(super) fn of_storage(class: &str) -> Option<Self> {
        Some(match class {
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::Bf16,
            "FloatStorage" => Self::F32,
            "DoubleStorage" => Self::F64,
            "CharStorage" => Self::I8,
            "ByteStorage" => Self::U8,
            "ShortStorage" => Self::I16,
            "IntStorage" => Self::I32,
            "LongStorage" => Self::I64,
            "BoolStorage" => Self::Bool,
            _ => return None,
        })
    }

    /// Whether these are floating-point numbers.
    pub(super) fn is_float(self) -> bool {
        match self {
            Self::F16 | Self::Bf16 | Self::F32 | Self::F64 => true,
            Self::I8 | Self::U8 | Self::I16 | Self::I32 | Self::I64 | Self::Bool => false,
        }
    }

    /// Bytes of an element in memory: all floats become float32, all integers 64 bits wide.
    pub(super) fn width_in_memory(self) -> u64 {
        if self.is_float() { 4 } else { 8 }
    }

    /// Bytes of an element.
    pub(super) fn width(self) -> u64 {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// Reads the next `count` elements, which are known to be in the file. They are converted in chunks, so that they are never
    /// in memory twice.
    pub(super) fn read<R: Read>(self, reader: &mut R, count: usize) -> Result<Values> {
        Ok(match self {
            Self::F16 => Values::Float(read(reader, count, |b| f16::from_le_bytes(b).to_f32())?),
            Self::Bf16 => Values::Float(read(reader, count, |b| bf16::from_le_bytes(b).to_f32())?),
            Self::F32 => Values::Float(read(reader, count, f32::from_le_bytes)?),
            Self::F64 => Values::Float(read(reader, count, |b| f64::from_le_bytes(b) as f32)?),
            Self::I8 => Values::Int(read(reader, count, |b| i64::from(i8::from_le_bytes(b)))?),
            Self::I16 => Values::Int(read(reader, count, |b| i64::from(i16::from_le_bytes(b)))?),
            Self::I32 => Values::Int(read(reader, count, |b| i64::from(i32::from_le_bytes(b)))?),
            Self::I64 => Values::Int(read(reader, count, i64::from_le_bytes)?),
            Self::U8 | Self::Bool => {
                Values::Int(read(reader, count, |b| i64::from(u8::from_le_bytes(b)))?)
            }
        })
    }
}

/// The next `count` elements of `N` bytes each, converted.
fn read<T, const N: usize>(
    reader: &mut impl Read,
    count: usize,
    convert: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>> {
    let mut values = Vec::with_capacity(count);
    let mut left = count * N;
    let mut buffer = vec![0; left.min(CHUNK)];
    while left > 0 {
        let chunk = left.min(CHUNK);
        reader.read_exact(&mut buffer[..chunk])?;
        let elements = buffer[..chunk].as_chunks::<N>().0;
        values.extend(elements.iter().map(|bytes| convert(*bytes)));
        left -= chunk;
    }
    Ok(values)
}
