//! The binary version of CIFAR-10 and CIFAR-100: records of one or two label bytes and 32 x 32 pixels, one plane per channel.
//!
//! Which of the two it is follows from the size of a file. CIFAR-100 has two labels, of which the fine one is the class unless
//! `columns.label` is `coarse_label`. The names of the classes are in `batches.meta.txt`, `fine_label_names.txt` or
//! `coarse_label_names.txt` beside the files, if neither `class_list` nor `class_names` gives them. Without `[splits]` the
//! files are the usual ones: `data_batch_*.bin` and `test_batch.bin`, or `train.bin` and `test.bin`.

use std::io::{ErrorKind, Read};
use std::path::Path;

use clipood_core::{ClassList, DatasetManifest, image_key, is_url, shown};

use super::class_folder::relative;
use super::classes::{Classes, Label};
use super::files::{SplitFiles, split_files};
use crate::byte_file::ByteFile;
use crate::error::DataError;
use crate::place::read_text;
use crate::record::{Found, ImageRecord, Split};
use crate::source::{At, PlaneSize, Source};
use crate::uri::uri_of;

const SIZE: PlaneSize = PlaneSize {
    width: 32,
    height: 32,
};
/// Bytes of the pixels of an image.
const PIXELS: u64 = 3 * 32 * 32;
const FINE: &str = "fine_label";
const COARSE: &str = "coarse_label";

/// Which of the label bytes is the class, and how many there are.
#[derive(Clone, Copy)]
struct Record {
    labels: u64,
    class: usize,
}

/// Calls `visit` with the images of the batches, file by file.
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
    for split in &splits {
        for path in &split.files {
            let batch = Batch::open(manifest, path)?;
            batch.name_classes(root, &mut classes)?;
            let split = split.split.unwrap_or(Split::Test);
            batch.visit(root, split, &mut classes, visit)?;
        }
    }
    classes
        .note()
        .map_or(Ok(()), |note| visit(Found::Note(note)))
}

/// The files of each split.
pub fn files(manifest: &DatasetManifest, root: &Path) -> Result<Vec<SplitFiles>, DataError> {
    let (train, test) = (Some(Split::Train), Some(Split::Test));
    let hundred = !is_url(root) && root.join("test.bin").exists();
    let default = match hundred {
        true => [(train, "train.bin"), (test, "test.bin")],
        false => [(train, "data_batch_*.bin"), (test, "test_batch.bin")],
    };
    split_files(manifest, root, &default)
}

struct Batch<'a> {
    manifest: &'a DatasetManifest,
    path: &'a Path,
    file: ByteFile,
    record: Record,
}

impl<'a> Batch<'a> {
    fn open(manifest: &'a DatasetManifest, path: &'a Path) -> Result<Self, DataError> {
        let file = ByteFile::open(path).map_err(|source| DataError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        let wrong = |problem: String| DataError::Content {
            dataset: manifest.name.clone(),
            place: shown(path),
            problem,
        };
        let bytes = file.length();
        let labels = match (bytes % (PIXELS + 1), bytes % (PIXELS + 2)) {
            _ if bytes == 0 => return Err(wrong("the file is empty".to_string())),
            (0, _) => 1,
            (_, 0) => 2,
            _ => {
                return Err(wrong(format!(
                    "{bytes} bytes are no whole number of records of {} (CIFAR-10) or {} bytes (CIFAR-100): the file is \
                     cut, or another one",
                    PIXELS + 1,
                    PIXELS + 2
                )));
            }
        };
        let class = match (labels, manifest.columns.label.as_deref()) {
            (1, None | Some("label")) | (2, Some(COARSE)) => 0,
            (2, None | Some("label" | FINE)) => 1,
            (_, Some(name)) => {
                let known = if labels == 1 {
                    "label"
                } else {
                    "fine_label, coarse_label"
                };
                return Err(wrong(format!(
                    "no label `{name}` (`columns.label`), expected {known}"
                )));
            }
            (_, None) => 0,
        };
        Ok(Self {
            manifest,
            path,
            file,
            record: Record { labels, class },
        })
    }

    /// Reads the names of the classes beside the file, if nothing else names them.
    fn name_classes(&self, root: &Path, classes: &mut Classes<'_>) -> Result<(), DataError> {
        if classes.has_list() || !self.manifest.class_names.is_empty() {
            return Ok(());
        }
        let file = match (self.record.labels, self.record.class) {
            (1, _) => "batches.meta.txt",
            (_, 0) => "coarse_label_names.txt",
            _ => "fine_label_names.txt",
        };
        let path = self.path.parent().unwrap_or(root).join(file);
        match read_text(&path) {
            Ok(text) => {
                let list = ClassList::parse(text.trim_end(), &shown(&path))?;
                classes.state(&shown(&path), list.names)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(source) => Err(DataError::Io { path, source }),
        }
    }

    fn visit<E: From<DataError>>(
        &self,
        root: &Path,
        split: Split,
        classes: &mut Classes<'_>,
        visit: &mut dyn FnMut(Found) -> Result<(), E>,
    ) -> Result<(), E> {
        let key = relative(root, self.path);
        let step = self.record.labels + PIXELS;
        let mut reader = self.file.reader(0);
        let mut record = vec![0; step as usize];
        for number in 0..self.file.length() / step {
            reader.read_exact(&mut record).map_err(|source| {
                let path = self.path.to_path_buf();
                DataError::Io { path, source }
            })?;
            let label = Label::Number(i64::from(record[self.record.class]));
            let (label, class_name) = classes.of(label).map_err(|problem| DataError::Content {
                dataset: self.manifest.name.clone(),
                place: format!("{}, record {number}", shown(self.path)),
                problem,
            })?;
            let relative = format!("{key}/{number:05}");
            visit(Found::Image(ImageRecord {
                image_key: image_key(&self.manifest.name, split.name(), &relative)
                    .map_err(DataError::from)?,
                source: Source {
                    uri: uri_of(self.path),
                    at: At::Planes {
                        start: number * step + self.record.labels,
                        size: SIZE,
                    },
                },
                split,
                label,
                class_name,
            }))?;
        }
        Ok(())
    }
}
