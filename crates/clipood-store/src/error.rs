//! Errors of store operations, and which of them are worth a retry.

use std::error::Error as StdError;
use std::io;

use crate::damage::Damage;
use crate::difference::Difference;

/// The result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed store operation. Messages contain full paths: a file path on local disk, `scheme://bucket/key` elsewhere.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The argument of [`Store::open`](crate::Store::open) is not a usable location.
    #[error("{location:?} is not a usable store location: {reason}")]
    Location {
        /// The argument.
        location: String,
        /// What is wrong with it, and what to use instead.
        reason: String,
    },

    /// A path inside the store with empty segments, `.`, `..` or control characters, or a name reserved on local disk.
    #[error("{path:?} is not a valid path inside a store: {reason}")]
    InvalidPath {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A stage, unit key or fingerprint that cannot become the name of a record.
    #[error("{what} {name:?} cannot name a commit record: {reason}")]
    InvalidName {
        /// `stage`, `unit` or `fingerprint`.
        what: &'static str,
        /// The name as given.
        name: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A byte range that is reversed or reaches past the object's end.
    #[error("bytes {start}..{end} of {path} do not exist: the object has {size} bytes")]
    Range {
        /// The object.
        path: String,
        /// First byte asked for.
        start: u64,
        /// One past the last byte asked for.
        end: u64,
        /// The object's size in bytes.
        size: u64,
    },

    /// An object that was replaced while it was being read.
    #[error("{path} has changed since it was opened")]
    Changed {
        /// The object.
        path: String,
    },

    /// An object that is larger than the reader allows.
    #[error("{path} has {size} bytes, allowed: at most {limit}")]
    TooLarge {
        /// The object.
        path: String,
        /// Its size in bytes.
        size: u64,
        /// What is allowed.
        limit: u64,
    },

    /// The disk or the quota is full. No partial object is visible under the path.
    #[error("no space left to {action} {path}: free some space and resume")]
    OutOfSpace {
        /// What was being done.
        action: &'static str,
        /// The object.
        path: String,
        /// The store's own error.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },

    /// The location is read-only, or the permission or credential for it is missing.
    #[error(
        "not allowed to {action} {path}: read-only, missing permission, or a file system without hard links"
    )]
    Denied {
        /// What was being done.
        action: &'static str,
        /// The object.
        path: String,
        /// The store's own error.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },

    /// Any other failure of the store; transient ones have been retried.
    #[error("cannot {action} {path} ({attempts} attempt(s))")]
    Operation {
        /// What was being done.
        action: &'static str,
        /// The object.
        path: String,
        /// Number of attempts made.
        attempts: u32,
        /// The store's own error.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },

    /// An object that repeatedly exists when created and is gone when read: another process is deleting files.
    #[error(
        "{path} exists when created and is gone when read: is something else deleting files there?"
    )]
    Unstable {
        /// The object.
        path: String,
    },

    /// The operating system returned no random bytes.
    #[error("the operating system returned no random bytes")]
    Random(#[source] getrandom::Error),

    /// The threads of the asynchronous runtime could not be started.
    #[error("cannot start the store's threads")]
    Runtime(#[source] io::Error),

    /// A blocking call on a thread of an asynchronous runtime, which it would stall.
    #[error("the store blocks, so it cannot be called from inside an asynchronous runtime")]
    InsideRuntime,

    /// A bookkeeping file that does not parse.
    #[error("{path} is not a readable {what}")]
    Json {
        /// The object.
        path: String,
        /// What it should have been: `commit record` or `run file`.
        what: &'static str,
        /// The parser's error.
        #[source]
        source: serde_json::Error,
    },

    /// A bookkeeping file of a newer format.
    #[error(
        "{path} has format version {found}, this program reads up to {supported}: use a newer program"
    )]
    Version {
        /// The object.
        path: String,
        /// The version in the file.
        found: u32,
        /// The newest version this program reads.
        supported: u32,
    },

    /// A part or record that is not what was written.
    #[error(transparent)]
    Damaged(#[from] Box<Damage>),

    /// A `run.json` that is not what was written.
    #[error(
        "{path} is damaged: expected blake3 {expected}, found {found}; restore it from a backup, or move it away and start the run again with its recipe, which keeps what is done"
    )]
    RunFileDamaged {
        /// The `run.json`.
        path: String,
        /// The BLAKE3 that its seal names.
        expected: String,
        /// The BLAKE3 of its bytes.
        found: String,
    },

    /// A part whose unit has no commit record, though an earlier step has seen one.
    #[error(
        "{path} has no commit record any more: another worker has removed it to repeat its unit"
    )]
    NotCommitted {
        /// The part.
        path: String,
    },

    /// A record that does not describe the unit its name belongs to, or not the part that was published.
    #[error("{path} records {found}, expected {expected}")]
    RecordMismatch {
        /// The record.
        path: String,
        /// What the record says.
        found: String,
        /// What it should say.
        expected: String,
    },

    /// A part to be committed whose footer does not contain its unit's fingerprint.
    #[error("part {path} carries {found} in its footer, expected fingerprint {expected}")]
    Footer {
        /// Where the part would have been published.
        path: String,
        /// What its footer says.
        found: String,
        /// The unit's fingerprint.
        expected: String,
    },

    /// The part's name is taken by a part of another fingerprint, which is never overwritten.
    #[error(
        "part {path} exists with fingerprint {found}, expected {expected}: use another run directory, or remove that file if it is stale"
    )]
    OtherFingerprint {
        /// The part.
        path: String,
        /// The fingerprint in the existing part.
        found: String,
        /// The unit's fingerprint.
        expected: String,
    },

    /// The part's name is taken by a file that is not a part, which is never overwritten.
    #[error("{path} exists and is not a part (no readable footer): move it away and resume")]
    ForeignPart {
        /// The file.
        path: String,
    },

    /// The run directory was created with another configuration.
    #[error(
        "{path} was made from another configuration; choose another run directory or restore these fields:{}",
        list(differences)
    )]
    OtherConfiguration {
        /// The `run.json`.
        path: String,
        /// Every field that differs.
        differences: Vec<Difference>,
    },

    /// The directory contains no run.
    #[error("{path} does not exist: this is not a run directory, or its plan was never started")]
    NoRun {
        /// The `run.json` that is missing.
        path: String,
    },
}

