//! What lies in a folder.

use std::ffi::OsStr;
use std::fs::{self, FileType, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use clipood_core::is_url;

use crate::error::DataError;
use crate::remote;

/// A file or folder in a folder.
pub struct Entry {
    /// Its path.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
}

/// What an entry of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder, or a link to one.
    Folder,
    /// A link that leads nowhere or in a circle.
    Broken,
    /// Anything else. What is no regular file is reported when it is read.
    File,
}

/// Tells folders apart, whatever path leads to them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FolderId {
    /// Device and inode.
    Inode(u64, u64),
    /// The path without links, for file systems without inodes, or a URL.
    Path(PathBuf),
}

/// The files and folders in a folder, sorted by name. Files are not opened, and only links are looked up.
pub fn entries(folder: &Path) -> Result<Vec<Entry>, DataError> {
    let fail = |source| io_error(folder, source);
    if is_url(folder) {
        return remote::entries(folder).map_err(fail);
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        let found = entry.file_type().map_err(fail)?;
        let kind = match found.is_symlink() {
            // A file is listed if it is named as an image, whatever becomes of it: reading it reports the error.
            true => match fs::metadata(&path) {
                Ok(found) => kind_of(found.file_type()),
                Err(_) => Kind::Broken,
            },
            false => kind_of(found),
        };
        entries.push(Entry { path, kind });
    }
    entries.sort_by(|a, b| a.path.file_name().cmp(&b.path.file_name()));
    Ok(entries)
}

fn kind_of(found: FileType) -> Kind {
    match found.is_dir() {
        true => Kind::Folder,
        false => Kind::File,
    }
}

/// The error of a folder that cannot be read.
fn io_error(folder: &Path, source: io::Error) -> DataError {
    let path = folder.to_path_buf();
    // Too long a path; names in it are not invalid, for they come from the folders above.
    match source.kind() == ErrorKind::InvalidFilename {
        true => DataError::LongPath { path, source },
        false => DataError::Io { path, source },
    }
}

/// The identity of a folder, in time that does not grow with its depth.
pub fn identity(folder: &Path) -> Result<FolderId, DataError> {
    if is_url(folder) {
        return Ok(FolderId::Path(folder.to_path_buf()));
    }
    let found = fs::metadata(folder).map_err(|source| io_error(folder, source))?;
    match inode(&found) {
        Some(id) => Ok(id),
        None => fs::canonicalize(folder)
            .map(FolderId::Path)
            .map_err(|source| io_error(folder, source)),
    }
}

/// The identities of a folder and of those that contain it.
pub fn identities_above(folder: &Path) -> Result<Vec<FolderId>, DataError> {
    // There are no links in an object store.
    if is_url(folder) {
        return Ok(Vec::new());
    }
    let whole = fs::canonicalize(folder).map_err(|source| io_error(folder, source))?;
    whole.ancestors().map(identity).collect()
}

#[cfg(unix)]
fn inode(found: &Metadata) -> Option<FolderId> {
    use std::os::unix::fs::MetadataExt;
    // Some network file systems number nothing.
    (found.ino() != 0).then(|| FolderId::Inode(found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> Option<FolderId> {
    None
}

/// Whether a file or folder is left behind by an operating system or an editor. Some of them have the extension of an image
/// (`._photo.jpg`, thumbnails in `@eaDir`). A name that begins with a dot is hidden.
pub fn is_junk(path: &Path) -> bool {
    const NAMES: [&str; 9] = [
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
        "@eadir",
        "__macosx",
        "$recycle.bin",
        "system volume information",
        "lost+found",
    ];
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".") || NAMES.iter().any(|n| name.eq_ignore_ascii_case(n))
}

/// The name of a class folder, which becomes the name of a class.
///
/// # Errors
/// [`DataError::ClassFolderName`] if it is not UTF-8 or holds a control character.
pub fn class_folder_name(path: &Path) -> Result<&str, DataError> {
    let name = path.file_name().and_then(OsStr::to_str);
    let plain = name.filter(|name| !name.chars().any(char::is_control));
    plain.ok_or_else(|| DataError::ClassFolderName {
        path: path.to_path_buf(),
        problem: match name {
            None => "is not UTF-8",
            Some(_) => "holds a control character",
        },
    })
}
