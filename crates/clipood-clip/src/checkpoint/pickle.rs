//! Python's pickle format read as data, as far as `torch.save` and TorchScript write it.
//!
//! A pickle is a program for a small stack machine. Here that machine only builds numbers, texts, lists, dictionaries
//! and descriptions of tensors: functions are known by name from a short list, and whatever is not on it is refused.
//! Objects live in one list and refer to each other by position, so that shared and cyclic objects cost nothing. Memory is
//! bounded by the number of instructions, which is limited, and by the bytes of texts. Instructions: CPython's
//! `Lib/pickletools.py`.

mod machine;
mod node;

use std::io::Read;

use self::machine::Machine;
use self::node::{Id, Node};
use super::problem::Result;
use super::value::{TensorRef, Value};

/// Most values of the tree that [`Pickle::value`] makes of shared objects.
const MAX_VALUES: usize = 1 << 21;
/// Deepest nesting of lists, dictionaries and modules.
const MAX_DEPTH: usize = 100;

/// The objects of one pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    nodes: Vec<Node>,
    root: Id,
}

impl Pickle {
    /// Reads one pickle of at most `limit` bytes and leaves `reader` behind it.
    pub(super) fn read<R: Read>(reader: &mut R, limit: u64) -> Result<Self> {
        let (nodes, root) = Machine::new(reader, limit).run()?;
        Ok(Self { nodes, root })
    }

    /// Whether this is a single integer of more than 64 bits with these little-endian bytes.
    pub(super) fn is_long(&self, bytes: &[u8]) -> bool {
        matches!(&self.nodes[self.root as usize], Node::Long(found) if **found == *bytes)
    }

    /// The object as a tree. What is shared is repeated, up to eight times the number of objects and [`MAX_VALUES`].
    pub(super) fn value(&self) -> Result<Value<TensorRef>> {
        let mut budget = (8 * self.nodes.len() + 1024).min(MAX_VALUES);
        self.tree(self.root, MAX_DEPTH, &mut budget)
    }

    fn tree(&self, id: Id, depth: usize, budget: &mut usize) -> Result<Value<TensorRef>> {
        *budget = budget.checked_sub(1).ok_or_else(|| {
            format!("objects that repeat others too often, or more than {MAX_VALUES} of them")
        })?;
        let depth = depth
            .checked_sub(1)
            .ok_or("objects nested more than 100 deep, or in themselves")?;
        Ok(match &self.nodes[id as usize] {
            Node::None => Value::None,
            Node::Bool(value) => Value::Bool(*value),
            Node::Int(value) => Value::Int(*value),
            Node::Float(value) => Value::Float(*value),
            Node::Text(text) => Value::Text(text.clone()),
            Node::List(items) => Value::List(self.trees(items, depth, budget)?),
            Node::Tuple(items) => Value::Tuple(self.trees(items, depth, budget)?),
            Node::Dict(items) => {
                let mut pairs = Vec::new();
                for (key, value) in items {
                    let key = self.tree(*key, depth, budget)?;
                    pairs.push((key, self.tree(*value, depth, budget)?));
                }
                Value::Dict(pairs)
            }
            Node::Tensor(tensor) => Value::Tensor(TensorRef::clone(tensor)),
            Node::Record(class, state) => Value::Record(
                class.clone(),
                Box::new(match state {
                    Some(state) => self.tree(*state, depth, budget)?,
                    None => Value::None,
                }),
            ),
            Node::Global(_, name) | Node::Opaque(name) => Value::Opaque(name.clone()),
            Node::Long(_) => Value::Opaque("an integer of more than 64 bits".into()),
            Node::Bytes => Value::Opaque("bytes".into()),
            Node::Storage(_) => Value::Opaque("a storage".into()),
        })
    }

    fn trees(
        &self,
        items: &[Id],
        depth: usize,
        budget: &mut usize,
    ) -> Result<Vec<Value<TensorRef>>> {
        items
            .iter()
            .map(|item| self.tree(*item, depth, budget))
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(mut bytes: &[u8]) -> Result<Value<TensorRef>> {
        let length = bytes.len() as u64;
        Pickle::read(&mut bytes, length)?.value()
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

    /// Instructions of one or two bytes that each make an object, a reference, a mark or an item of a list.
    #[test]
    fn more_instructions_than_any_checkpoint_has_are_refused() {
        let many = machine::MAX_INSTRUCTIONS as usize;
        for (start, repeated) in [
            (&b"\x80\x02"[..], &b"N"[..]),
            (b"\x80\x02", b"]"),
            (b"\x80\x02", b"}"),
            (b"\x80\x02]q\x00", b"h\x00"),
            (b"\x80\x02]q\x00", b"Na"),
            (b"\x80\x02N", b"2"),
            (b"\x80\x02N", b"\x85"),
            (b"\x80\x02N", b"\x94"),
        ] {
            let mut bytes = start.to_vec();
            bytes.extend(repeated.repeat(many));
            bytes.push(b'.');
            let message = refusal(&bytes);
            assert!(
                message.contains("found more than 4194304 instructions"),
                "{repeated:?}: {message}"
            );
        }
        let message = refusal(&[b"\x80\x02", &b"(".repeat(2000)[..], b"."].concat());
        assert!(
            message.contains("found more than 1024 open marks"),
            "{message}"
        );
        // A tuple in a tuple in a tuple, as deep as a file can be long.
        let deep = [b"\x80\x02N", &b"\x85".repeat(1_000_000)[..], b"."].concat();
        let message = refusal(&deep);
        assert!(message.contains("nested more than 100 deep"), "{message}");
    }

    #[test]
    fn objects_stay_small() {
        assert!(size_of::<Node>() <= 32, "{} bytes", size_of::<Node>());
    }

    #[test]
    fn a_length_beyond_the_file_allocates_nothing() {
        let message = refusal(b"\x80\x02X\xff\xff\xff\xff.");
        assert!(message.contains("cut off"), "{message}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

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