fn list(differences: &[Difference]) -> String {
    differences
        .iter()
        .map(|difference| format!("\n  {difference}"))
        .collect()
}

/// Converts an error of object_store; the original is kept as the source.
pub(crate) fn operation(
    action: &'static str,
    path: String,
    attempts: u32,
    error: object_store::Error,
) -> Error {
    let kind = io_error(&error).map(io::Error::kind);
    let refused = matches!(
        error,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }
    );
    let source = Box::new(error);
    match kind {
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Error::OutOfSpace {
            action,
            path,
            source,
        },
        Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            Error::Denied {
                action,
                path,
                source,
            }
        }
        _ if refused => Error::Denied {
            action,
            path,
            source,
        },
        _ => Error::Operation {
            action,
            path,
            attempts,
            source,
        },
    }
}

/// Whether an operation that failed with this error is worth a retry.
///
/// Definite answers of the store (not found, exists, refused, not supported) and states of the disk that need intervention
/// (full, read-only, a file in place of a directory) are not. Network errors, interruptions and every error of a remote
/// store without an `io::Error` are: object_store's clients report no finer kind, and a few useless retries cost seconds.
pub(crate) fn is_transient(error: &object_store::Error) -> bool {
    let object_store::Error::Generic { store, .. } = error else {
        return false;
    };
    match io_error(error) {
        Some(cause) => !matches!(
            cause.kind(),
            io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::InvalidFilename
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::FileTooLarge
                | io::ErrorKind::Unsupported
        ),
        None => *store != "LocalFileSystem",
    }
}

fn io_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(store: &'static str, kind: io::ErrorKind) -> object_store::Error {
        let source = Box::new(io::Error::from(kind));
        object_store::Error::Generic { store, source }
    }

    #[test]
    fn kinds_decide_message_and_retry() {
        let full = generic("LocalFileSystem", io::ErrorKind::StorageFull);
        assert!(!is_transient(&full));
        let message = operation("write", "/run/a b".into(), 1, full).to_string();
        assert!(
            message.contains("no space left to write /run/a b"),
            "{message}"
        );

        let read_only = generic("LocalFileSystem", io::ErrorKind::ReadOnlyFilesystem);
        assert!(!is_transient(&read_only));
        assert!(matches!(
            operation("write", "/run/a".into(), 1, read_only),
            Error::Denied { .. }
        ));

        assert!(is_transient(&generic("S3", io::ErrorKind::TimedOut)));
        assert!(is_transient(&generic(
            "LocalFileSystem",
            io::ErrorKind::NotFound
        )));
        let throttled = object_store::Error::Generic {
            store: "S3",
            source: "slow down".into(),
        };
        assert!(is_transient(&throttled));
        let local = object_store::Error::Generic {
            store: "LocalFileSystem",
            source: "bad name".into(),
        };
        assert!(!is_transient(&local));
    }
}
