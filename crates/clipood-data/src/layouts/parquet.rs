//! Parquet files that hold the encoded images, as the image datasets of the Hugging Face hub.
//!
//! The column of the images is a struct with the fields `bytes` and `path`, as `datasets` writes it, or of bytes; it is called
//! `image` or `img`, or is the only such column, or is named by `columns.image`. The class is in `label`, `labels`, `fine_label`
//! or `class`, the first that is there, or in the column that `columns.label` names (`coarse_label`). A number is the label;
//! its name is in the metadata that `datasets` writes (`ClassLabel`), or in `class_list` or `class_names`. A text is the name
//! of a class, whose label is its index among all, sorted. Without `[splits]` every `*.parquet` file is read, and a column
//! `split` (or `columns.split`) says which split an image belongs to.
//!
//! The key of an image is its file and the number of its row, because `path` may be absent and need not be unique.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use clipood_core::{DatasetManifest, Role, image_key, nearest, shown};

use super::class_folder::relative;
use super::classes::{Classes, Label};
use super::files::{SplitFiles, split_files};
use super::listed::split_named;
use crate::error::DataError;
use crate::record::{Found, ImageRecord, Split};
use crate::source::{At, Source};
use crate::table::Table;
use crate::uri::uri_of;

const IMAGES: [&str; 2] = ["image", "img"];
const LABELS: [&str; 4] = ["label", "labels", "fine_label", "class"];
const SPLIT: &str = "split";

/// Calls `visit` with the images in the files of the manifest, file by file and row by row.
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
    let mut texts = BTreeSet::new();
    for file in splits.iter().flat_map(|split| &split.files) {
        let file = DataFile::open(manifest, file)?;
        if let Some(names) = file.class_names() {
            classes.state(&shown(&file.path), names)?;
        }
        if !classes.has_list() && file.label.as_ref().is_some_and(|l| l.is_text) {
            file.texts(&mut texts)?;
        }
    }
    classes.number(texts);
    for split in &splits {
        for path in &split.files {
            let file = DataFile::open(manifest, path)?;
            file.visit(root, split.split, &mut classes, visit)?;
        }
    }
    classes
        .note()
        .map_or(Ok(()), |note| visit(Found::Note(note)))
}

/// The files of each split.
pub fn files(manifest: &DatasetManifest, root: &Path) -> Result<Vec<SplitFiles>, DataError> {
    split_files(manifest, root, &[(None, "*.parquet")])
}

/// A file with the columns that are read.
struct DataFile<'a> {
    manifest: &'a DatasetManifest,
    path: PathBuf,
    table: Table,
    /// Path of the column of bytes, such as `image.bytes`.
    bytes: String,
    label: Option<LabelColumn>,
    /// Place of the column of the splits.
    split: Option<usize>,
}

/// The column of the classes.
struct LabelColumn {
    place: usize,
    name: String,
    is_text: bool,
}

impl<'a> DataFile<'a> {
    fn open(manifest: &'a DatasetManifest, path: &Path) -> Result<Self, DataError> {
        let table = Table::open(path).map_err(|source| unreadable(manifest, path, source))?;
        let schema = table.metadata().schema().clone();
        let wrong = |problem| DataError::Content {
            dataset: manifest.name.clone(),
            place: shown(path),
            problem,
        };
        let columns = &manifest.columns;
        let (image, bytes) = image_column(&schema, columns.image.as_deref()).map_err(wrong)?;
        let label = match &columns.label {
            Some(name) => Some(place(&schema, name).map_err(wrong)?),
            None => LABELS.iter().find_map(|name| place(&schema, name).ok()),
        };
        if label.is_none() && manifest.role == Role::Id {
            return Err(wrong(format!(
                "no column of classes, expected one of {}; name it with `columns.label`; found {}",
                LABELS.join(", "),
                names(&schema)
            )));
        }
        let label = label
            .map(|place| LabelColumn::new(&schema, place))
            .transpose()
            .map_err(wrong)?;
        let split = match &columns.split {
            Some(name) => Some(place(&schema, name).map_err(wrong)?),
            None if manifest.splits.is_empty() => place(&schema, SPLIT).ok(),
            None => None,
        };
        if has_no_bytes(&table, &bytes) {
            return Err(wrong(format!(
                "column `{image}` has no bytes in any row, expected the encoded images"
            )));
        }
        Ok(Self {
            manifest,
            path: path.to_path_buf(),
            table,
            bytes,
            label,
            split,
        })
    }

