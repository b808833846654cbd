//! What lies in a folder.

use std::ffi::OsStr;
use std::fs::{self, FileType};
use std::path::{Path, PathBuf};

use crate::error::DataError;

/// A file or folder in a folder.
pub struct Entry {
    /// Its path.
    pub path: PathBuf,
    /// Whether it is a folder, or a link to one.
    pub is_folder: bool,
}

/// The files and folders in a folder, sorted by name.
pub fn entries(folder: &Path) -> Result<Vec<Entry>, DataError> {
    let fail = |source| DataError::Io {
        path: folder.to_path_buf(),
        source,
    };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        let kind = entry.file_type().map_err(fail)?;
        // A broken link counts as a file: if it is named as an image it is listed, and reading it reports the error.
        let is_folder = if kind.is_symlink() {
            fs::metadata(&path)
                .map(|found| found.file_type())
                .as_ref()
                .is_ok_and(FileType::is_dir)
        } else {
            kind.is_dir()
        };
        entries.push(Entry { path, is_folder });
    }
    entries.sort_by(|a, b| a.path.file_name().cmp(&b.path.file_name()));
    Ok(entries)
}

/// The absolute path without links.
pub fn canonical(path: &Path) -> Result<PathBuf, DataError> {
    fs::canonicalize(path).map_err(|source| DataError::Io {
        path: path.to_path_buf(),
        source,
    })
}

/// Whether a name begins with a dot. Operating systems and editors leave such files behind, some of them with the extension
/// of an image (`._photo.jpg`).
pub fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// The name of a file or folder.
pub fn utf8_name(path: &Path) -> Result<&str, DataError> {
    let name = path.file_name().and_then(OsStr::to_str);
    name.ok_or_else(|| DataError::NotUtf8 {
        path: path.to_path_buf(),
    })
}
