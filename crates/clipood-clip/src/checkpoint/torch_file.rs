//! Files of `torch.save`: zip archives (torch 1.6 and later), the stream of pickles before that, and TorchScript.
//!
//! The structure is read first, without the numbers; each tensor is then read straight from its place in the file, so
//! that a checkpoint is never in memory twice.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use clipood_core::files::open_file;
use clipood_core::pickle::Pickle;

use super::pickle;
use super::problem::{Problem, Result as Outcome};
use super::value::{Tensor, TensorRef, Value, Values};
use super::zip::{self, Span};
use crate::error::{ClipError, Result};

pub use super::torch_write::write_state_dict;

/// First pickle of a file of torch before 1.6: 0x1950a86a20f9469cfc6c.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// Second pickle of such a file.
const LEGACY_PROTOCOL: i64 = 1001;

/// Whether a file that starts with these eight bytes is one of `torch.save`. No other weight file starts so: as the
/// length of a safetensors header, both are above its limit.
pub(super) fn is_torch_file(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"\x80\x02\x8a\x0a")
}

/// A file of `torch.save` whose structure has been read and whose tensors are read one at a time.
#[derive(Debug)]
pub(super) struct TorchFile<R> {
    origin: String,
    reader: R,
    /// Bytes of the file.
    length: u64,
    storages: BTreeMap<String, Span>,
    root: Value<TensorRef>,
    torchscript: bool,
    /// Bytes that the tensors read so far take or took in memory.
    held: u64,
}

impl TorchFile<BufReader<File>> {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// As [`TorchFile::new`], and a file that cannot be read.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let origin = path.display().to_string();
        match open_file(path) {
            Ok(file) => Self::new(BufReader::new(file), &origin),
            Err(source) => Err(ClipError::Read {
                path: origin,
                source,
            }),
        }
    }
}

impl<R: Read + Seek> TorchFile<R> {
    /// Reads the structure of the file in `reader`; `origin` names it in messages.
    ///
    /// # Errors
    /// The bytes are cut off, damaged, of another format, or ask for more than data.
    pub(super) fn new(mut reader: R, origin: &str) -> Result<Self> {
        let mut open = || -> Outcome<(u64, Layout)> {
            let length = reader.seek(SeekFrom::End(0))?;
            let head = zip::read_span(
                &mut reader,
                Span {
                    start: 0,
                    length: length.min(4),
                },
                length,
            )?;
            let layout = if head.starts_with(b"PK\x03\x04") {
                read_archive(&mut reader, length)?
            } else if head.starts_with(b"\x80") {
                read_legacy(&mut reader, length)?
            } else {
                return Err("neither a zip archive nor a pickle of torch.save".into());
            };
            Ok((length, layout))
        };
        let (length, layout) = open().map_err(|problem| problem.of(origin))?;
        Ok(Self {
            origin: origin.to_owned(),
            reader,
            length,
            storages: layout.storages,
            root: layout.root,
            torchscript: layout.torchscript,
            held: 0,
        })
    }

    /// What the file holds.
    pub(super) fn root(&self) -> &Value<TensorRef> {
        &self.root
    }

    /// Whether this is an archive of TorchScript, whose root is a module.
    pub(super) fn is_torchscript(&self) -> bool {
        self.torchscript
    }

    /// The numbers of a tensor of this file; `name` is for messages.
    ///
    /// # Errors
    /// The tensor reaches beyond its storage, or the tensors read so far repeat the file too often.
    pub(super) fn tensor(&mut self, name: &str, tensor: &TensorRef) -> Result<Tensor> {
        self.read(tensor).map_err(|problem| {
            let part = format!("tensor `{name}`");
            problem.within(&part).of(&self.origin)
        })
    }

