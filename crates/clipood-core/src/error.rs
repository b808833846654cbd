//! What can be wrong with an identifier, a recipe or a manifest.

use std::fmt;

/// Where a mistake stands: a file, and a line of it where one can be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, or another name of the text, as the caller gave it.
    pub origin: String,
    /// Line, counted from 1; absent for values that no file holds (defaults, overrides).
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.origin),
            None => f.write_str(&self.origin),
        }
    }
}

/// A mistake in an identifier, a recipe or a manifest.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CoreError {
    /// The text is not TOML (or JSON, for a stored recipe).
    #[error("{place}: {message}")]
    Syntax {
        /// File and line.
        place: Place,
        /// The parser's explanation.
        message: String,
    },
    /// A key that its section does not have.
    #[error("{place}: unknown key `{key}`{}; {hint}", in_section(.section))]
    UnknownKey {
        /// File and line.
        place: Place,
        /// The section, empty at the top level.
        section: String,
        /// The key as written.
        key: String,
        /// The nearest valid key, or the list of valid ones.
        hint: String,
    },
    /// A key that must be there is not.
    #[error("{place}: missing key `{key}`{}", in_section(.section))]
    MissingKey {
        /// File and line of the section.
        place: Place,
        /// The section, empty at the top level.
        section: String,
        /// The key.
        key: String,
    },
    /// A value of the wrong type, out of range, or in conflict with another.
    #[error("{place}: key `{key}`: {problem}")]
    Value {
        /// File and line.
        place: Place,
        /// Full key, `section.key`.
        key: String,
        /// What was found and what is allowed.
        problem: String,
    },
    /// A word that is none of a fixed set.
    #[error("unknown {what} `{found}`; {hint}")]
    UnknownName {
        /// What the word should be, such as `method`.
        what: &'static str,
        /// The word as written.
        found: String,
        /// The nearest valid word and the valid ones.
        hint: String,
    },
    /// Not a valid image key.
    #[error("image key `{key}`: {problem}")]
    ImageKey {
        /// The key, or what would have become one.
        key: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Not 64 hexadecimal digits.
    #[error("fingerprint `{text}`: expected 64 hexadecimal digits")]
    Fingerprint {
        /// The text found.
        text: String,
    },
    /// A value that has no JSON form entered a fingerprint or a stored recipe.
    #[error("`{name}` has no JSON form: {message}")]
    NotJson {
        /// Name of the field.
        name: String,
        /// The serialiser's explanation.
        message: String,
    },
}

fn in_section(section: &str) -> String {
    if section.is_empty() {
        String::new()
    } else {
        format!(" in [{section}]")
    }
}
