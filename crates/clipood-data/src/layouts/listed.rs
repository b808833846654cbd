//! Paths that a list of images names.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clipood_core::{is_url, key_part, shown};
use rayon::prelude::*;

use crate::error::DataError;
use crate::folder::{Kind, entries};
use crate::record::Split;

/// A listed path without `.` and `..`: below the folder that the paths start from. Backslashes are read as slashes in a path
/// that has no others, as lists that were made on Windows have them.
///
/// # Errors
/// What is wrong with it: an absolute path, a URL, or one that leads out of the folder.
pub(super) fn below(path: &str) -> Result<String, String> {
    let wrong = |what| {
        Err(format!(
            "found {what} `{path}`, expected a path below the folder of the images"
        ))
    };
    if is_url(Path::new(path)) {
        return wrong("the URL");
    }
    if path.starts_with('/') {
        return wrong("the absolute path");
    }
    if path.get(1..3) == Some(":\\") {
        return wrong("the absolute path");
    }
    let separator = if path.contains('/') { '/' } else { '\\' };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split(separator) {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return wrong("the path");
                }
            }
            _ => parts.push(part),
        }
    }
    if parts.is_empty() {
        return wrong("the path");
    }
    Ok(parts.join("/"))
}

/// A path with forward slashes as the end of a key.
pub(super) fn key_of(path: &str) -> String {
    let parts = path.split('/').map(|part| key_part(part.as_ref()));
    parts.collect::<Vec<_>>().join("/")
}

/// The split of a word in a column of splits.
///
/// # Errors
/// Another word.
pub(super) fn split_named(word: &str) -> Result<Split, String> {
    match word.to_ascii_lowercase().as_str() {
        "train" | "training" => Ok(Split::Train),
        "val" | "valid" | "validation" | "dev" => Ok(Split::Val),
        "test" | "testing" => Ok(Split::Test),
        _ => Err(format!("found split `{word}`, expected train, val or test")),
    }
}

/// The files below a folder that a list names.
pub(super) struct Files {
    base: PathBuf,
    /// For each folder in which a listed file is missing: the files in the folders of that folder, by name; `None` for a
    /// name that several have.
    nested: HashMap<PathBuf, HashMap<OsString, Option<PathBuf>>>,
    mapped: usize,
    missing: usize,
    first_missing: Option<PathBuf>,
}

impl Files {
    pub fn new(base: PathBuf) -> Self {
        Self {
            base,
            nested: HashMap::new(),
            mapped: 0,
            missing: 0,
            first_missing: None,
        }
    }

    /// The file of each name.
    pub fn find(&mut self, names: &[String]) -> Result<Vec<PathBuf>, DataError> {
        let base = &self.base;
        let paths = names.iter().map(|name| base.join(name));
        if is_url(base) {
            // Each request costs time: what is missing is found when it is read.
            return Ok(paths.collect());
        }
        let found: Vec<(PathBuf, bool)> = paths
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(|path| {
                let exists = std::fs::symlink_metadata(&path).is_ok();
                (path, exists)
            })
            .collect();
        let mut all = Vec::with_capacity(found.len());
        for (path, exists) in found {
            match exists {
                true => all.push(path),
                false => all.push(self.elsewhere(path)?),
            }
        }
        Ok(all)
    }

    fn elsewhere(&mut self, path: PathBuf) -> Result<PathBuf, DataError> {
        let folder = path.parent().unwrap_or(&self.base).to_path_buf();
        if !self.nested.contains_key(&folder) {
            let files = nested_files(&folder)?;
            self.nested.insert(folder.clone(), files);
        }
        let name = path.file_name().unwrap_or_default();
        if let Some(Some(found)) = self.nested[&folder].get(name) {
            self.mapped += 1;
            return Ok(found.clone());
        }
        self.missing += 1;
        self.first_missing.get_or_insert_with(|| path.clone());
        Ok(path)
    }

    pub fn notes(&self) -> Vec<String> {
        let mapped = (self.mapped > 0).then(|| {
            format!(
                "{} listed images were found in a folder beside where they are listed",
                self.mapped
            )
        });
        let missing = self.first_missing.as_ref().map(|first| {
            format!(
                "{} listed images do not exist; the first is {}",
                self.missing,
                shown(first)
            )
        });
        mapped.into_iter().chain(missing).collect()
    }
}

/// The files in the folders of a folder, by name.
fn nested_files(folder: &Path) -> Result<HashMap<OsString, Option<PathBuf>>, DataError> {
    let mut files = HashMap::new();
    if !folder.is_dir() {
        return Ok(files);
    }
    for class in entries(folder)? {
        if class.kind != Kind::Folder {
            continue;
        }
        for entry in entries(&class.path)? {
            if entry.kind == Kind::File {
                let name = entry.path.file_name().unwrap_or_default().to_os_string();
                let first = files.insert(name.clone(), Some(entry.path));
                if first.is_some() {
                    files.insert(name, None);
                }
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_path_stays_below_its_folder() {
        assert_eq!(below("./a//b/../c.jpg").unwrap(), "a/c.jpg");
        assert_eq!(below("a\\b.jpg").unwrap(), "a/b.jpg");
        for wrong in [
            "C:\\a.jpg",
            "/a/b.jpg",
            "../a.jpg",
            "a/../../b.jpg",
            ".",
            "s3://b/c.jpg",
        ] {
            assert!(below(wrong).is_err(), "{wrong}");
        }
    }
}
