//! The pickles that `torch.save` and TorchScript write: values and descriptions of tensors.
//!
//! The machine of [`clipood_core::pickle`] reads the objects; here they become a tree in which tensors refer to their storages.

use std::io::Read;
use std::sync::Arc;

use clipood_core::pickle::{Id, Meaning, Node, Pickle, Rules};

use super::problem::Result;
use super::value::{Dtype, TensorRef, Value};

/// Most instructions of a pickle. A state dict with a thousand tensors and the state of its optimizer has some 100,000.
const MAX_INSTRUCTIONS: u32 = 1 << 22;
/// Most values of the tree that is made of shared objects.
const MAX_VALUES: usize = 1 << 21;
/// Deepest nesting of lists, dictionaries and modules.
const MAX_DEPTH: usize = 100;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

const RULES: Rules = Rules {
    meaning,
    allowed: "tensors, numbers, texts, lists and dictionaries are read; save the parameters alone (their state_dict), or as \
              safetensors",
    instructions: MAX_INSTRUCTIONS,
};

/// The meaning of `module.name`, if a checkpoint may contain it.
fn meaning(module: &str, name: &str) -> Option<Meaning> {
    match (module, name) {
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_parameter") => {
            Some(Meaning::Function)
        }
        ("collections", "OrderedDict" | "defaultdict") => Some(Meaning::Dict),
        ("torch" | "torch.cuda", _) if name.ends_with("Storage") => {
            Dtype::of_storage(name).map(|_| Meaning::Constant)
        }
        ("torch.storage", "UntypedStorage") => Some(Meaning::Constant),
        // Values next to the parameters: sizes, types, and the state of optimizers and schedulers.
        ("torch", "Size" | "device" | "float16" | "bfloat16" | "float32" | "float64" | "int64") => {
            Some(Meaning::Opaque)
        }
        ("builtins" | "__builtin__", "dict" | "list" | "int" | "float") => Some(Meaning::Opaque),
        _ if module == "__torch__" || module.starts_with("__torch__.") => Some(Meaning::Object),
        _ if module == "torch.jit._pickle"
            || module == "torch.optim"
            || module.starts_with("torch.optim.") =>
        {
            Some(Meaning::Opaque)
        }
        _ => None,
    }
}

/// Reads one pickle of at most `limit` bytes and leaves `reader` behind it.
pub(super) fn read<R: Read>(reader: &mut R, limit: u64) -> Result<Pickle> {
    Ok(Pickle::read(reader, limit, &RULES)?)
}

/// Whether the pickle is a single integer of more than 64 bits with these little-endian bytes.
pub(super) fn is_long(pickle: &Pickle, bytes: &[u8]) -> bool {
    matches!(pickle.node(pickle.root()), Node::Long(found) if **found == *bytes)
}

/// The object as a tree. What is shared is repeated, up to eight times the number of objects and [`MAX_VALUES`].
pub(super) fn value(pickle: &Pickle) -> Result<Value<TensorRef>> {
    let budget = (8 * pickle.count() + 1024).min(MAX_VALUES);
    Tree { pickle, budget }.of(pickle.root(), MAX_DEPTH)
}

/// The tree while it is made.
struct Tree<'a> {
    pickle: &'a Pickle,
    /// Values that may still be made.
    budget: usize,
}

