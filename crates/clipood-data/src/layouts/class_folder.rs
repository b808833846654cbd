//! The images of one class folder.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clipood_core::{DatasetManifest, key_part};
use rayon::prelude::*;

use crate::error::DataError;
use crate::folder::{FolderId, class_folder_name, identities_above};
use crate::left_out::{LeftOut, LeftOutCounts, Why};
use crate::walk::{Step, Walk};

/// The images of one class folder.
pub(super) struct ClassFolder {
    /// Name of the folder.
    pub name: String,
    /// Path relative to the folder of the split, as the end of a key, and the file; sorted.
    pub images: Vec<(String, PathBuf)>,
    /// Files and folders that are left out.
    pub left_out: Vec<LeftOut>,
}

/// The folders that the search of a class folder does not enter: the folder of the split and those above it. A link to one of
/// them would make every class a part of every other.
pub(super) fn above(split: &Path) -> Result<HashSet<FolderId>, DataError> {
    Ok(identities_above(split)?.into_iter().collect())
}

/// Lists some class folders in parallel. With `may_be_empty` a folder without an image is left out.
///
/// # Errors
/// A folder that cannot be read, a class folder without an image.
pub(super) fn scan(
    manifest: &DatasetManifest,
    folders: &[PathBuf],
    above: &HashSet<FolderId>,
    may_be_empty: bool,
) -> Result<Vec<ClassFolder>, DataError> {
    let classes = folders
        .par_iter()
        .map(|path| class_folder(manifest, path, above.clone(), may_be_empty));
    classes.collect()
}

fn class_folder(
    manifest: &DatasetManifest,
    path: &Path,
    searched: HashSet<FolderId>,
    may_be_empty: bool,
) -> Result<ClassFolder, DataError> {
    let mut class = ClassFolder {
        name: class_folder_name(path)?.to_string(),
        images: Vec::new(),
        left_out: Vec::new(),
    };
    let parent = path.parent().unwrap_or(Path::new(""));
    for step in Walk::new(
        path.to_path_buf(),
        manifest.nested.unwrap_or(true),
        searched,
    ) {
        match step? {
            Step::Image(image) => class.images.push((relative(parent, &image), image)),
            Step::LeftOut(entry) => class.left_out.push(entry),
        }
    }
    if class.images.is_empty() {
        if may_be_empty {
            class.left_out.push(LeftOut::new(path.into(), Why::Empty));
            return Ok(class);
        }
        let mut counts = LeftOutCounts::default();
        class.left_out.iter().for_each(|entry| counts.add(entry));
        let unsearched = class.left_out.iter().filter(|e| e.why == Why::NotNested);
        return Err(DataError::EmptyClass {
            dataset: manifest.name.clone(),
            path: path.to_path_buf(),
            folders: unsearched.count(),
            left_out: Box::new(counts),
        });
    }
    class.images.sort();
    Ok(class)
}

/// The path of a file below a folder, as the end of a key.
pub(super) fn relative(folder: &Path, file: &Path) -> String {
    let below = file.strip_prefix(folder).unwrap_or(file);
    let parts: Vec<String> = below.iter().map(key_part).collect();
    parts.join("/")
}
