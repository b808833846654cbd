//! Python's pickle format read as data, as far as `torch.save` and TorchScript write it.
//!
//! A pickle is a program for a small stack machine. Here that machine only builds numbers, texts, lists, dictionaries
//! and descriptions of tensors: functions are known by name from a short list, and whatever is not on it is refused.
//! Objects live in one list and refer to each other by position, so that shared and cyclic objects cost nothing, and
//! memory stays proportional to the bytes read. Instructions: CPython's `Lib/pickletools.py`.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use super::problem::{Problem, Result};
use super::value::{Dtype, TensorRef, Value};

/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 16;
/// Deepest nesting of lists, dictionaries and modules.
const MAX_DEPTH: usize = 100;
/// Longest name of a function or class.
const MAX_NAME: usize = 512;

/// Position of an object.
type Id = usize;

/// One object.
#[derive(Debug, Clone)]
enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits, little-endian.
    Long(Vec<u8>),
    Float(f64),
    Text(Arc<str>),
    /// Bytes, which nothing that we read needs.
    Bytes,
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global, Arc<str>),
    Storage(Storage),
    Tensor(TensorRef),
    /// An object of a class of TorchScript, and its attributes.
    Record(Arc<str>, Option<Id>),
    /// An object that is carried along and not looked into.
    Opaque(Arc<str>),
}

/// Memory that tensors view.
#[derive(Debug, Clone)]
struct Storage {
    key: Arc<str>,
    dtype: Dtype,
}

/// What a name of the short list means.
#[derive(Debug, Clone, Copy)]
enum Global {
    RebuildTensor,
    RebuildParameter,
    Dict,
    Storage(Dtype),
    /// A class of TorchScript.
    Module,
    /// A class whose objects are not looked into.
    Opaque,
}

/// The meaning of `module.name`, if it is on the list.
fn known(module: &str, name: &str) -> Option<Global> {
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

/// The objects of one pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    nodes: Vec<Node>,
    root: Id,
}

impl Pickle {
    /// Reads one pickle of at most `limit` bytes and leaves `reader` behind it.
    pub(super) fn read<R: Read>(reader: &mut R, limit: u64) -> Result<Self> {
        let mut machine = Machine {
            reader,
            remaining: limit,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: BTreeMap::new(),
        };
        loop {
            let [instruction] = machine.array()?;
            if instruction == b'.' {
                let root = machine.pop()?;
                return Ok(Self {
                    nodes: machine.nodes,
                    root,
                });
            }
            machine.step(instruction)?;
        }
    }

    /// Whether this is a single integer of more than 64 bits with these little-endian bytes.
    pub(super) fn is_long(&self, bytes: &[u8]) -> bool {
        matches!(&self.nodes[self.root], Node::Long(found) if found == bytes)
    }

    /// The object as a tree. What is shared is repeated, up to eight times the number of objects.
    pub(super) fn value(&self) -> Result<Value<TensorRef>> {
        let mut budget = 8 * self.nodes.len() + 1024;
        self.tree(self.root, MAX_DEPTH, &mut budget)
    }

    fn tree(&self, id: Id, depth: usize, budget: &mut usize) -> Result<Value<TensorRef>> {
        *budget = budget
            .checked_sub(1)
            .ok_or("objects that repeat others too often")?;
        let depth = depth
            .checked_sub(1)
            .ok_or("objects nested more than 100 deep, or in themselves")?;
        Ok(match &self.nodes[id] {
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
            Node::Tensor(tensor) => Value::Tensor(tensor.clone()),
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

/// The stack machine.
struct Machine<'a, R> {
    reader: &'a mut R,
    /// Bytes that may still be read.
    remaining: u64,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Id>,
}

impl<R: Read> Machine<'_, R> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N as u64)?;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        self.take(length)?;
        let mut bytes = vec![0; length as usize];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Counts `length` bytes, before anything is allocated for them.
    fn take(&mut self, length: u64) -> Result<()> {
        self.remaining = self
            .remaining
            .checked_sub(length)
            .ok_or("the pickle is cut off")?;
        Ok(())
    }

    /// A text of `length` bytes.
    fn text(&mut self, length: u64) -> Result<()> {
        let bytes = self.bytes(length)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| "a text that is not UTF-8")?;
        self.push(Node::Text(text.into()));
        Ok(())
    }

    /// The rest of a line.
    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        loop {
            match self.array()? {
                [b'\n'] => break,
                [byte] if line.len() < MAX_NAME => line.push(byte),
                _ => return Err("a name of more than 512 bytes".into()),
            }
        }
        String::from_utf8(line).map_err(|_| "a name that is not UTF-8".into())
    }