    fn read(&mut self, tensor: &TensorRef) -> Outcome<Tensor> {
        let span = *self
            .storages
            .get(&*tensor.storage)
            .ok_or_else(|| format!("its storage `{}` is not in the file", tensor.storage))?;
        let width = tensor.dtype.width();
        let available = span.length / width;
        let (count, reach) = extent(tensor).ok_or("its sizes are out of range")?;
        if count == 0 {
            return Ok(Tensor {
                shape: tensor.shape.clone(),
                values: tensor.dtype.read(&mut self.reader, 0)?,
            });
        }
        let end = (tensor.offset as u64).checked_add(reach);
        if end.is_none_or(|end| end > available) {
            return Err(format!(
                "it reaches beyond its storage: offset {}, shape {:?}, strides {:?} in {available} elements",
                tensor.offset, tensor.shape, tensor.strides
            )
            .into());
        }
        if count > available {
            return Err("it repeats elements of its storage, which is not read".into());
        }
        // A view is read from its first element to its last one. One byte becomes at most eight.
        self.held = (tensor.dtype.width_in_memory())
            .checked_mul(reach.max(count))
            .and_then(|bytes| self.held.checked_add(bytes))
            .filter(|held| *held <= self.length.saturating_mul(8))
            .ok_or("the tensors of the file repeat each other too often")?;
        let start = span.start + tensor.offset as u64 * width;
        self.reader.seek(SeekFrom::Start(start))?;
        let values = tensor.dtype.read(&mut self.reader, reach as usize)?;
        let values = if is_row_major(tensor) {
            values
        } else {
            gather(&values, tensor)
        };
        Ok(Tensor {
            shape: tensor.shape.clone(),
            values,
        })
    }

    /// Everything, with the numbers of all tensors.
    ///
    /// # Errors
    /// As [`TorchFile::tensor`].
    pub(super) fn load(mut self) -> Result<Value<Tensor>> {
        let root = std::mem::replace(&mut self.root, Value::None);
        self.load_value("", root)
    }

    fn load_value(&mut self, name: &str, value: Value<TensorRef>) -> Result<Value<Tensor>> {
        let mut list = |items: Vec<Value<TensorRef>>| -> Result<Vec<Value<Tensor>>> {
            items
                .into_iter()
                .map(|item| self.load_value(name, item))
                .collect()
        };
        Ok(match value {
            Value::None => Value::None,
            Value::Bool(value) => Value::Bool(value),
            Value::Int(value) => Value::Int(value),
            Value::Float(value) => Value::Float(value),
            Value::Text(text) => Value::Text(text),
            Value::List(items) => Value::List(list(items)?),
            Value::Tuple(items) => Value::Tuple(list(items)?),
            Value::Dict(items) => {
                let mut loaded = Vec::with_capacity(items.len());
                for (key, value) in items {
                    let path = match &key {
                        Value::Text(key) if name.is_empty() => key.to_string(),
                        Value::Text(key) => format!("{name}.{key}"),
                        _ => name.to_owned(),
                    };
                    let key = self.load_value(name, key)?;
                    loaded.push((key, self.load_value(&path, value)?));
                }
                Value::Dict(loaded)
            }
            Value::Tensor(tensor) => Value::Tensor(self.tensor(name, &tensor)?),
            Value::Record(class, state) => {
                Value::Record(class, Box::new(self.load_value(name, *state)?))
            }
            Value::Opaque(class) => Value::Opaque(class),
        })
    }
}

/// Reads a file of `torch.save` with all its tensors. Nothing of it is run.
///
/// # Errors
/// The file cannot be read, is cut off, damaged or of another format, asks for more than data, or holds tensors that reach
/// beyond their storage or repeat the file too often: what is in memory is at most eight times the file.
pub fn read_state_dict(path: &Path) -> Result<Value<Tensor>> {
    TorchFile::open(path)?.load()
}

/// What a file holds and where.
struct Layout {
    storages: BTreeMap<String, Span>,
    root: Value<TensorRef>,
    torchscript: bool,
}

