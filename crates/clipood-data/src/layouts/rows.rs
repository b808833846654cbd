//! The rows of a table of images.

use std::io::BufRead;
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use clipood_core::{DatasetManifest, nearest, shown};

use crate::byte_file::ByteFile;
use crate::csv_file::{CsvError, CsvFile};
use crate::error::DataError;
use crate::table::Table;

const IMAGES: [&str; 9] = [
    "path",
    "uri",
    "url",
    "file_name",
    "filename",
    "filepath",
    "image_path",
    "file",
    "image",
];
const LABELS: [&str; 5] = ["label", "class", "class_name", "labels", "target"];
const SPLITS: [&str; 1] = ["split"];

/// The cells of a row that matter; empty ones are absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row<'a> {
    /// Path or URL.
    pub image: Option<&'a str>,
    /// Class.
    pub label: Option<&'a str>,
    /// Split; the outer option is absent if there is no such column.
    pub split: Option<Option<&'a str>>,
}

type Each<'a, E> = &'a mut dyn FnMut(u64, Row<'_>) -> Result<(), E>;

/// Calls `each` with the number and the cells of every row. Rows of a Parquet file are numbered from 0, those of a CSV file by
/// their lines.
///
/// # Errors
/// A table that cannot be read, has no column of paths, or not the columns that the manifest names; the first of `each`.
pub(super) fn for_each_row<E: From<DataError>>(
    manifest: &DatasetManifest,
    path: &Path,
    each: Each<'_, E>,
) -> Result<(), E> {
    let table = TableFile { manifest, path };
    let is_parquet = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("parquet"));
    match is_parquet {
        true => table.parquet(each),
        false => table.csv(each),
    }
}

struct TableFile<'a> {
    manifest: &'a DatasetManifest,
    path: &'a Path,
}

/// Places of the columns.
struct Places {
    image: usize,
    label: Option<usize>,
    split: Option<usize>,
}

impl TableFile<'_> {
    fn wrong(&self, problem: impl ToString) -> DataError {
        DataError::Content {
            dataset: self.manifest.name.clone(),
            place: shown(self.path),
            problem: problem.to_string(),
        }
    }

    fn io(&self, source: std::io::Error) -> DataError {
        match source.kind() {
            std::io::ErrorKind::InvalidInput => self.wrong(source),
            _ => DataError::Io {
                path: self.path.to_path_buf(),
                source,
            },
        }
    }

    fn places(&self, columns: &[&str]) -> Result<Places, DataError> {
        let place = |named: &Option<String>, usual: &[&str], key: &str| match named {
            None => {
                let mut usual = usual.iter();
                let place = |name: &&str| columns.iter().position(|c| c.eq_ignore_ascii_case(name));
                Ok(usual.find_map(place))
            }
            Some(name) => match columns.iter().position(|column| column == name) {
                Some(place) => Ok(Some(place)),
                None => {
                    let close = nearest(name, columns.iter().copied());
                    let hint = close.map_or_else(
                        || format!("found {}", columns.join(", ")),
                        |close| format!("did you mean `{close}`?"),
                    );
                    Err(self.wrong(format!("no column `{name}` (`columns.{key}`); {hint}")))
                }
            },
        };
        let named = &self.manifest.columns;
        let image = place(&named.image, &IMAGES, "image")?.ok_or_else(|| {
            self.wrong(format!(
                "no column of paths, expected `path`, or another one that `columns.image` names; found {}",
                columns.join(", ")
            ))
        })?;
        let splits = match (&named.split, self.manifest.splits.is_empty()) {
            (None, false) => None,
            (split, _) => place(split, &SPLITS, "split")?,
        };
        Ok(Places {
            image,
            label: place(&named.label, &LABELS, "label")?,
            split: splits,
        })
    }

    fn csv<E: From<DataError>>(&self, each: Each<'_, E>) -> Result<(), E> {
        let file = ByteFile::open(self.path).map_err(|error| self.io(error))?;
        let mut first = Vec::new();
        file.reader(0)
            .read_until(b'\n', &mut first)
            .map_err(|error| self.io(error))?;
        let failed = |error| match error {
            CsvError::Io(error) => self.io(error),
            CsvError::Text(problem) => self.wrong(problem),
        };
        let mut rows = CsvFile::new(file.reader(0), delimiter(&first), false).map_err(failed)?;
        let names = rows.names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let places = self.places(&names)?;
        while let Some((line, record)) = rows.next().map_err(failed)? {
            let cell = |place: usize| record.get(place).filter(|cell| !cell.is_empty());
            let row = Row {
                image: cell(places.image),
                label: places.label.and_then(cell),
                split: places.split.map(cell),
            };
            each(line, row)?;
        }
        Ok(())
    }

    fn parquet<E: From<DataError>>(&self, each: Each<'_, E>) -> Result<(), E> {
        let table = Table::open(self.path).map_err(|error| self.io(error))?;
        let schema = table.metadata().schema().clone();
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let places = self.places(&names)?;
        let mut roots = vec![places.image];
        roots.extend(places.label);
        roots.extend(places.split);
        let read = table.for_each_batch(&roots, |first, batch| {
            let column = |place: usize| self.texts(batch, names[place]);
            let images = column(places.image)?;
            let labels = places.label.map(column).transpose()?;
            let splits = places.split.map(column).transpose()?;
            for row in 0..batch.num_rows() {
                let cells = Row {
                    image: cell(&images, row),
                    label: labels.as_ref().and_then(|labels| cell(labels, row)),
                    split: splits.as_ref().map(|splits| cell(splits, row)),
                };
                each(first + row as u64, cells)?;
            }
            Ok::<(), E>(())
        });
        read.map_err(|error| self.io(error))?
    }

    fn texts(&self, batch: &RecordBatch, name: &str) -> Result<StringArray, DataError> {
        let array = batch.column_by_name(name);
        let array = array.ok_or_else(|| self.wrong(format!("no column `{name}`")))?;
        let texts = cast(array, &DataType::Utf8)
            .map_err(|error| self.wrong(format!("column `{name}`: {error}")))?;
        Ok(texts.as_string::<i32>().clone())
    }
}

fn cell(texts: &StringArray, row: usize) -> Option<&str> {
    let text = (!texts.is_null(row)).then(|| texts.value(row).trim());
    text.filter(|text| !text.is_empty())
}

/// What separates the cells of a heading: the most frequent of tab, comma and semicolon.
fn delimiter(heading: &[u8]) -> u8 {
    let count = |byte: &u8| heading.iter().filter(|b| *b == byte).count();
    let all = [b';', b'\t', b','];
    all.into_iter().max_by_key(count).unwrap_or(b',')
}