    /// The names of the classes in the metadata that `datasets` writes.
    fn class_names(&self) -> Option<Vec<String>> {
        let label = self.label.as_ref()?;
        let metadata = self.table.metadata().metadata().file_metadata();
        let pairs = metadata.key_value_metadata()?;
        let info = pairs
            .iter()
            .find(|pair| pair.key == "huggingface")?
            .value
            .as_ref()?;
        let info: serde_json::Value = serde_json::from_str(info).ok()?;
        let names = info
            .pointer("/info/features")?
            .get(&label.name)?
            .get("names")?;
        let names = names.as_array()?.iter();
        names.map(|name| Some(name.as_str()?.to_string())).collect()
    }

    /// Adds the classes of all rows.
    fn texts(&self, texts: &mut BTreeSet<String>) -> Result<(), DataError> {
        let Some(label) = &self.label else {
            return Ok(());
        };
        let read = self.table.for_each_batch(&[label.place], |_, batch| {
            let labels = cast(batch.column(0), &DataType::Utf8).map_err(|e| self.wrong(None, e))?;
            for text in labels.as_string::<i32>().iter().flatten() {
                if !texts.contains(text) {
                    texts.insert(text.to_string());
                }
            }
            Ok(())
        });
        read.map_err(|source| unreadable(self.manifest, &self.path, source))?
    }

    fn wrong(&self, row: Option<u64>, problem: impl ToString) -> DataError {
        let row = row.map_or(String::new(), |row| format!(", row {row}"));
        DataError::Content {
            dataset: self.manifest.name.clone(),
            place: format!("{}{row}", shown(&self.path)),
            problem: problem.to_string(),
        }
    }

    fn visit<E: From<DataError>>(
        &self,
        root: &Path,
        split: Option<Split>,
        classes: &mut Classes<'_>,
        visit: &mut dyn FnMut(Found) -> Result<(), E>,
    ) -> Result<(), E> {
        let key = relative(root, &self.path);
        let uri = uri_of(&self.path);
        let mut roots: Vec<usize> = self.label.iter().map(|label| label.place).collect();
        roots.extend(self.split);
        let mut image = |row: u64, label: Label<'_>, own: Option<&str>| {
            let split = match own {
                None => split.unwrap_or(Split::Test),
                Some(name) => split_named(name).map_err(|p| self.wrong(Some(row), p))?,
            };
            let (label, class_name) = classes.of(label).map_err(|p| self.wrong(Some(row), p))?;
            let source = Source {
                uri: uri.clone(),
                at: At::Row {
                    column: self.bytes.clone(),
                    row,
                },
            };
            let relative = format!("{key}/{row:08}");
            visit(Found::Image(ImageRecord {
                image_key: image_key(&self.manifest.name, split.name(), &relative)
                    .map_err(DataError::from)?,
                source,
                split,
                label,
                class_name,
            }))
        };
        if roots.is_empty() {
            for row in 0..self.table.rows() {
                image(row, Label::Unknown, None)?;
            }
            return Ok(());
        }
        let read = self
            .table
            .for_each_batch(&roots, |first, batch: &RecordBatch| {
                let column = |place: usize, to: DataType| {
                    let name = self.table.metadata().schema().field(place).name();
                    let array = batch.column_by_name(name);
                    let array = array.map(|array| cast(array, &to)).transpose();
                    array.map_err(|e| self.wrong(None, format!("column `{name}`: {e}")))
                };
                let labels = match &self.label {
                    Some(label) if label.is_text => column(label.place, DataType::Utf8)?,
                    Some(label) => column(label.place, DataType::Int64)?,
                    None => None,
                };
                let splits = self
                    .split
                    .map(|place| column(place, DataType::Utf8))
                    .transpose()?
                    .flatten();
                for row in 0..batch.num_rows() {
                    let label = labels
                        .as_ref()
                        .map_or(Label::Unknown, |labels| label_at(labels, row));
                    let split = splits.as_ref().and_then(|splits| text_at(splits, row));
                    image(first + row as u64, label, split)?;
                }
                Ok::<(), E>(())
            });
        read.map_err(|source| unreadable(self.manifest, &self.path, source))?
    }
}

