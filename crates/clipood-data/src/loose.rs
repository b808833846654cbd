//! The images of a folder that no manifest describes.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use crate::error::DataError;
use crate::folder::class_folder_name;
use crate::left_out::LeftOutCounts;
use crate::walk::{Step, Walk};

/// An image below a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundImage {
    /// The file.
    pub path: PathBuf,
    /// The folder directly below the searched one that contains the file at any depth; `None` for a file of the searched
    /// folder itself.
    pub top: Option<PathBuf>,
}

impl FoundImage {
    /// The name of the folder `top`, as the name of a class.
    ///
    /// # Errors
    /// A name that is not UTF-8 or holds a control character.
    pub fn top_folder(&self) -> Result<Option<&str>, DataError> {
        self.top.as_deref().map(class_folder_name).transpose()
    }
}

/// Every file below `root`, at any depth, that is named as an image: folder by folder, each sorted by name, files before
/// folders; and counts of the files that are not. Links are followed, and each folder is searched once, so that they cannot
/// lead in circles.
///
/// # Errors
/// A folder that cannot be read.
pub fn find_images(root: &Path) -> Result<(Vec<FoundImage>, LeftOutCounts), DataError> {
    let mut found = Vec::new();
    let mut left_out = LeftOutCounts::default();
    for step in Walk::new(root.to_path_buf(), true, HashSet::new()) {
        match step? {
            Step::Image(path) => {
                let top = top(root, &path);
                found.push(FoundImage { path, top });
            }
            Step::LeftOut(step) => left_out.add(&step),
        }
    }
    Ok((found, left_out))
}

fn top(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut below = path.strip_prefix(root).unwrap_or(path).components();
    match (below.next(), below.next()) {
        (Some(Component::Normal(folder)), Some(_)) => Some(root.join(folder)),
        _ => None,
    }
}