/// `NAME/data.pkl` and the storages `NAME/data/KEY` of an archive.
fn read_archive<R: Read + Seek>(reader: &mut R, length: u64) -> Outcome<Layout> {
    let entries = zip::entries(reader, length)?;
    let (folder, structure) = entries
        .iter()
        .find_map(|(name, span)| {
            let folder = name.strip_suffix("data.pkl")?;
            (folder.is_empty() || folder.ends_with('/')).then_some((folder, *span))
        })
        .ok_or("a zip archive without data.pkl, so not one of torch.save")?;
    if let Some(order) = entries.get(&format!("{folder}byteorder"))
        && zip::read_span(reader, *order, length)? != b"little"
    {
        return Err("written on a big-endian machine, which is not read".into());
    }
    let data = format!("{folder}data/");
    let storages = entries
        .iter()
        .filter_map(|(name, span)| Some((name.strip_prefix(&data)?.to_owned(), *span)))
        .collect();
    let code = format!("{folder}code/");
    // Entries were found to lie in the file. The pickle is read as a stream: it can be as long as the file.
    reader.seek(SeekFrom::Start(structure.start))?;
    let pickle = pickle::read(&mut BufReader::new(reader), structure.length)?;
    Ok(Layout {
        storages,
        root: pickle::value(&pickle)?,
        torchscript: entries.keys().any(|name| name.starts_with(&code)),
    })
}

/// Five pickles (magic number, protocol, machine, contents, keys of the storages) and the storages in that order, each
/// behind its number of elements.
fn read_legacy<R: Read + Seek>(reader: &mut R, length: u64) -> Outcome<Layout> {
    reader.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(reader);
    let mut next = || -> Outcome<Pickle> {
        let position = reader.stream_position()?;
        pickle::read(&mut reader, length.saturating_sub(position))
    };
    let magic = next().map_err(|problem| problem.within("the magic number of torch.save"))?;
    if !pickle::is_long(&magic, &LEGACY_MAGIC) {
        return Err("a pickle, but not one of torch.save".into());
    }
    if pickle::value(&next()?)? != Value::Int(LEGACY_PROTOCOL) {
        return Err("a file of torch.save of an unknown protocol".into());
    }
    if pickle::value(&next()?)?.get("little_endian") != Some(&Value::Bool(true)) {
        return Err("written on a big-endian machine, which is not read".into());
    }
    let root = pickle::value(&next()?)?;
    let Value::List(keys) = pickle::value(&next()?)? else {
        return Err("a file of torch.save without the list of its storages".into());
    };
    let mut widths = BTreeMap::new();
    storage_widths(&root, &mut widths);
    let mut storages = BTreeMap::new();
    let mut position = reader.stream_position()?;
    for key in keys {
        let key = key.as_text().ok_or("the key of a storage is no text")?;
        // No tensor that is read views this storage: float32 is torch's default type.
        let width = widths.get(key).copied().unwrap_or(4);
        let count = Span {
            start: position,
            length: 8,
        };
        let count = zip::read_span(&mut reader, count, length)?;
        let count = count
            .iter()
            .rev()
            .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        let span = count
            .checked_mul(width)
            .map(|bytes| Span {
                start: position + 8,
                length: bytes,
            })
            .filter(|span| span.length <= length - span.start)
            .ok_or_else(|| {
                Problem::from(format!(
                    "the storage `{key}` of {count} elements reaches beyond the end of the file"
                ))
            })?;
        position = span.start + span.length;
        storages.insert(key.to_owned(), span);
    }
    Ok(Layout {
        storages,
        root,
        torchscript: false,
    })
}

/// Bytes per element of every storage that a tensor in `value` views.
fn storage_widths(value: &Value<TensorRef>, widths: &mut BTreeMap<String, u64>) {
    match value {
        Value::Tensor(tensor) => {
            widths.insert(tensor.storage.to_string(), tensor.dtype.width());
        }
        Value::List(items) | Value::Tuple(items) => {
            items.iter().for_each(|item| storage_widths(item, widths));
        }
        Value::Dict(items) => {
            for (key, value) in items {
                storage_widths(key, widths);
                storage_widths(value, widths);
            }
        }
        Value::Record(_, state) => storage_widths(state, widths),
        Value::None
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Opaque(_) => {}
    }
}

