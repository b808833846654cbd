//! A split file says which images are trained, validated and tested on, and their classes, as CoOp's `split_zhou_*.json`.
//!
//! `files` of the manifest names it (see [`SplitFile`] for its formats). Its paths start from the folder `images`, or from the
//! root; those of another machine are found below it ([`Reroot`]). Labels are those of the file, names too, with `_` as a
//! space; `class_names` replaces some by the names in the file. Images that the file does not list are no part of the dataset.

use std::path::Path;

use clipood_core::{DatasetManifest, Role, image_key, is_url};

use super::listed::{below, key_of};
use crate::error::DataError;
use crate::record::{Found, ImageRecord, Split};
use crate::source::Source;
use crate::split_file::{Reroot, SplitFile};

/// Calls `visit` with the images of the split file: those to test on, those to validate on, and the training images class by class,
/// each in the order of the file.
pub fn visit<E: From<DataError>>(
    manifest: &DatasetManifest,
    root: &Path,
    visit: &mut dyn FnMut(Found) -> Result<(), E>,
) -> Result<(), E> {
    let folder = match &manifest.images {
        Some(images) => root.join(images),
        None => root.to_path_buf(),
    };
    let path = root.join(manifest.files.as_deref().unwrap_or(Path::new("")));
    visit(Found::List(path.clone()))?;
    let split = SplitFile::read(&path)?;
    let wrong = |problem: String| DataError::SplitFile {
        path: path.clone(),
        problem,
    };
    let exists = |listed: &str| match is_url(&folder) {
        // Each request costs time: paths of another machine are not looked for in object stores.
        true => listed == split.images()[0].path,
        false => std::fs::symlink_metadata(folder.join(listed)).is_ok(),
    };
    let Some(reroot) = Reroot::find(&split, exists) else {
        return Err(E::from(wrong(format!(
            "its first image, {}, is not in {}, nor is the end of that path; `images` names the folder that the paths start from",
            split.images()[0].path,
            folder.display()
        ))));
    };
    if !reroot.is_identity() {
        let kept = reroot.path_of(split.shared());
        let left_out = split.shared().strip_suffix(kept).unwrap_or_default();
        visit(Found::Note(format!(
            "the paths of {} begin with {left_out} of another machine, which is left out",
            path.display()
        )))?;
    }
    for part in [Split::Test, Split::Val, Split::Train] {
        let mut images: Vec<_> = split.part(part).collect();
        if part == Split::Train {
            images.sort_by_key(|image| image.label);
        }
        for image in images {
            let listed = below(reroot.path(image)).map_err(wrong)?;
            let name = match manifest.class_names.get(&image.class_name) {
                Some(name) => name.clone(),
                None => image.class_name.replace('_', " "),
            };
            visit(Found::Image(ImageRecord {
                image_key: image_key(&manifest.name, part.name(), &key_of(&listed))
                    .map_err(DataError::from)?,
                source: Source::found(&folder.join(&listed)),
                split: part,
                label: (manifest.role == Role::Id).then_some(image.label),
                class_name: Some(name),
            }))?;
        }
    }
    Ok(())
}
