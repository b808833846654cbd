//! The images of a folder that no manifest describes.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::extensions::is_image;
use crate::folder::{canonical, entries, is_hidden, utf8_name};

/// An image below a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundImage {
    /// The file.
    pub path: PathBuf,
    /// The folder directly below the searched one that contains the file at any depth; `None` for a file of the searched
    /// folder itself.
    pub top_folder: Option<String>,
}

/// Every file below `root`, at any depth, that is named as an image: folder by folder, each sorted by name, files before
/// folders. Hidden files and folders are skipped. Each folder is searched once, so that links cannot lead in circles.
///
/// # Errors
/// A folder that cannot be read, a folder directly below `root` whose name is not UTF-8.
pub fn find_images(root: &Path) -> Result<Vec<FoundImage>, DataError> {
    let mut found = Vec::new();
    let mut seen = HashSet::from([canonical(root)?]);
    search(root, None, &mut seen, &mut found)?;
    Ok(found)
}

fn search(
    folder: &Path,
    top_folder: Option<&str>,
    seen: &mut HashSet<PathBuf>,
    found: &mut Vec<FoundImage>,
) -> Result<(), DataError> {
    let mut folders = Vec::new();
    for entry in entries(folder)? {
        if is_hidden(&entry.path) {
            continue;
        }
        if entry.is_folder {
            folders.push(entry.path);
        } else if is_image(&entry.path) {
            found.push(FoundImage {
                path: entry.path,
                top_folder: top_folder.map(str::to_string),
            });
        }
    }
    for path in folders {
        if !seen.insert(canonical(&path)?) {
            continue;
        }
        let top = match top_folder {
            Some(top) => top,
            None => utf8_name(&path)?,
        };
        search(&path, Some(top), seen, found)?;
    }
    Ok(())
}
