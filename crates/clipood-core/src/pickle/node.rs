//! Objects of a pickle.

use std::sync::Arc;

/// Position of an object among those of its pickle.
pub type Id = u32;

/// One object.
#[derive(Debug, Clone)]
pub enum Node {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// An integer of more than 64 bits, little-endian.
    Long(Box<[u8]>),
    /// A float.
    Float(f64),
    /// A text.
    Text(Arc<str>),
    /// Bytes, whose contents nothing needs.
    Bytes,
    /// A list.
    List(Vec<Id>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A dictionary in the order of the file; a key may repeat, and the last one counts.
    Dict(Vec<(Id, Id)>),
    /// A function or class of the list, by `module.name`.
    Global(Meaning, Arc<str>),
    /// What a [`Meaning::Function`] would have returned: its name and the tuple of its arguments.
    Call(Arc<str>, Id),
    /// An object of a [`Meaning::Object`] class: its name, and its attributes if it has any.
    Object(Arc<str>, Option<Id>),
    /// A reference to something outside the pickle.
    Persistent(Id),
    /// An object whose contents are not read, by the name of its class.
    Opaque(Arc<str>),
}

/// What a name that a pickle may contain stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// A class of dictionaries.
    Dict,
    /// A class whose objects are read as their attributes.
    Object,
    /// A function whose calls are recorded, not made.
    Function,
    /// A class or function whose results are not read.
    Opaque,
    /// A value that is not called.
    Constant,
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
