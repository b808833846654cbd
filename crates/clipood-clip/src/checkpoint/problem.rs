//! What is wrong with the bytes of a checkpoint, before it is known which file they came from.

use crate::error::ClipError;

/// A reason, in words.
#[derive(Debug)]
pub(super) struct Problem(String);

/// Result of the readers of bytes.
pub(super) type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    /// The error of the file `origin`.
    pub(super) fn of(self, origin: &str) -> ClipError {
        ClipError::Format {
            origin: origin.to_owned(),
            reason: self.0,
        }
    }

    /// The same reason, with the part of the file that it concerns.
    pub(super) fn within(self, part: &str) -> Self {
        Self(format!("{part}: {}", self.0))
    }
}

impl From<String> for Problem {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl From<&str> for Problem {
    fn from(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<clipood_core::pickle::PickleError> for Problem {
    fn from(error: clipood_core::pickle::PickleError) -> Self {
        Self(error.to_string())
    }
}
