//! WebDataset: tar files in which the files of one sample follow each other and share a name up to the first dot.
//!
//! The image of a sample is the file named as one (`0001.jpg`, `0001.image.png`); its class is the number or name in `0001.cls`,
//! or in the key `label`, `cls` or `class` of `0001.json`, or the key that `columns.label` names. Other files are passed over. A
//! sample without an image is left out and reported. Without `[splits]` every `*.tar` is read. The archives are indexed once:
//! from then on an image is a range of bytes. They are not unpacked, so they must not be compressed.
//!
//! The key of an image is its archive, the number of the sample in it, and the name of the file: so images are read in the order
//! in which they lie there.

use std::path::{Path, PathBuf};

use clipood_core::{DatasetManifest, image_key, shown};
use rayon::prelude::*;

use super::class_folder::relative;
use super::classes::{Classes, Label};
use super::files::{SplitFiles, split_files};
use super::listed::key_of;
use super::tar_index::{Beside, Index, OwnLabel, index};
use crate::error::DataError;
use crate::left_out::{LeftOut, Why};
use crate::record::{Found, ImageRecord, Split};
use crate::source::{At, Source};
use crate::uri::uri_of;

/// Calls `visit` with the images in the archives, archive by archive.
pub fn visit<E: From<DataError>>(
    manifest: &DatasetManifest,
    root: &Path,
    visit: &mut dyn FnMut(Found) -> Result<(), E>,
) -> Result<(), E> {
    let splits = files(manifest, root)?;
    for file in splits.iter().flat_map(|split| &split.files) {
        visit(Found::File(file.clone()))?;
    }
    let mut classes = Classes::open(manifest, root)?;
    let labels = Beside::Label(manifest.columns.label.as_deref());
    for split in &splits {
        for some in split.files.chunks(rayon::current_num_threads()) {
            let indices: Vec<_> = some.par_iter().map(|path| index(path, labels)).collect();
            for (path, index) in some.iter().zip(indices) {
                let archive = Archive {
                    manifest,
                    path,
                    key: relative(root, path),
                    split: split.split.unwrap_or(Split::Test),
                };
                let index = index.map_err(|error| archive.unreadable(error))?;
                archive.visit(index, &mut classes, visit)?;
            }
        }
    }
    classes
        .note()
        .map_or(Ok(()), |note| visit(Found::Note(note)))
}

/// The archives of each split.
pub fn files(manifest: &DatasetManifest, root: &Path) -> Result<Vec<SplitFiles>, DataError> {
    split_files(manifest, root, &[(None, "*.tar")])
}

struct Archive<'a> {
    manifest: &'a DatasetManifest,
    path: &'a PathBuf,
    key: String,
    split: Split,
}

impl Archive<'_> {
    fn unreadable(&self, source: std::io::Error) -> DataError {
        match source.kind() {
            std::io::ErrorKind::InvalidData => self.wrong("", source.to_string()),
            _ => DataError::Io {
                path: self.path.clone(),
                source,
            },
        }
    }

    fn wrong(&self, sample: &str, problem: String) -> DataError {
        let sample = match sample {
            "" => String::new(),
            sample => format!(", sample `{}`", shown(sample)),
        };
        DataError::Content {
            dataset: self.manifest.name.clone(),
            place: format!("{}{sample}", shown(self.path)),
            problem,
        }
    }

    fn visit<E: From<DataError>>(
        &self,
        index: Index,
        classes: &mut Classes<'_>,
        visit: &mut dyn FnMut(Found) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(note) = index.note {
            visit(Found::Note(format!("{}: {note}", shown(self.path))))?;
        }
        let uri = uri_of(self.path);
        for (number, sample) in index.samples.into_iter().enumerate() {
            let Some((name, range)) = sample.image else {
                let path = self.path.join(sample.key);
                visit(Found::LeftOut(LeftOut::new(path, Why::NoImage)))?;
                continue;
            };
            let label = match &sample.label {
                None => Label::Unknown,
                Some(OwnLabel::Number(number)) => Label::Number(*number),
                Some(OwnLabel::Text(text)) => Label::Text(text),
            };
            let found = match label {
                Label::Text(text)
                    if !classes.has_list() && self.manifest.role == clipood_core::Role::Id =>
                {
                    Err(format!(
                        "its class is the text `{text}`; list all classes in `class_list`"
                    ))
                }
                label => classes.of(label),
            };
            let (label, class_name) = found.map_err(|p| self.wrong(&sample.key, p))?;
            let relative = format!("{}/{number:06}-{}", self.key, key_of(&name));
            visit(Found::Image(ImageRecord {
                image_key: image_key(&self.manifest.name, self.split.name(), &relative)
                    .map_err(DataError::from)?,
                source: Source {
                    uri: uri.clone(),
                    at: At::Bytes(range),
                },
                split: self.split,
                label,
                class_name,
            }))?;
        }
        Ok(())
    }
}
