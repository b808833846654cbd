//! CSV or Parquet files with one row per image: its path or URL, its class, its split.
//!
//! The column of the paths is `path`, `uri`, `url`, `file_name`, `filename`, `filepath`, `image_path`, `file` or `image`, the first
//! that is there, or the one that `columns.image` names; likewise the class is in `label`, `class`, `class_name`, `labels` or
//! `target` (`columns.label`), and the split in `split` (`columns.split`). A column of an index, which pandas writes, does not
//! matter. If all classes are numbers they are the labels (`3.0`, as pandas writes a column with gaps, is 3); otherwise they are
//! names, and a label is the index of a name among all, sorted. CSV files are separated by commas, semicolons or tabs.
//!
//! A path starts from the folder `images` of the manifest, or from the root; it may be absolute, or a URL of any store.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clipood_core::{DatasetManifest, image_key, is_url, join, shown};

use super::classes::{Classes, Label};
use super::files::split_files;
use super::listed::{Files, below, key_of, split_named};
use super::rows::{Row, for_each_row};
use crate::error::DataError;
use crate::record::{Found, ImageRecord, Split};
use crate::source::Source;
use crate::uri::path_of;

/// Rows whose files are looked up together.
const BLOCK: usize = 4096;

/// Calls `visit` with the images that the tables name, in the order of their rows.
pub fn visit<E: From<DataError>>(
    manifest: &DatasetManifest,
    root: &Path,
    visit: &mut dyn FnMut(Found) -> Result<(), E>,
) -> Result<(), E> {
    let base = match &manifest.images {
        Some(folder) => root.join(folder),
        None => root.to_path_buf(),
    };
    let splits = split_files(manifest, root, &[])?;
    let mut names = Names::default();
    for table in splits.iter().flat_map(|split| &split.files) {
        visit(Found::List(table.clone()))?;
        for_each_row(manifest, table, &mut |_, row| {
            names.add(row.label);
            Ok::<(), DataError>(())
        })?;
    }
    let mut images = Images {
        manifest,
        root,
        files: Files::new(base),
        classes: Classes::open(manifest, root)?,
        are_numbers: !names.are_texts,
    };
    images.classes.number(names.texts);
    for split in &splits {
        for table in &split.files {
            let mut block = Vec::with_capacity(BLOCK);
            for_each_row(manifest, table, &mut |number, row| {
                let image = images.image(row, split.split);
                block.push(image.map_err(|problem| DataError::Content {
                    dataset: manifest.name.clone(),
                    place: format!("{}, row {number}", shown(table)),
                    problem,
                })?);
                match block.len() < BLOCK {
                    true => Ok(()),
                    false => images.visit(std::mem::take(&mut block), visit),
                }
            })?;
            images.visit(block, visit)?;
        }
    }
    for note in images
        .files
        .notes()
        .into_iter()
        .chain(images.classes.note())
    {
        visit(Found::Note(note))?;
    }
    Ok(())
}

/// The classes of all rows.
#[derive(Default)]
struct Names {
    texts: BTreeSet<String>,
    /// Whether one of them is no number.
    are_texts: bool,
}

impl Names {
    fn add(&mut self, label: Option<&str>) {
        if let Some(label) = label
            && !self.texts.contains(label)
        {
            self.are_texts |= number(label).is_none();
            self.texts.insert(label.to_string());
        }
    }
}

/// A class that is a whole number, as `3`, `-1` or `3.0`.
fn number(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let float: f64 = text.parse().ok()?;
    let is_whole = float.fract() == 0.0 && float.abs() < 1e9;
    is_whole.then_some(float as i64)
}

/// An image whose file has not been looked up.
struct Listed {
    place: Place,
    /// End of the key.
    key: String,
    split: Split,
    label: Option<u32>,
    class_name: Option<String>,
}

enum Place {
    /// A path below the folder of the images.
    Below(String),
    /// Anywhere else.
    At(PathBuf),
}

struct Images<'a> {
    manifest: &'a DatasetManifest,
    root: &'a Path,
    files: Files,
    classes: Classes<'a>,
    are_numbers: bool,
}

impl Images<'_> {
    fn image(&mut self, row: Row<'_>, split: Option<Split>) -> Result<Listed, String> {
        let path = row.image.ok_or("no path, expected one in every row")?;
        let (place, key) = self.place(path)?;
        let split = match (split, row.split) {
            (Some(split), _) => split,
            (None, Some(Some(word))) => split_named(word)?,
            (None, Some(None)) => return Err("no split, expected one in every row".to_string()),
            (None, None) => Split::Test,
        };
        let label = match (row.label, self.are_numbers) {
            (None, _) => Label::Unknown,
            (Some(text), true) => number(text).map_or(Label::Text(text), Label::Number),
            (Some(text), false) => Label::Text(text),
        };
        let (label, class_name) = self.classes.of(label)?;
        Ok(Listed {
            place,
            key,
            split,
            label,
            class_name,
        })
    }

    /// Where the image of a path lies, and the end of its key.
    fn place(&self, path: &str) -> Result<(Place, String), String> {
        let is_file = path.starts_with("file://");
        let place = if is_file {
            path_of(path)
        } else {
            PathBuf::from(path)
        };
        if !is_url(&place) && !place.is_absolute() {
            let name = below(path)?;
            let key = key_of(&name);
            return Ok((Place::Below(name), key));
        }
        let inside = place.strip_prefix(self.root).unwrap_or(&place);
        let text = inside.to_string_lossy();
        let text = text.split_once("://").map_or(&*text, |(_, rest)| rest);
        // A query may hold a signature, which is another one tomorrow.
        let text = match is_url(&place) {
            true => text.split('?').next().unwrap_or(text),
            false => text,
        };
        let key = key_of(&below(text.trim_start_matches('/'))?);
        Ok((Place::At(join(self.root, &place)), key))
    }

    fn visit<E: From<DataError>>(
        &mut self,
        block: Vec<Listed>,
        visit: &mut dyn FnMut(Found) -> Result<(), E>,
    ) -> Result<(), E> {
        let names = block.iter().filter_map(|image| match &image.place {
            Place::Below(name) => Some(name.clone()),
            Place::At(_) => None,
        });
        let mut found = self.files.find(&names.collect::<Vec<_>>())?.into_iter();
        for image in block {
            let path = match image.place {
                Place::At(path) => Some(path),
                Place::Below(_) => found.next(),
            };
            visit(Found::Image(ImageRecord {
                image_key: image_key(&self.manifest.name, image.split.name(), &image.key)
                    .map_err(DataError::from)?,
                source: Source::found(&path.unwrap_or_default()),
                split: image.split,
                label: image.label,
                class_name: image.class_name,
            }))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_as_pandas_writes_them() {
        for (text, expected) in [
            ("3", Some(3)),
            ("-1", Some(-1)),
            ("3.0", Some(3)),
            ("3.5", None),
            ("cat", None),
            ("nan", None),
            ("1e300", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