/// Elements of the tensor, and of its storage from its first to its last; `None` if they are beyond 64 bits.
fn extent(tensor: &TensorRef) -> Option<(u64, u64)> {
    if tensor.shape.contains(&0) {
        return Some((0, 0));
    }
    let mut count = 1u64;
    let mut last = 0u64;
    for (size, stride) in tensor.shape.iter().zip(&tensor.strides) {
        let (size, stride) = (*size as u64, *stride as u64);
        count = count.checked_mul(size)?;
        last = last.checked_add((size - 1).checked_mul(stride)?)?;
    }
    Some((count, last.checked_add(1)?))
}

/// Whether the elements lie in the storage in row-major order without gaps.
fn is_row_major(tensor: &TensorRef) -> bool {
    let mut expected = 1;
    for (size, stride) in tensor.shape.iter().zip(&tensor.strides).rev() {
        if *size != 1 && *stride != expected {
            return false;
        }
        expected *= size;
    }
    true
}

/// The elements of a strided view in row-major order; `storage` starts at the view's first element.
fn gather(storage: &Values, tensor: &TensorRef) -> Values {
    match storage {
        Values::Float(values) => Values::Float(gathered(values, &tensor.shape, &tensor.strides)),
        Values::Int(values) => Values::Int(gathered(values, &tensor.shape, &tensor.strides)),
    }
}

fn gathered<T: Copy>(values: &[T], shape: &[usize], strides: &[usize]) -> Vec<T> {
    let mut places = vec![0];
    for (size, stride) in shape.iter().zip(strides) {
        places = places
            .iter()
            .flat_map(|place| (0..*size).map(move |index| place + index * stride))
            .collect();
    }
    places.into_iter().map(|place| values[place]).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::super::torch_write::state_dict_bytes;
    use super::*;

    fn load(bytes: &[u8]) -> Result<Value<Tensor>> {
        TorchFile::new(Cursor::new(bytes), "x.pt")?.load()
    }

    /// What CoOp's training writes.
    fn example() -> Value<Tensor> {
        let context = Tensor::floats(vec![2, 3], vec![0.5, -1.0, 2.0, 3.5, 1e-8, 7.0]);
        let epoch = Tensor {
            shape: vec![2],
            values: Values::Int(vec![-4, 1 << 40]),
        };
        let state = Value::from_iter([
            ("ctx".to_owned(), Value::Tensor(context)),
            (
                "none".to_owned(),
                Value::Tensor(Tensor::floats(vec![0, 4], vec![])),
            ),
            (
                "scale".to_owned(),
                Value::Tensor(Tensor::floats(vec![], vec![4.6])),
            ),
        ]);
        Value::from_iter([
            ("state_dict".to_owned(), state),
            ("epoch".to_owned(), Value::Int(50)),
            ("far".to_owned(), Value::Int(-(1 << 50))),
            ("val_result".to_owned(), Value::None),
            ("rate".to_owned(), Value::Float(2e-5)),
            ("steps".to_owned(), Value::Tensor(epoch)),
            (
                "list".to_owned(),
                Value::List(vec![
                    Value::Bool(true),
                    Value::Tuple(vec![Value::Text("é".into()), Value::Bool(false)]),
                ]),
            ),
        ])
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = state_dict_bytes(&example()).unwrap();
        assert_eq!(load(&bytes).unwrap(), example());
    }

    #[test]
    fn a_file_cut_off_anywhere_is_refused() {
        let bytes = state_dict_bytes(&example()).unwrap();
        for length in 0..bytes.len() {
            assert!(load(&bytes[..length]).is_err(), "{length} bytes were read");
        }
    }

    proptest! {
        #[test]
        fn changed_bytes_do_not_panic(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
        ) {
            let mut bytes = state_dict_bytes(&example()).unwrap();
            for (place, value) in changes {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            let _ = load(&bytes);
        }

        #[test]
        fn views_hold_what_their_strides_say(rows in 1usize..5, columns in 1usize..5) {
            let values: Vec<i64> = (0..(rows * columns) as i64).collect();
            let transposed = gathered(&values, &[columns, rows], &[1, columns]);
            for (place, value) in transposed.iter().enumerate() {
                let (column, row) = (place / rows, place % rows);
                prop_assert_eq!(*value, (row * columns + column) as i64);
            }
        }
    }
}
