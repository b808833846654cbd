//! What the parser expects at a place of a document, found by asking it.
//!
//! A type that derives `Deserialize` tells the deserializer what it wants to read: a table with these keys, one of these words, a
//! number. The deserializer of this module leads it to one place, writes down what it asks for there, and stops.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess};
use serde::de::{Deserializer, Error, Visitor};
use serde_json::Value;

/// What is expected at a place.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A table with these keys and no others; `name` is that of the type in the code.
    Table {
        name: &'static str,
        keys: &'static [&'static str],
    },
    /// One of these words.
    Choice {
        name: &'static str,
        words: &'static [&'static str],
    },
    /// A list, of this length if there is one.
    List { length: Option<usize> },
    /// A table with any keys.
    Map,
    /// A text.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number, at least 0 if `unsigned`.
    Integer { unsigned: bool },
    /// A number.
    Number,
    /// More than one of these.
    Any,
}

/// One step from the document towards a place in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// To the value of this key.
    Key(&'static str),
    /// To an entry of a list, or of a table with any keys.
    Entry,
}

/// The answer of the parser.
#[derive(Debug, Default)]
pub struct Answer {
    /// What it expects at the place; `None` if there is no such place.
    pub kind: Option<Kind>,
    /// Its message about the table that was offered there; `None` if it took the table, or none was offered.
    pub problem: Option<String>,
}

/// Asks the parser of `T` what it expects at the end of `steps`, and offers it a table there if one is given.
pub fn ask<T: DeserializeOwned>(steps: &[Step], offered: Option<&Value>) -> Answer {
    let mut answer = Answer::default();
    let probe = Probe {
        steps,
        offered,
        answer: &mut answer,
    };
    // Reading always stops with an error; what counts is in the answer.
    let _ = T::deserialize(probe);
    answer
}

/// Reading ends here.
#[derive(Debug)]
struct Stop;

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Stop {}

impl Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Stop
    }
}

struct Probe<'p> {
    steps: &'p [Step],
    offered: Option<&'p Value>,
    answer: &'p mut Answer,
}

impl<'p> Probe<'p> {
    /// The end of a branch: the answer, if no step is left.
    fn arrive<T>(self, kind: Kind) -> Result<T, Stop> {
        if self.steps.is_empty() {
            self.answer.kind = Some(kind);
        }
        Err(Stop)
    }

    /// What follows behind an entry; the end of the branch if the place is here.
    fn entry(self, kind: Kind) -> Result<One<'p>, Stop> {
        match self.steps {
            [Step::Entry, rest @ ..] => Ok(self.one("x", rest)),
            _ => self.arrive(kind),
        }
    }

    fn one(self, key: &'p str, rest: &'p [Step]) -> One<'p> {
        let probe = Some(Probe {
            steps: rest,
            ..self
        });
        One { key, probe }
    }
}

macro_rules! ends {
    ($($method:ident => $kind:expr),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
            self.arrive($kind)
        }
    )*};
}

const SIGNED: Kind = Kind::Integer { unsigned: false };
const UNSIGNED: Kind = Kind::Integer { unsigned: true };

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Stop;

    ends! {
        deserialize_any => Kind::Any,
        deserialize_ignored_any => Kind::Any,
        deserialize_identifier => Kind::Any,
        deserialize_unit => Kind::Any,
        deserialize_bytes => Kind::Any,
        deserialize_byte_buf => Kind::Any,
        deserialize_bool => Kind::Bool,
        deserialize_i8 => SIGNED,
        deserialize_i16 => SIGNED,
        deserialize_i32 => SIGNED,
        deserialize_i64 => SIGNED,
        deserialize_u8 => UNSIGNED,
        deserialize_u16 => UNSIGNED,
        deserialize_u32 => UNSIGNED,
        deserialize_u64 => UNSIGNED,
        deserialize_f32 => Kind::Number,
        deserialize_f64 => Kind::Number,
        deserialize_char => Kind::Text,
        deserialize_str => Kind::Text,
        deserialize_string => Kind::Text,
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: V,
    ) -> Result<V::Value, Stop> {
        self.arrive(Kind::Any)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_seq(self.entry(Kind::List { length: None })?)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let length = Some(length);
        visitor.visit_seq(self.entry(Kind::List { length })?)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_map(self.entry(Kind::Map)?)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        match (self.steps, self.offered) {
            ([Step::Key(key), rest @ ..], _) => visitor.visit_map(self.one(key, rest)),
            ([], Some(table)) => {
                let read = table.clone().deserialize_struct(name, keys, visitor);
                self.answer.problem = read.err().map(|error| error.to_string());
                self.arrive(Kind::Table { name, keys })
            }
            _ => self.arrive(Kind::Table { name, keys }),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        words: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Stop> {
        self.arrive(Kind::Choice { name, words })
    }
}

/// A table or list with a single entry, which is probed.
struct One<'p> {
    key: &'p str,
    probe: Option<Probe<'p>>,
}

impl<'de> MapAccess<'de> for One<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Stop> {
        if self.probe.is_none() {
            return Ok(None);
        }
        let key: StrDeserializer<'_, Stop> = self.key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        seed.deserialize(self.probe.take().ok_or(Stop)?)
    }
}

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Stop> {
        match self.probe.take() {
            Some(probe) => seed.deserialize(probe).map(Some),
            None => Ok(None),
        }
    }
}
