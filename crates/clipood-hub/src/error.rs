//! Errors of the resolution of a name.

use std::io;
use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, HubError>;

/// The reason why a name could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The name is not valid on the hub.
    #[error("{kind} name `{name}`: {problem}")]
    Name {
        /// `model` or `dataset`.
        kind: &'static str,
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A limit in the environment that is not a number.
    #[error("{name}={value}: expected a whole number, not negative")]
    Option {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// The caller asked to stop, by the answer to an [`Event`](crate::Event).
    #[error("the download was stopped; it goes on where it stopped")]
    Stopped,
    /// The files are not in the cache and cannot be downloaded.
    #[error(
        "{name} is not in the cache and {why}; fetch it where there is a network and place its files ({files}) in {place}, or in any \
         folder, and give that folder instead of the name"
    )]
    NotCached {
        /// What it is, with its repository and revision.
        name: String,
        /// `HF_HUB_OFFLINE` is set, or the hub cannot be reached.
        why: String,
        /// The missing files.
        files: String,
        /// The folder of the cache for them.
        place: PathBuf,
        /// Whether the hub must not be asked, so that trying again does not help.
        offline: bool,
    },
    /// The hub requires authentication.
    #[error(
        "{url} answers {status}: the repository is private, gated or does not exist; set HF_TOKEN to a token that may read it \
         (gated ones also want their terms accepted on the hub's page)"
    )]
    Unauthorized {
        /// The requested URL.
        url: String,
        /// 401 or 403.
        status: u16,
    },
    /// No such repository, revision or file.
    #[error("{url} answers 404: no such {what}")]
    NotFound {
        /// The requested URL.
        url: String,
        /// `repository`, `revision` or `file`.
        what: &'static str,
    },
    /// An unexpected response, or a failure that remained after several attempts.
    #[error("{url}: {problem}")]
    Http {
        /// The requested URL.
        url: String,
        /// What went wrong.
        problem: String,
    },
    /// The repository contains no checkpoint in a supported format.
    #[error("`{name}` contains no CLIP checkpoint: {problem}")]
    NoCheckpoint {
        /// Repository and revision.
        name: String,
        /// What is missing.
        problem: String,
    },
    /// The repository has no such Parquet files.
    #[error("dataset `{name}`: {problem}")]
    NoData {
        /// Repository and revision.
        name: String,
        /// What is there, and what was expected.
        problem: String,
    },
    /// A downloaded file does not have the hash that the hub states.
    #[error(
        "{url}: the {hash} of the downloaded file is {found}, expected {expected} as stated by the hub; the file was deleted, \
         try again"
    )]
    Corrupt {
        /// The requested URL.
        url: String,
        /// `sha256` or `git blob sha1`.
        hash: &'static str,
        /// The hash stated by the hub.
        expected: String,
        /// The hash of the downloaded file.
        found: String,
    },
    /// The cache cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `read`, `write`, ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// Converts an I/O error, for `map_err`.
pub(crate) fn io(
    action: &'static str,
    path: &std::path::Path,
) -> impl FnOnce(io::Error) -> HubError {
    let path = path.to_path_buf();
    move |source| HubError::Io {
        action,
        path,
        source,
    }
}
