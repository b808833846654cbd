//! Errors in identifiers, recipes and manifests.

use std::fmt;

/// The location of a mistake: a file and, if known, a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, or another name of the text, as passed by the caller.
    pub origin: String,
    /// Line, counted from 1; absent for values that are in no file (defaults, overrides).
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
    /// Text that does not parse.
    #[error("{place}: {message}")]
    Syntax {
        /// File and line.
        place: Place,
        /// The message of the parser.
        message: String,
    },
    /// A key that does not exist in its section.
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
    /// A required key that is missing.
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
    /// A word that is not in a fixed set.
    #[error("unknown {what} `{found}`; {hint}")]
    UnknownName {
        /// What the word should be, such as `method`.
        what: &'static str,
        /// The word as written.
        found: String,
        /// The nearest valid word, and all valid words.
        hint: String,
    },
    /// An invalid image key.
    #[error("image key `{key}`: {problem}")]
    ImageKey {
        /// The invalid key.
        key: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A fingerprint that is not 64 hexadecimal digits.
    #[error("fingerprint `{text}`: expected 64 hexadecimal digits")]
    Fingerprint {
        /// The text found.
        text: String,
    },
    /// A value in a fingerprint that has no JSON form.
    #[error("`{name}` has no JSON form: {message}")]
    NotJson {
        /// Name of the field.
        name: String,
        /// The message of the serialiser.
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
