//! From a dataset manifest to the images of the dataset: one file for each layout, and one line in [`visit_dataset`].

mod cifar;
mod class_folder;
mod classes;
mod files;
mod flat_folder;
mod image_folder;
mod imglist;
mod listed;
mod parquet;
mod pattern;
pub(crate) mod rows;
mod shape;
mod split_file;
mod table;
mod tar_index;
mod webdataset;

use std::path::Path;

use clipood_core::{DatasetManifest, Layout};

use crate::error::DataError;
use crate::record::{Found, Listing};

pub(crate) use self::parquet::image_column;
pub use self::shape::settle;
pub(crate) use self::tar_index::{Beside, index};

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
            Found::File(_) | Found::List(_) => {}
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
        count(Found::List(root.join(list)))?;
    }
    match manifest.layout {
        Layout::ImageFolder => image_folder::visit(manifest, &root, &mut count)?,
        Layout::Imglist => imglist::visit(manifest, &root, &mut count)?,
        Layout::Parquet => parquet::visit(manifest, &root, &mut count)?,
        Layout::SplitFile => split_file::visit(manifest, &root, &mut count)?,
        Layout::CifarBinary => cifar::visit(manifest, &root, &mut count)?,
        Layout::Webdataset => webdataset::visit(manifest, &root, &mut count)?,
        Layout::FlatFolder => flat_folder::visit(manifest, &root, &mut count)?,
        Layout::Table => table::visit(manifest, &root, &mut count)?,
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

/// Calls `visit` with the files of a dataset as [`visit_dataset`] does, without opening those that hold several images: an
/// image is visited only if it is a file of its own. So the files can be compared with those of a plan quickly.
///
/// # Errors
/// Those of [`visit_dataset`] that are found without opening such a file, and the first error of `visit`.
pub fn visit_files<E: From<DataError>>(
    manifest: &DatasetManifest,
    data_root: &Path,
    visit: &mut dyn FnMut(Found) -> Result<(), E>,
) -> Result<(), E> {
    let root = manifest.root_in(data_root);
    let splits = match manifest.layout {
        Layout::ImageFolder
        | Layout::FlatFolder
        | Layout::Imglist
        | Layout::Table
        | Layout::SplitFile => {
            return visit_dataset(manifest, data_root, visit);
        }
        Layout::Parquet => parquet::files(manifest, &root)?,
        Layout::CifarBinary => cifar::files(manifest, &root)?,
        Layout::Webdataset => webdataset::files(manifest, &root)?,
    };
    if let Some(list) = &manifest.class_list {
        visit(Found::List(root.join(list)))?;
    }
    let mut files = splits.into_iter().flat_map(|split| split.files);
    files.try_for_each(|file| visit(Found::File(file)))
}
