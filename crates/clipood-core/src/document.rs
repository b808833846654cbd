//! TOML text to typed values, with mistakes placed: the line, the full key, the nearest valid word.
//!
//! serde knows the valid keys of every section, but says so in its own words. This module translates them, so the list
//! of keys stands only once, in the types.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::nearest::{hint, hint_with_list};
use crate::{CoreError, Place};

/// A value that is not allowed: which key, and what was found and is allowed.
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

    /// The error of a value that stands in no file.
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

/// serde's message in our words.
fn translate(
    message: &str,
    span: Option<Range<usize>>,
    document: &DeTable<'_>,
    place: impl Fn(Option<usize>) -> Place,
) -> CoreError {
    // The document itself has an empty span: what it lacks stands on no line.
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

/// Rust's names of number types mean nothing to who writes a recipe.
fn friendly_types(message: &str) -> String {
    match message.rsplit_once("expected ") {
        Some((found, "usize" | "u64" | "u32")) => {
            format!("{found}expected a whole number of at least 0")
        }
        Some((found, "f64" | "f32")) => format!("{found}expected a number"),
        _ => message.to_string(),
    }
}

/// The words between backticks.
fn quoted_words(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

/// The line of a byte, counted from 1.
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

/// Where the key `path` (`section.key`) stands, or the nearest section above it that stands anywhere.
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

/// The deepest entry, in any order, that `matches(key, value, full key)`: its full key and its key's span.
fn find(
    table: &DeTable<'_>,
    prefix: &mut Vec<String>,
    matches: &Matches<'_>,
) -> Option<(String, Range<usize>)> {
    for (key, value) in table {
        prefix.push(key.get_ref().to_string());
        // A header's table spans its header only, so its entries are searched whether or not it covers the place.
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
