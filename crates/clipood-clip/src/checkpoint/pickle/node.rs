//! Objects of a pickle, and the names of functions and classes that may appear in it.

use std::sync::Arc;

use crate::checkpoint::value::{Dtype, TensorRef};

/// Position of an object.
pub(super) type Id = u32;

/// One object.
#[derive(Debug, Clone)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits, little-endian.
    Long(Box<[u8]>),
    Float(f64),
    Text(Arc<str>),
    /// Bytes, whose contents nothing needs.
    Bytes,
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global, Arc<str>),
    Storage(Box<Storage>),
    Tensor(Box<TensorRef>),
    /// An object of a class of TorchScript, and its attributes.
    Record(Arc<str>, Option<Id>),
    /// An object whose contents are not read.
    Opaque(Arc<str>),
}

/// Memory that tensors view.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    pub(super) key: Arc<str>,
    pub(super) dtype: Dtype,
}

/// What a name of the short list means.
#[derive(Debug, Clone, Copy)]
pub(super) enum Global {
    RebuildTensor,
    RebuildParameter,
    Dict,
    Storage(Dtype),
    /// A class of TorchScript.
    Module,
    /// A class whose objects are not read.
    Opaque,
}

/// The meaning of `module.name`, if it is on the list.
pub(super) fn known(module: &str, name: &str) -> Option<Global> {
    match (module, name) {
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
        ("collections", "OrderedDict" | "defaultdict") => Some(Global::Dict),
        ("torch" | "torch.cuda", _) if name.ends_with("Storage") => {
            Dtype::of_storage(name).map(Global::Storage)
        }
        ("torch.storage", "UntypedStorage") => Some(Global::Storage(Dtype::U8)),
        // Values next to the parameters: sizes, types, and the state of optimizers and schedulers.
        ("torch", "Size" | "device" | "float16" | "bfloat16" | "float32" | "float64" | "int64") => {
            Some(Global::Opaque)
        }
        ("builtins" | "__builtin__", "dict" | "list" | "int" | "float") => Some(Global::Opaque),
        _ if module == "__torch__" || module.starts_with("__torch__.") => Some(Global::Module),
        _ if module == "torch.jit._pickle"
            || module == "torch.optim"
            || module.starts_with("torch.optim.") =>
        {
            Some(Global::Opaque)
        }
        _ => None,
    }
}

/// The two's complement integer of these little-endian bytes.
pub(super) fn integer(bytes: Vec<u8>) -> Node {
    if bytes.len() > 8 {
        return Node::Long(bytes.into());
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xFF } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(&bytes);
    Node::Int(i64::from_le_bytes(wide))
}
