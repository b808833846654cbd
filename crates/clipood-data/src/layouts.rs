//! From a dataset manifest to the images of the dataset: one file for each layout, and one line in [`visit_dataset`].

mod class_folder;
mod classes;
mod files;
mod image_folder;
mod imglist;
mod listed;
mod parquet;
mod pattern;
mod shape;
mod split_file;

use std::path::Path;

use clipood_core::{DatasetManifest, Layout};

use crate::error::DataError;
use crate::record::{Found, Listing};

pub use self::shape::settle;

/// Lists the images of a dataset, whose root may be relative to `data_root`.
///
/// # Errors
/// As [`visit_dataset`].
pub fn list_dataset(manifest: &DatasetManifest, data_root: &Path) -> Result<Listing, DataError> {
    let mut records = Vec::new();
    let mut left_out = Vec::new();
    let mut notes = Vec::new();
    visit_dataset(manifest, data_root, &mut |found| {
        match found {
            Found::Image(record) => records.push(record),
            Found::LeftOut(entry) => left_out.push(entry),
            Found::Note(note) => notes.push(note),
            Found::File(_) => {}
        }
        Ok::<(), DataError>(())
    })?;
    records.sort_by(|a, b| a.image_key.cmp(&b.image_key));
    left_out.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Listing {
        records,
        left_out,
        notes,
    })
}

/// Calls `visit` with everything that [`list_dataset`] lists, while only a small part of the dataset is held in memory.
///
/// The images come in the order in which the layout has them.
///
/// # Errors
/// A folder that is missing or cannot be read, a split without classes, a class without images, splits of an
/// in-distribution dataset with different classes, `class_names` of which none is a folder, a number of images other than the
/// manifest's `expected_images`, a class folder whose name is not UTF-8 or holds a control character. Some of them
/// are returned after images were visited. The first error of `visit` ends the listing.
pub fn visit_dataset<E: From<DataError>>(
    manifest: &DatasetManifest,
    data_root: &Path,
    visit: &mut dyn FnMut(Found) -> Result<(), E>,
) -> Result<(), E> {
    let root = manifest.root_in(data_root);
    let mut images = 0;
    let mut count = |found: Found| {
        images += usize::from(matches!(found, Found::Image(_)));
        visit(found)
    };
    if let Some(list) = &manifest.class_list {
        count(Found::File(root.join(list)))?;
    }
    match manifest.layout {
        Layout::ImageFolder => image_folder::visit(manifest, &root, &mut count)?,
        Layout::Imglist => imglist::visit(manifest, &root, &mut count)?,
        Layout::Parquet => parquet::visit(manifest, &root, &mut count)?,
        Layout::SplitFile => split_file::visit(manifest, &root, &mut count)?,
    }
    match manifest.expected_images.filter(|n| *n != images) {
        None => Ok(()),
        Some(expected) => Err(E::from(DataError::ImageCount {
            dataset: manifest.name.clone(),
            path: root,
            found: images,
            expected,
        })),
    }
}
