//! The files that the splits of a dataset consist of.

use std::path::{Path, PathBuf};

use clipood_core::{DatasetManifest, is_url};

use super::class_folder::relative;
use super::pattern::Pattern;
use crate::error::DataError;
use crate::folder::{Kind, entries, is_junk};
use crate::record::Split;

/// The files of one split.
pub(super) struct SplitFiles {
    /// The split; `None` if each image says its own.
    pub split: Option<Split>,
    /// The files, sorted by their paths; at least one.
    pub files: Vec<PathBuf>,
}

/// The files of all splits. `default` lists the patterns of a layout whose manifest names none, each with its split.
///
/// # Errors
/// A folder that cannot be read, a pattern that no file matches.
pub(super) fn split_files(
    manifest: &DatasetManifest,
    root: &Path,
    default: &[(Option<Split>, &str)],
) -> Result<Vec<SplitFiles>, DataError> {
    let mut wanted: Vec<(String, Option<Split>, String)> = Vec::new();
    for (name, pattern) in manifest.split_places() {
        let split = Split::named(name).ok_or_else(|| DataError::UnknownSplit {
            dataset: manifest.name.clone(),
            split: name.clone(),
        })?;
        wanted.push((format!("splits.{name}"), Some(split), text(pattern)));
    }
    if let Some(pattern) = &manifest.files {
        wanted.push(("files".to_string(), None, text(pattern)));
    }
    if wanted.is_empty() {
        let default = default.iter();
        wanted.extend(default.map(|(split, p)| ("root".to_string(), *split, p.to_string())));
    }
    let mut all = Vec::new();
    for (key, split, pattern) in wanted {
        let pattern = Pattern::new(&pattern).map_err(|problem| DataError::Content {
            dataset: manifest.name.clone(),
            place: format!("manifest key `{key}`"),
            problem,
        })?;
        let files = matching(root, &pattern)?;
        let missing = files.iter().find(|file| !is_url(file) && !file.exists());
        let missing = match missing {
            Some(file) => Some(relative(root, file)),
            None => files.is_empty().then(|| pattern.to_string()),
        };
        if let Some(pattern) = missing {
            return Err(DataError::NoFiles {
                dataset: manifest.name.clone(),
                key,
                path: root.to_path_buf(),
                pattern,
            });
        }
        all.push(SplitFiles { split, files });
    }
    Ok(all)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The files below `root` that match, sorted; names that the pattern writes out are not looked up.
fn matching(root: &Path, pattern: &Pattern) -> Result<Vec<PathBuf>, DataError> {
    let mut found = vec![root.to_path_buf()];
    for (place, part) in pattern.parts().enumerate() {
        let is_last = place + 1 == pattern.parts().count();
        let mut next = Vec::new();
        for folder in found {
            if let Some(names) = part.names() {
                next.extend(names.iter().map(|name| folder.join(name)));
                continue;
            }
            for entry in entries(&folder)? {
                let name = entry.path.file_name().unwrap_or_default();
                let fits = part.matches(&name.to_string_lossy()) && !is_junk(&entry.path);
                if fits && (entry.kind == Kind::Folder) != is_last {
                    next.push(entry.path);
                }
            }
        }
        found = next;
    }
    found.sort();
    Ok(found)
}
