//! The cache on disk, in the layout of `huggingface_hub`:
//!
//! ```text
//! models--organisation--name/refs/main                     the last known commit of `main`
//! models--organisation--name/blobs/<etag>                  content
//! models--organisation--name/blobs/<etag>.incomplete       content being downloaded
//! models--organisation--name/snapshots/<commit>/<file>     link to ../../blobs/<etag>
//! .locks/models--organisation--name/<etag>.lock            held while a blob is downloaded
//! ```

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Result, io};
use crate::name::Name;

/// Deepest folder of a snapshot that is looked into.
const DEPTH: usize = 8;

/// Makes the temporary file names of this process unique.
static STAGED: AtomicUsize = AtomicUsize::new(0);

/// One repository in the cache.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub fn new(root: &Path, name: &Name) -> Self {
        Self {
            folder: root.join(name.folder()),
            locks: root.join(".locks").join(name.folder()),
        }
    }

    /// Folder of the files of a commit.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The commit of a branch or tag when it was last looked up.
    pub fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Stores the commit of a branch or tag.
    pub fn remember(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        make_parent(&path)?;
        if fs::read_to_string(&path).is_ok_and(|text| text.trim() == commit) {
            return Ok(());
        }
        let number = STAGED.fetch_add(1, Ordering::Relaxed);
        let staged = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
        fs::write(&staged, commit).map_err(io("write", &staged))?;
        fs::rename(&staged, &path).map_err(io("write", &path))
    }

    /// Names of the files in a snapshot and in its folders, sorted, without dangling links.
    pub fn files(&self, commit: &str) -> Vec<String> {
        let mut files = Vec::new();
        add_files(&self.snapshot(commit), "", DEPTH, &mut files);
        files.sort();
        files
    }

    pub fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    pub fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Waits until no other process downloads the blob. The lock is released when the file is closed, also if the process dies.
    pub fn lock(&self, etag: &str) -> Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let mut options = OpenOptions::new();
        let file = options.create(true).write(true).truncate(false).open(&path);
        let file = file.map_err(io("open", &path))?;
        file.lock().map_err(io("lock", &path))?;
        Ok(file)
    }

    /// Adds a file to a snapshot as a link to its blob, or as a copy where links are not supported.
    pub fn link(&self, commit: &str, file: &str, etag: &str) -> Result<()> {
        let path = self.snapshot(commit).join(file);
        make_parent(&path)?;
        if path.exists() {
            return Ok(());
        }
        // A dangling link would be in the way.
        if path.is_symlink() {
            fs::remove_file(&path).map_err(io("replace", &path))?;
        }
        let up = "../".repeat(2 + file.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        match symlink(&target, &path) {
            Ok(()) => Ok(()),
            // Another process has created it.
            Err(_) if path.exists() => Ok(()),
            // The file system does not support links.
            Err(_) => {
                let blob = self.blob(etag);
                fs::copy(&blob, &path)
                    .map_err(io("write", &path))
                    .map(|_| ())
            }
        }
    }
}

/// Adds the files below a folder, with their paths below the first one. Folders of a snapshot are no links.
fn add_files(folder: &Path, prefix: &str, depth: usize, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = entry.path();
        if path.is_file() {
            files.push(format!("{prefix}{name}"));
        } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add_files(&path, &format!("{prefix}{name}/"), depth - 1, files);
        }
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// 40 hexadecimal digits.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

pub(crate) fn make_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(folder) => fs::create_dir_all(folder).map_err(io("create", folder)),
        None => Ok(()),
    }
}
