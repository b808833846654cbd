//! TOML text to typed values; mistakes are reported with their line, full key and the nearest valid word.
//!
//! The valid keys of every section are written only once, in the types. This module obtains them by translating the error
//! messages of serde.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::error::{CoreError, Place};
use crate::nearest::{hint, hint_with_list};

/// A value that is not allowed.
pub(crate) struct Problem {
    /// Full key, `section.key`.
    pub key: String,
    /// What was found and what is allowed.
    pub text: String,
}

impl Problem {
    pub fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        Problem {
            key: key.into(),
            text: text.into(),
        }
    }

    /// The error for a value that is in no file.
    pub fn outside_a_file(self, origin: &str) -> CoreError {
        CoreError::Value {
            place: Place {
                origin: origin.to_string(),
                line: None,
            },
            key: self.key,
            problem: self.text,
        }
    }
}

/// Reads `text` as a `T` and checks it; `origin` names the text in errors.
pub(crate) fn parse<T: DeserializeOwned>(
    text: &str,
    origin: &str,
    check: impl Fn(&T) -> Result<(), Problem>,
) -> Result<T, CoreError> {
    let place = |offset: Option<usize>| Place {
        origin: origin.to_string(),
        line: offset.map(|offset| line_at(text, offset)),
    };
    let document = DeTable::parse(text).map_err(|error| CoreError::Syntax {
        place: place(error.span().map(|span| span.start)),
        message: error.message().to_string(),
    })?;
    let value: T = toml::from_str(text)
        .map_err(|error| translate(error.message(), error.span(), document.get_ref(), place))?;
    check(&value).map_err(|problem| CoreError::Value {
        place: place(offset_of(document.get_ref(), &problem.key)),
        key: problem.key,
        problem: problem.text,
    })?;
    Ok(value)
}

/// Translates a message of serde.
fn translate(
    message: &str,
    span: Option<Range<usize>>,
    document: &DeTable<'_>,
    place: impl Fn(Option<usize>) -> Place,
) -> CoreError {
    // The document itself has an empty span, so a missing top-level key has no line.
    let offset = span.filter(|span| !span.is_empty()).map(|span| span.start);
    let path = offset.map_or_else(String::new, |offset| path_at(document, offset));
    let place = place(offset);
    let words = quoted_words(message);
    match words.as_slice() {
        [key, valid @ ..] if message.starts_with("unknown field") => CoreError::UnknownKey {
            place,
            section: parent(&path).to_string(),
            key: key.to_string(),
            hint: hint(key, valid),
        },
        [key] if message.starts_with("missing field") => CoreError::MissingKey {
            place,
            section: path,
            key: key.to_string(),
        },
        [found, valid @ ..] if message.starts_with("unknown variant") => CoreError::Value {
            place,
            key: path,
            problem: format!("found `{found}`; {}", hint_with_list(found, valid)),
        },
        _ => CoreError::Value {
            place,
            key: path,
            problem: friendly_types(message),
        },
    }
}

/// Replaces the names of number types in Rust, which authors of recipes need not know.
fn friendly_types(message: &str) -> String {
    match message.rsplit_once("expected ") {
        Some((found, "usize" | "u64" | "u32")) => {
            format!("{found}expected a whole number of at least 0")
        }
        Some((found, "f64" | "f32")) => format!("{found}expected a number"),
        _ => message.to_string(),
    }
}

/// The words in backticks.
fn quoted_words(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

/// The line of a byte offset, counted from 1.
pub(crate) fn line_at(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

/// The full key whose name or value covers `offset`; empty if none does.
fn path_at(table: &DeTable<'_>, offset: usize) -> String {
    find(table, &mut Vec::new(), &|key, value, _| {
        key.span().contains(&offset) || value.span().contains(&offset)
    })
    .map_or_else(String::new, |(path, _)| path)
}

/// The offset of the key `path` (`section.key`), or of the nearest enclosing section that is in the document.
fn offset_of(table: &DeTable<'_>, path: &str) -> Option<usize> {
    let mut wanted = path;
    while !wanted.is_empty() {
        let found = find(table, &mut Vec::new(), &|_, _, path| path == wanted);
        if let Some((_, span)) = found {
            return Some(span.start);
        }
        wanted = parent(wanted);
    }
    None
}

type Matches<'m> = dyn Fn(&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>, &str) -> bool + 'm;

/// The deepest entry for which `matches(key, value, full key)` is true: its full key and the span of its key.
fn find(
    table: &DeTable<'_>,
    prefix: &mut Vec<String>,
    matches: &Matches<'_>,
) -> Option<(String, Range<usize>)> {
    for (key, value) in table {
        prefix.push(key.get_ref().to_string());
        // The span of a table covers its header only, so entries are searched even if it does not match.
        let inner = match value.get_ref() {
            DeValue::Table(inner) => find(inner, prefix, matches),
            _ => None,
        };
        let path = prefix.join(".");
        prefix.pop();
        if inner.is_some() {
            return inner;
        }
        if matches(key, value, &path) {
            return Some((path, key.span()));
        }
    }
    None
}
