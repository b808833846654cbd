//! The floating-point tensors of one weight file under the names they have there.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use clipood_core::files::open_file;
use memmap2::Mmap;
use safetensors::tensor::{Dtype as SafeDtype, Metadata, TensorInfo};

use super::problem::{Problem, Result as Outcome};
use super::torch_file::{TorchFile, is_torch_file};
use super::value::{Dtype, TensorRef, Value, Values};
use crate::error::{ClipError, Result};
use crate::weights::{Floats, WeightTensor, Weights};

/// Longest header of a safetensors file; that of a model with a thousand tensors has some 100 kB.
const MAX_HEADER: u64 = 16 << 20;

/// Keys under which training programs keep the parameters beside other things.
const STATES: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// Reads the file at `path`, safetensors or a file of `torch.save` by its first bytes. Integers are left out.
///
/// # Errors
/// The file cannot be read, is damaged, or is of another format.
pub(super) fn read_weights(path: &Path) -> Result<Weights> {
    let origin = path.display().to_string();
    let read_error = |source| ClipError::Read {
        path: origin.clone(),
        source,
    };
    let mut file = BufReader::new(open_file(path).map_err(read_error)?);
    let length = file.get_ref().metadata().map_err(read_error)?.len();
    let mut head = Vec::new();
    file.by_ref()
        .take(8)
        .read_to_end(&mut head)
        .map_err(read_error)?;
    if is_torch_file(&head) {
        return from_torch(TorchFile::open(path)?, &origin);
    }
    if head.starts_with(b"version ") {
        return Err(Problem::from(
            "a pointer of Git LFS: the weights themselves were not downloaded (`git lfs pull`)",
        )
        .of(&origin));
    }
    // SAFETY: the mapping is only read. A program that changes the file while it is used changes the values of the model, and
    // one that cuts it off ends this process with SIGBUS; programs that save checkpoints write another file and rename it.
    match unsafe { Mmap::map(file.get_ref()) } {
        Ok(mapped) => mapped_safetensors(&Arc::new(mapped), &origin),
        // What cannot be mapped can still be read.
        Err(_) => from_safetensors(&mut file, &head, length, &origin),
    }
    .map_err(|problem| problem.of(&origin))
}

/// A mapped safetensors file. Tensors of float32 stay where they are, if they are aligned.
fn mapped_safetensors(file: &Arc<Mmap>, origin: &str) -> Outcome<Weights> {
    let (head, mut rest) = file.split_at(file.len().min(8));
    let tensors = header(&mut rest, head, file.len() as u64)?;
    let start = file.len() - rest.len();
    let mut weights = Weights::new(origin);
    for (name, dtype, info) in tensors {
        let (from, to) = info.data_offsets;
        let bytes = start + from..start + to;
        let in_place = match dtype {
            Dtype::F32 => Floats::mapped(file, bytes.clone()),
            _ => None,
        };
        if let Some(data) = in_place {
            let shape = info.shape;
            weights.insert_tensor(name, WeightTensor { shape, data });
        } else if dtype.is_float() {
            let count: usize = info.shape.iter().product();
            if let Values::Float(data) = dtype.read(&mut &file[bytes], count)? {
                weights.insert(name, info.shape, data);
            }
        }
    }
    Ok(weights)
}

impl Weights {
    /// Reads a safetensors file of floats from memory; integer tensors (position ids, batch counters) are left out.
    ///
    /// # Errors
    /// The bytes are not safetensors, or a tensor has a type that no CLIP is stored in.
    pub fn from_safetensors(bytes: &[u8], origin: &str) -> Result<Self> {
        let (head, mut rest) = bytes.split_at(bytes.len().min(8));
        let length = bytes.len() as u64;
        from_safetensors(&mut rest, head, length, origin).map_err(|problem| problem.of(origin))
    }
}

/// A safetensors file whose first eight bytes were read.
fn from_safetensors(
    file: &mut impl Read,
    head: &[u8],
    length: u64,
    origin: &str,
) -> Outcome<Weights> {
    let mut weights = Weights::new(origin);
    for (name, dtype, info) in header(file, head, length)? {
        let (start, end) = info.data_offsets;
        if !dtype.is_float() {
            io::copy(&mut file.take((end - start) as u64), &mut io::sink())?;
            continue;
        }
        let count: usize = info.shape.iter().product();
        if let Values::Float(data) = dtype.read(file, count)? {
            weights.insert(name, info.shape, data);
        }
    }
    Ok(weights)
}