impl Tree<'_> {
    fn of(&mut self, id: Id, depth: usize) -> Result<Value<TensorRef>> {
        self.budget = self.budget.checked_sub(1).ok_or_else(|| {
            format!("objects that repeat others too often, or more than {MAX_VALUES} of them")
        })?;
        let depth = depth
            .checked_sub(1)
            .ok_or("objects nested more than 100 deep, or in themselves")?;
        Ok(match self.pickle.node(id) {
            Node::None => Value::None,
            Node::Bool(value) => Value::Bool(*value),
            Node::Int(value) => Value::Int(*value),
            Node::Float(value) => Value::Float(*value),
            Node::Text(text) => Value::Text(text.clone()),
            Node::List(items) => Value::List(self.all(items, depth)?),
            Node::Tuple(items) => Value::Tuple(self.all(items, depth)?),
            Node::Dict(items) => {
                let mut pairs = Vec::new();
                for (key, value) in items {
                    let key = self.of(*key, depth)?;
                    pairs.push((key, self.of(*value, depth)?));
                }
                Value::Dict(pairs)
            }
            Node::Object(class, state) => Value::Record(
                class.clone(),
                Box::new(match state {
                    Some(state) => self.of(*state, depth)?,
                    None => Value::None,
                }),
            ),
            Node::Call(function, arguments) => self.call(function, *arguments, depth)?,
            Node::Global(_, name) | Node::Opaque(name) => Value::Opaque(name.clone()),
            Node::Long(_) => Value::Opaque("an integer of more than 64 bits".into()),
            Node::Bytes => Value::Opaque("bytes".into()),
            Node::Persistent(_) => Value::Opaque("a storage".into()),
        })
    }

    fn all(&mut self, items: &[Id], depth: usize) -> Result<Vec<Value<TensorRef>>> {
        items.iter().map(|item| self.of(*item, depth)).collect()
    }

    /// What a function of `torch._utils` makes of its arguments.
    fn call(&mut self, function: &str, arguments: Id, depth: usize) -> Result<Value<TensorRef>> {
        let Node::Tuple(items) = self.pickle.node(arguments) else {
            return Err("arguments that are no tuple".into());
        };
        if function == "torch._utils._rebuild_parameter" {
            let tensor = *items.first().ok_or("a parameter without its tensor")?;
            return self.of(tensor, depth);
        }
        let [storage, offset, shape, strides] = items
            .first_chunk::<4>()
            .ok_or("a tensor without its shape and strides")?;
        let (storage, dtype) = self.storage(*storage)?;
        let shape = self.sizes(*shape)?;
        let strides = self.sizes(*strides)?;
        if shape.len() != strides.len() {
            return Err("a tensor with another number of strides than of sizes".into());
        }
        Ok(Value::Tensor(TensorRef {
            storage,
            dtype,
            offset: self.size(*offset)?,
            shape,
            strides,
        }))
    }

    /// `("storage", type, key, location, elements)`; files before torch 1.6 add a view, which is `None`.
    fn storage(&self, id: Id) -> Result<(Arc<str>, Dtype)> {
        let Node::Persistent(id) = self.pickle.node(id) else {
            return Err("a tensor without a storage".into());
        };
        let Node::Tuple(items) = self.pickle.node(*id) else {
            return Err("a persistent id that is no tuple".into());
        };
        let node = |at: usize| items.get(at).map(|id| self.pickle.node(*id));
        match (node(0), node(1), node(2), node(5)) {
            (
                Some(Node::Text(kind)),
                Some(Node::Global(Meaning::Constant, class)),
                Some(Node::Text(key)),
                None | Some(Node::None),
            ) if &**kind == "storage" => {
                let class = class.rsplit('.').next().unwrap_or_default();
                let dtype = match class {
                    "UntypedStorage" => Some(Dtype::U8),
                    class => Dtype::of_storage(class),
                };
                let dtype = dtype.ok_or("a persistent id that names no storage of numbers")?;
                Ok((key.clone(), dtype))
            }
            (_, _, _, Some(_)) => Err("a storage that is a view of another".into()),
            _ => Err("a persistent id that names no storage of numbers".into()),
        }
    }

    fn sizes(&self, id: Id) -> Result<Vec<usize>> {
        match self.pickle.node(id) {
            Node::Tuple(items) | Node::List(items) if items.len() <= MAX_DIMENSIONS => {
                items.iter().map(|item| self.size(*item)).collect()
            }
            _ => Err("the shape of a tensor is no tuple of at most 8 sizes".into()),
        }
    }

    fn size(&self, id: Id) -> Result<usize> {
        match self.pickle.node(id) {
            Node::Int(size) => usize::try_from(*size)
                .map_err(|_| format!("a tensor with the size or stride {size}").into()),
            _ => Err("a size of a tensor is no integer".into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(mut bytes: &[u8]) -> Result<Value<TensorRef>> {
        let length = bytes.len() as u64;
        value(&super::read(&mut bytes, length)?)
    }

    fn refusal(bytes: &[u8]) -> String {
        read(bytes).unwrap_err().of("x").to_string()
    }

    #[test]
    fn values_are_read() {
        // pickle.dumps({"a": [1, -2, 70000, 2**40, 1.5, True, None, ("b",)]}, protocol=2)
        let bytes = b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffJp\x11\x01\x00\x8a\x06\x00\x00\
            \x00\x00\x00\x01G?\xf8\x00\x00\x00\x00\x00\x00\x88NX\x01\x00\x00\x00bq\x03\x85q\x04es.";
        let expected = vec![
            Value::Int(1),
            Value::Int(-2),
            Value::Int(70000),
            Value::Int(1 << 40),
            Value::Float(1.5),
            Value::Bool(true),
            Value::None,
            Value::Tuple(vec![Value::Text("b".into())]),
        ];
        assert_eq!(
            read(bytes).unwrap(),
            Value::Dict(vec![(Value::Text("a".into()), Value::List(expected))])
        );
    }

    #[test]
    fn functions_off_the_list_are_refused_by_name() {
        let message = refusal(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.");
        assert!(message.contains("`posix.system`"), "{message}");
        let message = refusal(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.");
        assert!(message.contains("`builtins.eval`"), "{message}");
        let message = refusal(b"\x80\x02ctorch.storage\n_load_from_bytes\n.");
        assert!(message.contains("_load_from_bytes"), "{message}");
    }

    #[test]
    fn lists_in_themselves_and_multiplying_lists_are_refused() {
        let message = refusal(b"\x80\x02]q\x00h\x00a.");
        assert!(message.contains("in themselves"), "{message}");
        // Each list holds the one before it ten times: 10^20 items in 20 steps.
        let mut bytes = b"\x80\x02]q\x00".to_vec();
        for _ in 0..20 {
            bytes.extend(b"](");
            bytes.extend(b"h\x00".repeat(10));
            bytes.extend(b"eq\x00");
        }
        bytes.push(b'.');
        let message = refusal(&bytes);
        assert!(message.contains("repeat others too often"), "{message}");
    }

    #[test]
    fn deep_tuples_are_refused() {
        // A tuple in a tuple in a tuple, as deep as a file can be long.
        let deep = [b"\x80\x02N", &b"\x85".repeat(1_000_000)[..], b"."].concat();
        let message = refusal(&deep);
        assert!(message.contains("nested more than 100 deep"), "{message}");
    }

    proptest! {
        #[test]
        fn no_sequence_of_instructions_panics(
            picks in proptest::collection::vec((0usize..40, any::<u8>()), 0..100)
        ) {
            const INSTRUCTIONS: &[u8] =
                b"(012N\x88\x89JKM\x8aGXTUBC])}lt\x85\x86\x87daesuqrhjQRb\x81\x93\x94";
            let mut bytes = Vec::new();
            for (pick, operand) in picks {
                bytes.push(INSTRUCTIONS[pick % INSTRUCTIONS.len()]);
                bytes.push(operand % 4);
                if operand % 16 == 0 {
                    bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n");
                }
                if operand % 16 == 1 {
                    bytes.extend(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ");
                }
            }
            bytes.push(b'.');
            let _ = read(&bytes);
        }
    }
}
