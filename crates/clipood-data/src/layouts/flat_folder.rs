//! Images without classes: every image below the folder of a split, at any depth.
//!
//! It is for out-of-distribution datasets, which need no classes, such as `iNaturalist/images/*.jpg` of the MOS benchmark.

use std::collections::HashSet;
use std::path::Path;

use clipood_core::{DatasetManifest, image_key};

use super::class_folder::relative;
use super::image_folder::split_folders;
use crate::error::DataError;
use crate::left_out::LeftOutCounts;
use crate::record::{Found, ImageRecord};
use crate::source::Source;
use crate::walk::{Step, Walk};

/// Calls `visit` with the images below the folders of the splits.
pub fn visit<E: From<DataError>>(
    manifest: &DatasetManifest,
    root: &Path,
    visit: &mut dyn FnMut(Found) -> Result<(), E>,
) -> Result<(), E> {
    for tree in split_folders(manifest, root)? {
        tree.check()?;
        let (mut images, mut left_out) = (0, LeftOutCounts::default());
        for step in Walk::new(tree.path.clone(), true, HashSet::new()) {
            let path = match step.map_err(E::from)? {
                Step::Image(path) => path,
                Step::LeftOut(entry) => {
                    left_out.add(&entry);
                    visit(Found::LeftOut(entry))?;
                    continue;
                }
            };
            images += 1;
            let below = relative(&tree.path, &path);
            visit(Found::Image(ImageRecord {
                image_key: image_key(&manifest.name, tree.split.name(), &below)
                    .map_err(DataError::from)?,
                source: Source::found(&path),
                split: tree.split,
                label: None,
                class_name: None,
            }))?;
        }
        if images == 0 {
            return Err(E::from(tree.empty("images", 0, left_out)));
        }
    }
    Ok(())
}
