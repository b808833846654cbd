//! Files that are kept open.

use std::collections::HashMap;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Files that are kept open, because many images lie in each.
pub(crate) struct OpenFiles<T> {
    files: OnceLock<Mutex<HashMap<PathBuf, Arc<T>>>>,
}

impl<T> OpenFiles<T> {
    /// Files that are kept open at the same time.
    const MOST: usize = 64;

    /// None yet.
    pub const fn new() -> Self {
        Self {
            files: OnceLock::new(),
        }
    }

    /// The file of a path, opened by `open` unless it is open already.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn get(&self, path: &Path, open: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let files = || {
            self.files
                .get_or_init(Mutex::default)
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(file) = files().get(path) {
            return Ok(file.clone());
        }
        let file = Arc::new(open()?);
        let mut files = files();
        if files.len() >= Self::MOST {
            files.clear();
        }
        // Another thread may have opened it meanwhile; all should share one.
        Ok(files.entry(path.to_path_buf()).or_insert(file).clone())
    }
}
