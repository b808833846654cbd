//! What a manifest leaves open, decided by the folders.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clipood_core::{DatasetManifest, Layout, Role};
use rayon::prelude::*;

use super::class_folder::above;
use super::image_folder::{Members, Tree, members, split_folders};
use crate::error::DataError;
use crate::extensions::is_image;
use crate::folder::{FolderId, Kind, class_folder_name, entries, is_junk};
use crate::walk::{Step, Walk};

/// Names that folders of splits commonly have.
const SPLITS: [&str; 6] = ["train", "training", "val", "valid", "validation", "test"];

/// Writes into the manifest how the images of the dataset lie, where it leaves that open: `nested = false` if no image lies
/// below a folder of a class folder, else `nested = true`; `loose = true` if images of an out-of-distribution dataset lie
/// beside its folders. So the manifest of a dataset without such images is the same as ever, and so are the fingerprints
/// that it enters; one with such images gets others. Listing either manifest gives the same images.
///
/// # Errors
/// Those of [`visit_dataset`](super::visit_dataset) that can be found without opening a file. Without the folders,
/// `nested = false` is written.
pub fn settle(manifest: &mut DatasetManifest, data_root: &Path) -> Result<(), DataError> {
    if manifest.layout != Layout::ImageFolder {
        return Ok(());
    }
    if manifest.nested.is_some() && (manifest.loose.is_some() || manifest.role == Role::Id) {
        return Ok(());
    }
    if manifest.generator.is_some() {
        // It may not have been drawn yet, and its images lie in class folders.
        manifest.nested.get_or_insert(false);
        return Ok(());
    }
    let found = shape(manifest, &manifest.root_in(data_root));
    let shape = found.as_ref().copied().unwrap_or_default();
    manifest.nested.get_or_insert(shape.nested);
    if shape.loose {
        manifest.loose.get_or_insert(true);
    }
    found.map(|_| ())
}

/// Where images lie in a tree.
#[derive(Debug, Clone, Copy, Default)]
struct Shape {
    nested: bool,
    loose: bool,
}

fn shape(manifest: &DatasetManifest, root: &Path) -> Result<Shape, DataError> {
    let mut shape = Shape::default();
    for tree in split_folders(manifest, root)? {
        let above = above_of(&tree)?;
        let Members { classes, loose, .. } = members(&tree, &above)?;
        shape.loose |= !loose.is_empty() && !classes.is_empty();
        if manifest.nested.is_some() {
            continue;
        }
        check_classes(&tree, &classes)?;
        let nested = classes.par_iter().map(|class| has_nested(class, &above));
        // The error of one folder counts less than the images of another.
        let nested: Vec<bool> = nested.collect::<Result<_, _>>()?;
        shape.nested |= nested.contains(&true);
    }
    Ok(shape)
}

fn above_of(tree: &Tree<'_>) -> Result<HashSet<FolderId>, DataError> {
    tree.check()?;
    above(&tree.path)
}

/// Whether an image lies in a folder below a class folder.
fn has_nested(class: &Path, above: &HashSet<FolderId>) -> Result<bool, DataError> {
    let folders = entries(class)?
        .into_iter()
        .filter(|entry| entry.kind == Kind::Folder);
    if folders.count() == 0 {
        return Ok(false);
    }
    for step in Walk::new(class.to_path_buf(), true, above.clone()) {
        if let Step::Image(path) = step?
            && path.parent() != Some(class)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Checks that the folders of an in-distribution dataset look like classes, unless the manifest says `nested`: not like
/// splits, and not like a single folder around all classes. With every image below such a folder, a dataset one level too
/// high would otherwise be read without a word.
///
/// # Errors
/// [`DataError::NotClasses`].
pub(super) fn check_classes(tree: &Tree<'_>, classes: &[PathBuf]) -> Result<(), DataError> {
    let manifest = tree.manifest;
    if manifest.role == Role::Ood || manifest.nested.is_some() || classes.is_empty() {
        return Ok(());
    }
    let mut names = Vec::new();
    let mut are_splits = manifest.splits.is_empty();
    for class in classes {
        let name = class_folder_name(class)?;
        are_splits &= SPLITS.iter().any(|split| name.eq_ignore_ascii_case(split));
        names.push(format!("`{name}`"));
        if !(are_splits || classes.len() == 1) {
            return Ok(());
        }
    }
    for class in classes {
        let images = |kind| matches!(kind, Kind::File | Kind::Broken);
        let mut folders = 0;
        for entry in entries(class)? {
            if images(entry.kind) && is_image(&entry.path) && !is_junk(&entry.path) {
                return Ok(());
            }
            folders += usize::from(entry.kind == Kind::Folder);
        }
        if folders == 0 {
            return Ok(());
        }
    }
    Err(DataError::NotClasses {
        dataset: manifest.name.clone(),
        key: tree.key.clone(),
        path: tree.path.clone(),
        folders: names.join(", "),
        remedy: match are_splits {
            true => "name the folders of the splits in `[splits]`",
            false => "name the folder of the classes there",
        },
    })
}
