//! The stack machine that a pickle is a program for, without the instructions that would run anything.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use super::node::{Id, Meaning, Node, integer};
use super::{PickleError, Result, Rules};

/// Most open marks: one for each list, dictionary or tuple around the current object.
const MAX_MARKS: usize = 1024;
/// Longest text.
const MAX_TEXT: u64 = 16 << 20;
/// Longest name of a function or class.
const MAX_NAME: usize = 512;

/// The stack machine.
pub(super) struct Machine<'a, R> {
    reader: &'a mut R,
    rules: &'a Rules,
    /// Bytes that may still be read.
    remaining: u64,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Id>,
}

impl<'a, R: Read> Machine<'a, R> {
    /// A machine that reads at most `limit` bytes.
    pub(super) fn new(reader: &'a mut R, limit: u64, rules: &'a Rules) -> Self {
        Self {
            reader,
            rules,
            remaining: limit,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: BTreeMap::new(),
        }
    }

    /// Runs one pickle to its end: all objects, and the position of the one it stands for.
    pub(super) fn run(mut self) -> Result<(Vec<Node>, Id)> {
        let most = self.rules.instructions;
        for _ in 0..most {
            let [instruction] = self.array()?;
            if instruction == b'.' {
                let root = self.pop()?;
                return Ok((self.nodes, root));
            }
            self.step(instruction)?;
        }
        Err(
            format!("found more than {most} instructions in the pickle, allowed: at most as many")
                .into(),
        )
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N as u64)?;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        self.take(length)?;
        if length > MAX_TEXT {
            let problem = format!("found a text of {length} bytes, allowed: at most {MAX_TEXT}");
            return Err(problem.into());
        }
        let mut bytes = vec![0; length as usize];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Passes over `length` bytes.
    fn skip(&mut self, length: u64) -> Result<()> {
        self.take(length)?;
        let passed = io::copy(&mut self.reader.by_ref().take(length), &mut io::sink())?;
        if passed < length {
            return Err("the pickle is cut off".into());
        }
        Ok(())
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
        // Every instruction adds at most one object, and their number is limited.
        (self.nodes.len() - 1) as Id
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
            .ok_or_else(|| PickleError::from("an instruction without its operands"))
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
            b'(' if self.marks.len() < MAX_MARKS => self.marks.push(self.stack.len()),
            b'(' => {
                let problem =
                    format!("found more than {MAX_MARKS} open marks, allowed: at most as many");
                return Err(problem.into());
            }
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
            0x8d => {
                let length = u64::from_le_bytes(self.array()?);
                self.text(length)?;
            }
            0x8c | b'U' => {
                let [length] = self.array()?;
                self.text(u64::from(length))?;
            }
            b'B' => {
                let length = u32::from_le_bytes(self.array()?);
                self.skip(u64::from(length))?;
                self.push(Node::Bytes);
            }
            b'C' => {
                let [length] = self.array()?;
                self.skip(u64::from(length))?;
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
            b'Q' => {
                let id = self.pop()?;
                self.push(Node::Persistent(id));
            }
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let function = self.pop()?;
                let result = self.call(function, arguments)?;
                self.stack.push(result);
            }
            b'b' => {
                let state = self.pop()?;
                let object = self.top()?;
                match &mut self.nodes[object as usize] {
                    Node::Object(_, attributes) => *attributes = Some(state),
                    // Python hangs `_metadata` on the dictionary of a state dict.
                    Node::Dict(_) | Node::Opaque(_) => {}
                    _ => return Err("attributes of something that has none".into()),
                }
            }
            other => {
                return Err(format!(
                    "the pickle holds the instruction 0x{other:02x}, which Python writes for other objects than data"
                )
                .into());
            }
        }
        Ok(())
    }

    fn append(&mut self, items: &[Id]) -> Result<()> {
        let list = self.top()?;
        match &mut self.nodes[list as usize] {
            Node::List(list) => list.extend(items),
            _ => return Err("an item for something that is no list".into()),
        }
        Ok(())
    }

    /// Alternating keys and values for the dictionary on top.
    fn set_items(&mut self, items: &[Id]) -> Result<()> {
        let (pairs, rest) = items.as_chunks::<2>();
        let dict = self.top()?;
        match &mut self.nodes[dict as usize] {
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
        match &self.nodes[id as usize] {
            Node::Text(text) => Ok(text.clone()),
            _ => Err("a name that is no text".into()),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let path = format!("{module}.{name}");
        let Some(meaning) = (self.rules.meaning)(module, name) else {
            return Err(format!(
                "it asks to run `{path}`, which is refused: only {}",
                self.rules.allowed
            )
            .into());
        };
        self.push(Node::Global(meaning, path.into()));
        Ok(())
    }

    /// What becomes of a call of a function or class on the list.
    fn call(&mut self, function: Id, arguments: Id) -> Result<Id> {
        let Node::Tuple(items) = &self.nodes[arguments as usize] else {
            return Err("arguments that are no tuple".into());
        };
        let Node::Global(meaning, path) = &self.nodes[function as usize] else {
            return Err("a call of something that is no function".into());
        };
        let (meaning, path) = (*meaning, path.clone());
        let node = match meaning {
            Meaning::Dict => {
                if items.iter().any(|id| !self.empty_default(*id)) {
                    return Err(format!("`{path}` with initial items is not read").into());
                }
                Node::Dict(Vec::new())
            }
            Meaning::Object => Node::Object(path, None),
            Meaning::Function => Node::Call(path, arguments),
            Meaning::Opaque => Node::Opaque(path),
            Meaning::Constant => return Err(format!("a call of `{path}` is refused").into()),
        };
        Ok(self.add(node))
    }

    /// Arguments with which a dictionary starts empty: nothing to put in, or the class of missing values.
    fn empty_default(&self, id: Id) -> bool {
        match &self.nodes[id as usize] {
            Node::None | Node::Global(_, _) => true,
            Node::List(items) | Node::Tuple(items) => items.is_empty(),
            _ => false,
        }
    }
}
