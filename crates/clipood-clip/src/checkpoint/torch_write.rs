//! Writes what `torch.load(weights_only=True)` reads: the zip archive of torch 1.6 and later.

use std::path::Path;

use super::problem::{Problem, Result as Outcome};
use super::value::{Tensor, Value, Values};
use super::zip;
use crate::error::{ClipError, Result};

/// Folder inside the archive.
const FOLDER: &str = "archive";

/// Writes `value` to the file at `path`, as `torch.save` does.
///
/// # Errors
/// The value holds a [`Value::Record`] or [`Value::Opaque`], a tensor whose shape does not fit its values, or more than 4 GiB;
/// or the file cannot be written.
pub fn write_state_dict(path: &Path, value: &Value<Tensor>) -> Result<()> {
    std::fs::write(path, state_dict_bytes(value)?).map_err(|source| ClipError::Write {
        path: path.display().to_string(),
        source,
    })
}

/// The file of `torch.save` for `value`: floats as float32, integers as int64. Equal values make equal bytes.
///
/// # Errors
/// As [`write_state_dict`], but for the file.
pub(super) fn state_dict_bytes(value: &Value<Tensor>) -> Result<Vec<u8>> {
    bytes(value).map_err(|problem| problem.of("a state dict to write"))
}

fn bytes(value: &Value<Tensor>) -> Outcome<Vec<u8>> {
    let mut writer = Writer {
        pickle: vec![0x80, 2],
        storages: Vec::new(),
    };
    writer.value(value)?;
    writer.pickle.push(b'.');
    let mut entries = vec![
        (format!("{FOLDER}/data.pkl"), writer.pickle),
        (format!("{FOLDER}/byteorder"), b"little".to_vec()),
    ];
    for (key, storage) in writer.storages.into_iter().enumerate() {
        entries.push((format!("{FOLDER}/data/{key}"), storage));
    }
    entries.push((format!("{FOLDER}/version"), b"3\n".to_vec()));
    zip::archive(&entries)
}

/// The pickle so far, and the bytes of the storages that it names.
struct Writer {
    pickle: Vec<u8>,
    storages: Vec<Vec<u8>>,
}

impl Writer {
    fn value(&mut self, value: &Value<Tensor>) -> Outcome<()> {
        match value {
            Value::None => self.pickle.push(b'N'),
            Value::Bool(true) => self.pickle.push(0x88),
            Value::Bool(false) => self.pickle.push(0x89),
            Value::Int(value) => self.integer(*value),
            Value::Float(value) => {
                self.pickle.push(b'G');
                self.pickle.extend(value.to_be_bytes());
            }
            Value::Text(text) => self.text(text)?,
            Value::List(items) => {
                self.pickle.extend(b"](");
                for item in items {
                    self.value(item)?;
                }
                self.pickle.push(b'e');
            }
            Value::Tuple(items) => {
                self.pickle.push(b'(');
                for item in items {
                    self.value(item)?;
                }
                self.pickle.push(b't');
            }
            Value::Dict(items) => {
                self.pickle.extend(b"}(");
                for (key, value) in items {
                    self.value(key)?;
                    self.value(value)?;
                }
                self.pickle.push(b'u');
            }
            Value::Tensor(tensor) => self.tensor(tensor)?,
            Value::Record(class, _) | Value::Opaque(class) => {
                return Err(format!("an object of the class `{class}` cannot be written").into());
            }
        }
        Ok(())
    }

    fn integer(&mut self, value: i64) {
        match i32::try_from(value) {
            Ok(value) => {
                self.pickle.push(b'J');
                self.pickle.extend(value.to_le_bytes());
            }
            Err(_) => {
                self.pickle.extend([0x8a, 8]);
                self.pickle.extend(value.to_le_bytes());
            }
        }
    }

    fn text(&mut self, text: &str) -> Outcome<()> {
        let length = u32::try_from(text.len()).map_err(|_| "a text of more than 4 GiB")?;
        self.pickle.push(b'X');
        self.pickle.extend(length.to_le_bytes());
        self.pickle.extend(text.as_bytes());
        Ok(())
    }

    /// `torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`.
    fn tensor(&mut self, tensor: &Tensor) -> Outcome<()> {
        let (class, count, raw): (&[u8], usize, Vec<u8>) = match &tensor.values {
            Values::Float(values) => (
                b"ctorch\nFloatStorage\n",
                values.len(),
                values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ),
            Values::Int(values) => (
                b"ctorch\nLongStorage\n",
                values.len(),
                values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ),
        };
        let expected = tensor
            .shape
            .iter()
            .fold(1usize, |count, size| count.saturating_mul(*size));
        if expected != count {
            return Err(Problem::from(format!(
                "a tensor of shape {:?} holds {count} values",
                tensor.shape
            )));
        }
        let key = self.storages.len().to_string();
        self.storages.push(raw);
        self.pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage")?;
        self.pickle.extend(class);
        self.text(&key)?;
        self.text("cpu")?;
        self.integer(count as i64);
        self.pickle.extend(b"tQ");
        self.integer(0);
        self.pickle.push(b'(');
        for size in &tensor.shape {
            self.integer(*size as i64);
        }
        self.pickle.extend(b"t(");
        for stride in row_major_strides(&tensor.shape) {
            self.integer(stride as i64);
        }
        self.pickle.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
        Ok(())
    }
}

/// Elements from one index to the next of each dimension of a tensor without gaps.
fn row_major_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for dimension in (1..shape.len()).rev() {
        strides[dimension - 1] = strides[dimension].saturating_mul(shape[dimension].max(1));
    }
    strides
}
