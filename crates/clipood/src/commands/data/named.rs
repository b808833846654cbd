//! Datasets as the command line names them: by the name or the file of a manifest.

use std::path::Path;

use anyhow::Result;
use clipood_core::DatasetManifest;
use clipood_core::text_file::read_text;
use clipood_pipeline::open_manifest;

/// The manifest called `name`: a file of that path, one in the folder of manifests, or a built-in one.
///
/// # Errors
/// A manifest that is missing or cannot be read.
pub fn manifest(name: &str, folder: &Path) -> Result<DatasetManifest> {
    let path = Path::new(name);
    if path.is_file() {
        return Ok(DatasetManifest::parse(&read_text(path)?, name)?);
    }
    Ok(open_manifest(folder, name)?)
}
