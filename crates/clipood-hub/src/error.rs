//! What can go wrong between a name and its files.

use std::io;
use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, HubError>;

/// Why a name gave no files.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The name cannot be one of the hub's.
    #[error("model name `{name}`: {problem}")]
    Name {
        /// As given.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing may be fetched, and the cache does not have it.
    #[error(
        "model `{name}` is not in the cache and {why}; fetch it where there is a network and place its files ({files}) in \
         {place}, or in any folder, and give that folder as the model"
    )]
    NotCached {
        /// Repository and revision.
        name: String,
        /// `HF_HUB_OFFLINE` is set, or the hub cannot be reached.
        why: String,
        /// Which files.
        files: String,
        /// The folder of the cache.
        place: PathBuf,
    },
    /// The hub wants to know who asks.
    #[error(
        "{url} answers {status}: the repository is private, gated or does not exist; set HF_TOKEN to a token that may read it \
         (gated ones also want their terms accepted on the hub's page)"
    )]
    Unauthorized {
        /// What was asked for.
        url: String,
        /// 401 or 403.
        status: u16,
    },
    /// No such repository, revision or file.
    #[error("{url} answers 404: no such {what}")]
    NotFound {
        /// What was asked for.
        url: String,
        /// `repository`, `revision` or `file`.
        what: &'static str,
    },
    /// Another answer than expected, also after several attempts.
    #[error("{url}: {problem}")]
    Http {
        /// What was asked for.
        url: String,
        /// What came.
        problem: String,
    },
    /// The repository holds no checkpoint in a format that is read.
    #[error("`{name}` holds no CLIP checkpoint: {problem}")]
    NoCheckpoint {
        /// Repository and revision.
        name: String,
        /// What is missing.
        problem: String,
    },
    /// A file came whole, and is not the one that the hub describes.
    #[error(
        "{url}: the {hash} of what was fetched is {found}, the hub says {expected}; it was thrown away, try again"
    )]
    Corrupt {
        /// What was asked for.
        url: String,
        /// `sha256` or `git blob sha1`.
        hash: &'static str,
        /// Stated.
        expected: String,
        /// Computed.
        found: String,
    },
    /// The cache cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `read`, `write`, ...
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// For `map_err`.
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
