//! Datasets as the command line names them: by the name or the file of a manifest, or by their name on the hub.

use std::path::Path;

use anyhow::Result;
use clipood_core::DatasetManifest;
use clipood_core::text_file::read_text;
use clipood_pipeline::{manifest_of_hub, open_manifest};

/// The manifest called `name`: a file of that path, one in the folder of manifests, or a built-in one; for `hub:NAME` one for
/// that dataset, whose split becomes the test split if the name has one.
///
/// # Errors
/// A manifest that is missing or cannot be read.
pub fn manifest(name: &str, folder: &Path) -> Result<DatasetManifest> {
    if let Some(name) = name.strip_prefix("hub:") {
        let (mut manifest, split) = manifest_of_hub(name)?;
        if let Some(split) = split {
            manifest.splits.insert("test".to_owned(), split.into());
        }
        return Ok(manifest);
    }
    let path = Path::new(name);
    if path.is_file() {
        return Ok(DatasetManifest::parse(&read_text(path)?, name)?);
    }
    Ok(open_manifest(folder, name)?)
}