/// The header of a safetensors file of `length` bytes whose first eight were read: its tensors in the order of their data,
/// which begins behind it and is as long as they say.
fn header(
    file: &mut impl Read,
    head: &[u8],
    length: u64,
) -> Outcome<Vec<(String, Dtype, TensorInfo)>> {
    let header_length = match <[u8; 8]>::try_from(head) {
        Ok(bytes) => u64::from_le_bytes(bytes),
        Err(_) => return Err("a file of fewer than 8 bytes".into()),
    };
    let data_length = length
        .checked_sub(8)
        .and_then(|rest| rest.checked_sub(header_length))
        .ok_or("neither safetensors nor a file of torch.save, or cut off in its header")?;
    if header_length > MAX_HEADER {
        return Err(format!(
            "found a header of {header_length} bytes, allowed: at most {MAX_HEADER}"
        )
        .into());
    }
    let mut header = vec![0; header_length as usize];
    file.read_exact(&mut header)?;
    // Metadata checks that the tensors follow each other without gaps and are as long as their shapes say.
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| Problem::from(format!("the header of safetensors: {error}")))?;
    let mut tensors: Vec<_> = metadata.tensors().into_iter().collect();
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let end = tensors.last().map_or(0, |(_, info)| info.data_offsets.1);
    if end as u64 != data_length {
        return Err(format!(
            "the tensors take {end} bytes, and the file holds {data_length}: it is cut off or damaged"
        )
        .into());
    }
    let typed = tensors.into_iter().map(|(name, info)| {
        let dtype = dtype_of(info.dtype).ok_or_else(|| {
            Problem::from(format!(
                "tensor `{name}` has type {:?}, expected F32, F16 or BF16",
                info.dtype
            ))
        })?;
        Ok((name, dtype, info.clone()))
    });
    typed.collect()
}

/// The same type; `None` for those that no CLIP is stored in.
fn dtype_of(dtype: SafeDtype) -> Option<Dtype> {
    Some(match dtype {
        SafeDtype::F16 => Dtype::F16,
        SafeDtype::BF16 => Dtype::Bf16,
        SafeDtype::F32 => Dtype::F32,
        SafeDtype::F64 => Dtype::F64,
        SafeDtype::I8 => Dtype::I8,
        SafeDtype::U8 => Dtype::U8,
        SafeDtype::I16 => Dtype::I16,
        SafeDtype::I32 => Dtype::I32,
        SafeDtype::I64 => Dtype::I64,
        SafeDtype::BOOL => Dtype::Bool,
        _ => return None,
    })
}

/// The parameters of a state dict or of a TorchScript module.
fn from_torch(mut file: TorchFile<BufReader<File>>, origin: &str) -> Result<Weights> {
    let root = file.root();
    let state = STATES
        .iter()
        .filter_map(|key| root.get(key))
        .find(|state| !file.is_torchscript() && !state.items().is_empty())
        .unwrap_or(root);
    let mut found = Vec::new();
    collect(state, "", &mut found);
    if found.is_empty() {
        return Err(Problem::from("it holds no dictionary of tensors").of(origin));
    }
    let mut weights = Weights::new(origin);
    for (name, tensor) in found {
        let tensor = file.tensor(&name, &tensor)?;
        if let Values::Float(data) = tensor.values {
            weights.insert(name, tensor.shape, data);
        }
    }
    Ok(weights)
}

/// Floating-point tensors under dotted names.
fn collect(value: &Value<TensorRef>, prefix: &str, found: &mut Vec<(String, TensorRef)>) {
    for (key, value) in value.items() {
        let Some(key) = key.as_text() else { continue };
        let name = match prefix {
            "" => key.to_owned(),
            _ => format!("{prefix}.{key}"),
        };
        match value.as_tensor() {
            Some(tensor) if tensor.dtype.is_float() => found.push((name, tensor.clone())),
            Some(_) => {}
            None => collect(value, &name, found),
        }
    }
}
