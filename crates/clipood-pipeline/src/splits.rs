//! The split of a dataset as a split file.

use std::path::Path;

use clipood_core::DatasetManifest;
use clipood_data::{At, ImageRecord, SplitFile, SplitImage, path_of};

use crate::error::{PipelineError, Result};

/// The split file of these images, in their order. Paths are those below the root of the dataset; an image that is no file of its
/// own has the path of its key.
///
/// # Errors
/// Images without classes, or none at all.
pub fn split_of(
    manifest: &DatasetManifest,
    data: &Path,
    records: &[ImageRecord],
) -> Result<SplitFile> {
    let root = manifest.root_in(data);
    let wrong =
        |problem: String| PipelineError::Usage(format!("dataset `{}`: {problem}", manifest.name));
    let images = records.iter().map(|record| {
        let (Some(label), Some(class_name)) = (record.label, &record.class_name) else {
            return Err(wrong(format!(
                "{} has no class, and a split file lists classes",
                record.image_key
            )));
        };
        let in_key = || record.image_key.splitn(3, '/').nth(2).unwrap_or_default();
        let path = path_of(&record.source.uri);
        let below = path.strip_prefix(&root).ok().and_then(Path::to_str);
        let path = match (&record.source.at, below) {
            (At::Whole, Some(below)) => below.replace('\\', "/"),
            _ => in_key().to_string(),
        };
        Ok(SplitImage {
            path,
            split: record.split,
            label,
            class_name: class_name.clone(),
        })
    });
    SplitFile::of(images.collect::<Result<_>>()?).map_err(wrong)
}
