//! Python's pickle format read as data.
//!
//! A pickle is a program for a small stack machine. Here that machine only builds numbers, texts, lists, dictionaries and
//! plain objects: functions and classes are known by name from a list of the caller ([`Rules`]), whatever is not on it is
//! refused, and nothing is ever called. Objects live in one list and refer to each other by position, so that shared and
//! cyclic objects cost nothing. Memory is bounded by the number of instructions, which is limited, and by the bytes of texts.
//! Instructions: CPython's `Lib/pickletools.py`.

mod machine;
mod node;

use std::io::{self, Read};

use self::machine::Machine;
pub use self::node::{Id, Meaning, Node};

/// What a pickle may contain.
pub struct Rules {
    /// What the function or class `module.name` stands for; `None` refuses the pickle.
    pub meaning: fn(module: &str, name: &str) -> Option<Meaning>,
    /// What is read instead, and what to do about a refusal: the end of the sentence `only ...`.
    pub allowed: &'static str,
    /// Most instructions. Each takes at least one byte of the file and makes at most one object of 32 bytes.
    pub instructions: u32,
}

/// Why a pickle is not read, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PickleError(String);

/// Result of this module.
type Result<T> = std::result::Result<T, PickleError>;

impl From<String> for PickleError {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl From<&str> for PickleError {
    fn from(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

impl From<io::Error> for PickleError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// The objects of one pickle.
#[derive(Debug)]
pub struct Pickle {
    nodes: Vec<Node>,
    root: Id,
}

impl Pickle {
    /// Reads one pickle of at most `limit` bytes and leaves `reader` behind it.
    ///
    /// # Errors
    /// Bytes that are no pickle, that are cut off, or that `rules` refuse.
    pub fn read<R: Read>(
        reader: &mut R,
        limit: u64,
        rules: &Rules,
    ) -> std::result::Result<Self, PickleError> {
        let (nodes, root) = Machine::new(reader, limit, rules).run()?;
        Ok(Self { nodes, root })
    }

    /// The object that the pickle stands for.
    pub fn root(&self) -> Id {
        self.root
    }

    /// Number of objects.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// An object; ids come from [`Pickle::root`] and from other objects of the same pickle.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules {
        meaning: |module, name| match (module, name) {
            ("collections", "OrderedDict") => Some(Meaning::Dict),
            ("zoo", "Animal") => Some(Meaning::Object),
            ("zoo", "rebuild") => Some(Meaning::Function),
            ("zoo", "TYPE") => Some(Meaning::Constant),
            ("zoo", "Cage") => Some(Meaning::Opaque),
            _ => None,
        },
        allowed: "animals are read",
        instructions: 1 << 20,
    };

    fn read(mut bytes: &[u8]) -> Result<Pickle> {
        let length = bytes.len() as u64;
        Pickle::read(&mut bytes, length, &RULES)
    }

    fn refusal(bytes: &[u8]) -> String {
        read(bytes).unwrap_err().to_string()
    }

    #[test]
    fn objects_are_their_attributes_and_calls_their_arguments() {
        // pickle.dumps(Animal(name="cat"), protocol=4), with Animal.__module__ = "zoo"
        let bytes = b"\x80\x04\x8c\x03zoo\x94\x8c\x06Animal\x94\x93\x94)\x81\x94}\x94\x8c\x04name\x94\x8c\x03cat\x94sb.";
        let pickle = read(bytes).unwrap();
        let Node::Object(class, Some(state)) = pickle.node(pickle.root()) else {
            panic!("{pickle:?}");
        };
        assert_eq!(&**class, "zoo.Animal");
        let Node::Dict(items) = pickle.node(*state) else {
            panic!("{pickle:?}");
        };
        assert!(matches!(pickle.node(items[0].1), Node::Text(text) if &**text == "cat"));
        let pickle = read(b"\x80\x02czoo\nrebuild\nK\x07\x85R.").unwrap();
        assert!(
            matches!(pickle.node(pickle.root()), Node::Call(name, _) if &**name == "zoo.rebuild")
        );
    }

    #[test]
    fn functions_off_the_list_are_refused_by_name() {
        let message = refusal(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.");
        assert_eq!(
            message,
            "it asks to run `posix.system`, which is refused: only animals are read"
        );
        let message = refusal(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.");
        assert!(message.contains("`builtins.eval`"), "{message}");
        let message = refusal(b"\x80\x02czoo\nTYPE\n)R.");
        assert_eq!(message, "a call of `zoo.TYPE` is refused");
    }

    /// Instructions of one or two bytes that each make an object, a reference, a mark or an item of a list.
    #[test]
    fn more_instructions_than_the_rules_allow_are_refused() {
        let many = RULES.instructions as usize;
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
                message.contains("found more than 1048576 instructions"),
                "{repeated:?}: {message}"
            );
        }
        let message = refusal(&[b"\x80\x02", &b"(".repeat(2000)[..], b"."].concat());
        assert!(
            message.contains("found more than 1024 open marks"),
            "{message}"
        );
    }

    #[test]
    fn objects_stay_small() {
        assert!(size_of::<Node>() <= 32, "{} bytes", size_of::<Node>());
    }

    #[test]
    fn a_length_beyond_the_file_allocates_nothing() {
        for bytes in [
            &b"\x80\x02X\xff\xff\xff\xff."[..],
            b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
        ] {
            let message = refusal(bytes);
            assert!(message.contains("cut off"), "{message}");
        }
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
            const NAMES: [&[u8]; 3] = [
                b"czoo\nrebuild\n",
                b"czoo\nAnimal\n",
                b"ccollections\nOrderedDict\n",
            ];
            let mut bytes = Vec::new();
            for (pick, operand) in picks {
                bytes.push(INSTRUCTIONS[pick % INSTRUCTIONS.len()]);
                bytes.push(operand % 4);
                if let Some(name) = NAMES.get(usize::from(operand % 16)) {
                    bytes.extend(*name);
                }
            }
            bytes.push(b'.');
            let _ = read(&bytes);
        }
    }
}