    fn add(&mut self, node: Node) -> Id {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn push(&mut self, node: Node) {
        let id = self.add(node);
        self.stack.push(id);
    }

    /// The top object; those below a mark are out of reach until the mark is gone.
    fn pop(&mut self) -> Result<Id> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err("an instruction without its operands".into());
        }
        self.stack
            .pop()
            .ok_or_else(|| Problem::from("an instruction without its operands"))
    }

    fn top(&mut self) -> Result<Id> {
        let id = self.pop()?;
        self.stack.push(id);
        Ok(id)
    }

    /// The objects above the last mark.
    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or("an instruction without its mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&mut self, length: usize) -> Result<()> {
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Node::Tuple(items));
        Ok(())
    }

    /// One instruction.
    fn step(&mut self, instruction: u8) -> Result<()> {
        match instruction {
            // PROTO, FRAME: sizes that a reader of streams needs no help with.
            0x80 => {
                let [version] = self.array()?;
                if version > 5 {
                    return Err(format!("pickle protocol {version}, expected 2 to 5").into());
                }
            }
            0x95 => {
                self.array::<8>()?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_to_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Node::Int(i64::from(value)));
            }
            b'K' => {
                let [value] = self.array()?;
                self.push(Node::Int(i64::from(value)));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Node::Int(i64::from(value)));
            }
            0x8a => {
                let [length] = self.array()?;
                let bytes = self.bytes(u64::from(length))?;
                self.push(integer(bytes));
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Node::Float(value));
            }
            b'X' | b'T' => {
                let length = u32::from_le_bytes(self.array()?);
                self.text(u64::from(length))?;
            }
            0x8c | b'U' => {
                let [length] = self.array()?;
                self.text(u64::from(length))?;
            }
            b'B' => {
                let length = u32::from_le_bytes(self.array()?);
                self.bytes(u64::from(length))?;
                self.push(Node::Bytes);
            }
            b'C' => {
                let [length] = self.array()?;
                self.bytes(u64::from(length))?;
                self.push(Node::Bytes);
            }
            b']' => self.push(Node::List(Vec::new())),
            b')' => self.push(Node::Tuple(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Node::List(items));
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items));
            }
            0x85..=0x87 => self.tuple(usize::from(instruction - 0x84))?,
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Dict(Vec::new()));
                self.set_items(&items)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'q' => {
                let [key] = self.array()?;
                self.remember(u32::from(key))?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let [key] = self.array()?;
                self.recall(u32::from(key))?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key)?;
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(&module, &name)?;
            }
            0x93 => {
                let name = self.pop_text()?;
                let module = self.pop_text()?;
                self.global(&module, &name)?;
            }
            b'Q' => self.persistent()?,
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let function = self.pop()?;
                let result = self.call(function, arguments)?;
                self.stack.push(result);
            }
            b'b' => {
                let state = self.pop()?;
                let object = self.top()?;
                match &mut self.nodes[object] {
                    Node::Record(_, attributes) => *attributes = Some(state),
                    // Python hangs `_metadata` on the dictionary of a state dict.
                    Node::Dict(_) | Node::Opaque(_) => {}
                    _ => return Err("attributes of something that has none".into()),
                }
            }
            other => {
                return Err(format!(
                    "the pickle holds the instruction 0x{other:02x}, which torch.save does not write"
                )
                .into());
            }
        }
        Ok(())
    }

    fn append(&mut self, items: &[Id]) -> Result<()> {
        let list = self.top()?;
        match &mut self.nodes[list] {
            Node::List(list) => list.extend(items),
            _ => return Err("an item for something that is no list".into()),
        }
        Ok(())
    }

    /// Alternating keys and values for the dictionary on top.
    fn set_items(&mut self, items: &[Id]) -> Result<()> {
        let (pairs, rest) = items.as_chunks::<2>();
        let dict = self.top()?;
        match &mut self.nodes[dict] {
            Node::Dict(dict) if rest.is_empty() => {
                dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
            }
            // Schedulers of some training programs are dictionaries of their own kind.
            Node::Opaque(_) => {}
            _ => return Err("a key without its value, or outside a dictionary".into()),
        }
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<()> {
        let id = self
            .memo
            .get(&key)
            .ok_or("a reference to an object that is not there")?;
        self.stack.push(*id);
        Ok(())
    }

    fn pop_text(&mut self) -> Result<Arc<str>> {
        let id = self.pop()?;
        match &self.nodes[id] {
            Node::Text(text) => Ok(text.clone()),
            _ => Err("a name that is no text".into()),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let path = format!("{module}.{name}");
        let Some(global) = known(module, name) else {
            return Err(format!(
                "it asks to run `{path}`, which is refused: only tensors, numbers, texts, lists and dictionaries are \
                 read; save the parameters alone (their state_dict), or as safetensors"
            )
            .into());
        };
        self.push(Node::Global(global, path.into()));
        Ok(())
    }

    /// `("storage", type, key, location, elements)`; files before torch 1.6 add a view, which is `None`.
    fn persistent(&mut self) -> Result<()> {
        let id = self.pop()?;
        let Node::Tuple(items) = &self.nodes[id] else {
            return Err("a persistent id that is no tuple".into());
        };
        let node = |at: usize| items.get(at).map(|id| &self.nodes[*id]);
        let storage = match (node(0), node(1), node(2), node(5)) {
            (
                Some(Node::Text(kind)),
                Some(Node::Global(Global::Storage(dtype), _)),
                Some(Node::Text(key)),
                None | Some(Node::None),
            ) if &**kind == "storage" => Storage {
                key: key.clone(),
                dtype: *dtype,
            },
            (_, _, _, Some(_)) => return Err("a storage that is a view of another".into()),
            _ => return Err("a persistent id that names no storage of numbers".into()),
        };
        self.push(Node::Storage(storage));
        Ok(())
    }

    /// What the listed functions make of their arguments.
    fn call(&mut self, function: Id, arguments: Id) -> Result<Id> {
        let Node::Tuple(items) = &self.nodes[arguments] else {
            return Err("arguments that are no tuple".into());
        };
        let Node::Global(global, path) = &self.nodes[function] else {
            return Err("a call of something that is no function".into());
        };
        let (global, path) = (*global, path.clone());
        let node = match global {
            Global::RebuildTensor => {
                let [storage, offset, shape, strides] = items
                    .first_chunk::<4>()
                    .ok_or("a tensor without its shape and strides")?;
                Node::Tensor(self.tensor(*storage, *offset, *shape, *strides)?)
            }
            Global::RebuildParameter => {
                return items
                    .first()
                    .copied()
                    .ok_or_else(|| Problem::from("a parameter without its tensor"));
            }
            Global::Dict => {
                if items.iter().any(|id| !self.empty_default(*id)) {
                    return Err(format!("`{path}` with initial items is not read").into());
                }
                Node::Dict(Vec::new())
            }
            Global::Module => Node::Record(path, None),
            Global::Opaque => Node::Opaque(path),
            Global::Storage(_) => return Err(format!("a call of `{path}` is refused").into()),
        };
        Ok(self.add(node))
    }

    /// Arguments with which a dictionary starts empty: nothing to put in, or the class of missing values.
    fn empty_default(&self, id: Id) -> bool {
        match &self.nodes[id] {
            Node::None | Node::Global(_, _) => true,
            Node::List(items) | Node::Tuple(items) => items.is_empty(),
            _ => false,
        }
    }

    fn tensor(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Result<TensorRef> {
        let Node::Storage(storage) = &self.nodes[storage] else {
            return Err("a tensor without a storage".into());
        };
        let shape = self.sizes(shape)?;
        let strides = self.sizes(strides)?;
        if shape.len() != strides.len() {
            return Err("a tensor with another number of strides than of sizes".into());
        }
        Ok(TensorRef {
            storage: storage.key.clone(),
            dtype: storage.dtype,
            offset: self.size(offset)?,
            shape,
            strides,
        })
    }

    fn sizes(&self, id: Id) -> Result<Vec<usize>> {
        match &self.nodes[id] {
            Node::Tuple(items) | Node::List(items) if items.len() <= MAX_DIMENSIONS => {
                items.iter().map(|item| self.size(*item)).collect()
            }
            _ => Err("the shape of a tensor is no tuple of at most 16 sizes".into()),
        }
    }

    fn size(&self, id: Id) -> Result<usize> {
        match &self.nodes[id] {
            Node::Int(size) => usize::try_from(*size)
                .map_err(|_| format!("a tensor with the size or stride {size}").into()),
            _ => Err("a size of a tensor is no integer".into()),
        }
    }
}

/// The two's complement integer of these little-endian bytes.
fn integer(bytes: Vec<u8>) -> Node {
    if bytes.len() > 8 {
        return Node::Long(bytes);
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xFF } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(&bytes);
    Node::Int(i64::from_le_bytes(wide))
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
