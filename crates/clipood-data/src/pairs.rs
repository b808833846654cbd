//! Images with their captions: CSV files as open_clip and Flickr have them, JSON as COCO has it, Parquet files, WebDataset's
//! archives.

mod json;
mod stored;
mod text;

use std::path::{Path, PathBuf};

use clipood_core::{first_of, nearest};

use crate::error::DataError;
use crate::source::Source;

/// Headings of the column of images, the first that a file has counts.
const IMAGES: [&str; 11] = [
    "image_key",
    "image",
    "filepath",
    "file_name",
    "filename",
    "image_name",
    "image_path",
    "path",
    "file",
    "url",
    "img",
];
/// Headings of the column of captions.
const CAPTIONS: [&str; 7] = [
    "caption",
    "text",
    "title",
    "comment",
    "sentence",
    "captions",
    "sentences",
];

/// Columns that a message lists.
const LISTED: usize = 20;

/// Names of the columns, if they are given: keys of the objects in JSON, whose other forms have fixed names. In an archive the caption is a key of JSON files or the ending of text files, and
/// the image is what is named as one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PairColumns {
    /// Column of the images: paths, URLs, or the encoded bytes in a Parquet file.
    pub image: Option<String>,
    /// Column of the captions: texts, or lists of texts in Parquet and JSON files.
    pub caption: Option<String>,
}

/// What a row says about its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairImage {
    /// A path or URL, as the file spells it.
    Named(String),
    /// The bytes are in the file itself.
    Stored(Source),
}

/// A row of a file of pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairRow {
    /// Number of the row, see [`PairRows::place`].
    pub number: u64,
    /// The image; absent where the cell is empty.
    pub image: Option<PairImage>,
    /// The captions that are not empty.
    pub captions: Vec<String>,
}

/// The rows of a file of pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairRows {
    /// The file.
    pub path: PathBuf,
    /// At least one.
    pub rows: Vec<PairRow>,
    unit: &'static str,
}

impl PairRows {
    /// Reads a file: Parquet, JSON (`.json`, `.jsonl`, `.ndjson`) or an archive (`.tar`) if it is named so, else text with one pair per line, whose
    /// first line names the columns, separated by commas, tabs, semicolons or bars. Without names in `columns` the usual
    /// headings are looked for: open_clip's `filepath` and `title`, `image` and `caption`, and others.
    ///
    /// # Errors
    /// A file that cannot be read, lacks a column, or has no row.
    pub fn read(path: &Path, columns: &PairColumns) -> Result<Self, DataError> {
        let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
        let ending = ending.as_ref().and_then(|ending| ending.to_str());
        let (unit, rows) = match ending {
            Some("parquet") => ("row", stored::of_parquet(path, columns)?),
            Some("json" | "jsonl" | "ndjson") => ("entry", json::of_json(path, columns)?),
            Some("tar") => ("sample", stored::of_archive(path, columns)?),
            _ => ("line", text::of_lines(path, columns)?),
        };
        match rows.is_empty() {
            true => Err(wrong(path, "holds no pair")),
            false => Ok(Self {
                path: path.to_path_buf(),
                rows,
                unit,
            }),
        }
    }

    /// Where a row stands: `line 3` of a text, counted from 1; `row 2` of a Parquet file, `entry 2` of a JSON file or
    /// `sample 2` of an archive, counted from 0.
    pub fn place(&self, row: &PairRow) -> String {
        format!("{} {}", self.unit, row.number)
    }
}

fn wrong(path: &Path, problem: impl ToString) -> DataError {
    DataError::Pairs {
        path: path.to_path_buf(),
        problem: problem.to_string(),
    }
}

/// Place of the column `named`, or else of the first of the `usual` ones that is there, among the `found`.
fn column(
    named: Option<&str>,
    usual: &[&str],
    what: &str,
    found: &[&str],
) -> Result<usize, String> {
    let place = |name: &str| found.iter().position(|f| f.eq_ignore_ascii_case(name));
    let all = || {
        first_of(
            found.iter().map(|name| (*name).to_owned()),
            found.len(),
            LISTED,
        )
    };
    let Some(name) = named else {
        return usual.iter().find_map(|name| place(name)).ok_or_else(|| {
            let usual = usual.join(", ");
            format!(
                "no column of {what}: found {}, expected one of {usual}",
                all()
            )
        });
    };
    place(name).ok_or_else(|| match nearest(name, found.iter().copied()) {
        Some(close) => format!(
            "no column `{name}` of {what}: did you mean `{close}`? Found {}",
            all()
        ),
        None => format!("no column `{name}` of {what}: found {}", all()),
    })
}

/// A cell without white space around it; `None` if nothing is left.
fn filled(cell: &str) -> Option<String> {
    let cell = cell.trim();
    (!cell.is_empty()).then(|| cell.to_owned())
}