impl LabelColumn {
    fn new(schema: &Schema, place: usize) -> Result<Self, String> {
        let field = schema.field(place);
        let kind = match field.data_type() {
            DataType::Dictionary(_, value) => value,
            other => other,
        };
        let is_text = match kind {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
            kind if kind.is_integer() => false,
            kind => {
                return Err(format!(
                    "column `{}` is of type {kind}, expected numbers or names of classes",
                    field.name()
                ));
            }
        };
        Ok(Self {
            place,
            name: field.name().clone(),
            is_text,
        })
    }
}

fn label_at(labels: &ArrayRef, row: usize) -> Label<'_> {
    if labels.is_null(row) {
        return Label::Unknown;
    }
    match labels.as_primitive_opt::<Int64Type>() {
        Some(numbers) => Label::Number(numbers.value(row)),
        None => text_at(labels, row).map_or(Label::Unknown, Label::Text),
    }
}

fn text_at(texts: &ArrayRef, row: usize) -> Option<&str> {
    let texts = texts.as_string_opt::<i32>()?;
    (!texts.is_null(row)).then(|| texts.value(row))
}

/// The column of the images: its name, and the path of the column of their bytes.
pub(crate) fn image_column(
    schema: &Schema,
    named: Option<&str>,
) -> Result<(String, String), String> {
    let bytes = |field: &Field| -> Option<String> {
        match field.data_type() {
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                Some(field.name().clone())
            }
            DataType::Struct(fields) => {
                let (_, bytes) = fields.find("bytes")?;
                let is_bytes = matches!(
                    bytes.data_type(),
                    DataType::Binary | DataType::LargeBinary | DataType::BinaryView
                );
                is_bytes.then(|| format!("{}.bytes", field.name()))
            }
            _ => None,
        }
    };
    if let Some(name) = named {
        let field = schema.field(place(schema, name)?);
        return match bytes(field) {
            Some(bytes) => Ok((name.to_string(), bytes)),
            None => Err(format!(
                "column `{name}` is of type {}, expected bytes, or a struct with a field `bytes`",
                field.data_type()
            )),
        };
    }
    let fields = schema.fields().iter();
    let found: Vec<(&str, String)> = fields
        .filter_map(|field| Some((field.name().as_str(), bytes(field)?)))
        .collect();
    let usual = found.iter().find(|(name, _)| IMAGES.contains(name));
    match (usual, found.as_slice()) {
        (Some((name, bytes)), _) | (None, [(name, bytes)]) => Ok((name.to_string(), bytes.clone())),
        (None, []) => Err(format!(
            "no column of images, expected `image` or `img` with the encoded bytes; found {}",
            names(schema)
        )),
        (None, several) => Err(format!(
            "{} columns of bytes; name that of the images with `columns.image`; found {}",
            several.len(),
            names(schema)
        )),
    }
}

fn place(schema: &Schema, name: &str) -> Result<usize, String> {
    schema.index_of(name).map_err(|_| {
        let known: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        match nearest(name, known.iter().copied()) {
            Some(close) => format!("no column `{name}`; did you mean `{close}`?"),
            None => format!("no column `{name}`; found {}", names(schema)),
        }
    })
}

fn names(schema: &Schema) -> String {
    let names = schema
        .fields()
        .iter()
        .map(|field| format!("`{}`", field.name()));
    names.collect::<Vec<_>>().join(", ")
}

/// Whether the statistics of a file with rows say that every value of a column is absent.
fn has_no_bytes(table: &Table, column: &str) -> bool {
    let groups = table.metadata().metadata().row_groups();
    let is_empty = |group: &parquet::file::metadata::RowGroupMetaData| {
        let mut columns = group.columns().iter();
        let chunk = columns.find(|chunk| chunk.column_path().string() == column);
        let nulls = chunk.and_then(|chunk| chunk.statistics()?.null_count_opt());
        nulls.is_some_and(|nulls| i64::try_from(nulls) == Ok(group.num_rows()))
    };
    table.rows() > 0 && groups.iter().all(is_empty)
}

fn unreadable(manifest: &DatasetManifest, path: &Path, source: std::io::Error) -> DataError {
    match source.kind() {
        std::io::ErrorKind::InvalidInput => DataError::Content {
            dataset: manifest.name.clone(),
            place: shown(path),
            problem: format!("no readable Parquet file: {source}"),
        },
        _ => DataError::Io {
            path: path.to_path_buf(),
            source,
        },
    }
}
