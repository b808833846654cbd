//! Reading a list of scores: a column of a table, or an array, as other programs write them.
//!
//! The kind of a file follows from its first bytes, and for texts from the ending of its name.

mod json;
mod record_batches;
mod text;

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use clipood_core::files::{open_file, read_file};
use clipood_core::nearest;
use clipood_pipeline::PipelineError;

use super::arrays::extension;
use super::npy::Npy;
use super::npz;

/// Longest text or array file that is read as a whole, in bytes.
pub const LONGEST_FILE: u64 = 8 << 30;

/// Reads the column called `wanted`, or the only numeric column; in an `.npz` file, the array. A plain list has no
/// columns, so `wanted` is ignored there. Scores may be infinite.
///
/// # Errors
/// A file of another kind, a missing or NaN entry in the column with its row, a table without or with several numeric
/// columns if `wanted` names none.
pub fn read_scores(path: &Path, wanted: Option<&str>) -> Result<Vec<f64>> {
    let what = || format!("cannot read {}", path.display());
    let mut file = open_file(path).with_context(what)?;
    let mut head = Vec::new();
    (&mut file)
        .take(16)
        .read_to_end(&mut head)
        .with_context(what)?;
    file.rewind().with_context(what)?;
    let kind = Kind::of(&head, &extension(path));
    let whole = || read_file(path, LONGEST_FILE).with_context(what);
    let given = || path.display().to_string();
    match kind {
        // The decoders panic on some corrupt files; that becomes an ordinary error.
        Kind::Parquet => guarded(path, || record_batches::parquet(path, file, wanted)),
        Kind::Arrow => {
            let file: BufReader<File> = BufReader::new(file);
            guarded(path, || record_batches::ipc(path, file, wanted))
        }
        Kind::Npy => array_scores(&whole()?).with_context(given),
        Kind::Npz => {
            let bytes = whole()?;
            let member = npz::member(&bytes, wanted, "--column").with_context(given)?;
            array_scores(&member).with_context(given)
        }
        Kind::Csv => text::column(path, &whole()?, wanted),
        Kind::Json { lines } => json::column(path, &whole()?, lines, wanted),
        Kind::Refused(advice) => bail!("{}: {advice}", path.display()),
        Kind::Unknown => Err(PipelineError::Usage(format!(
            "{}: expected a file named .parquet, .feather, .csv, .tsv, .txt, .json, .jsonl, .npy or .npz",
            path.display()
        ))
        .into()),
    }
}

/// What a file is.
enum Kind {
    Parquet,
    Arrow,
    Npy,
    Npz,
    Csv,
    Json {
        /// Whether every line is a value of its own.
        lines: bool,
    },
    /// Known but not read, with what to do.
    Refused(&'static str),
    Unknown,
}

impl Kind {
    fn of(head: &[u8], extension: &str) -> Self {
        const PICKLE: &str =
            "a file of Python's pickle or torch.save; save the array with numpy.save(FILE, tensor.numpy())";
        const EXCEL: &str = "an Excel workbook; export the sheet as CSV";
        const COMPRESSED: &str = "a compressed file; decompress it first";
        match head {
            [b'P', b'A', b'R', b'1', ..] => return Self::Parquet,
            [b'A', b'R', b'R', b'O', b'W', b'1', ..] => return Self::Arrow,
            [b'F', b'E', b'A', b'1', ..] => {
                return Self::Refused("a Feather file of version 1; write version 2 or Parquet");
            }
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => return Self::Npy,
            [b'P', b'K', 3, 4, ..] if ["xlsx", "xlsm", "ods"].contains(&extension) => {
                return Self::Refused(EXCEL);
            }
            [b'P', b'K', 3 | 5, ..] => return Self::Npz,
            [0xD0, 0xCF, 0x11, 0xE0, ..] => return Self::Refused(EXCEL),
            [0x80, 2..=5, ..] => return Self::Refused(PICKLE),
            [0x1F, 0x8B, ..] | [0x28, 0xB5, 0x2F, 0xFD, ..] | [b'B', b'Z', b'h', ..] => {
                return Self::Refused(COMPRESSED);
            }
            [0x89, b'H', b'D', b'F', ..] => {
                return Self::Refused("an HDF5 file; save the array with numpy.save");
            }
            _ => {}
        }
        match extension {
            "parquet" | "pq" => Self::Parquet,
            "feather" | "arrow" | "ipc" => Self::Arrow,
            "npy" => Self::Npy,
            "npz" => Self::Npz,
            "csv" | "tsv" | "tab" | "txt" | "dat" => Self::Csv,
            "json" => Self::Json { lines: false },
            "jsonl" | "ndjson" => Self::Json { lines: true },
            "pt" | "pth" | "bin" | "ckpt" | "pkl" | "pickle" => Self::Refused(PICKLE),
            "xlsx" | "xlsm" | "xls" | "ods" => Self::Refused(EXCEL),
            "gz" | "zst" | "bz2" | "xz" => Self::Refused(COMPRESSED),
            _ => Self::Unknown,
        }
    }
}

fn guarded(path: &Path, read: impl FnOnce() -> Result<Vec<f64>>) -> Result<Vec<f64>> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(anyhow!("{}: the file is corrupt", path.display())))
}

/// Scores of an array `[n]` or `[n, 1]`.
fn array_scores(bytes: &[u8]) -> Result<Vec<f64>> {
    let array = Npy::parse(bytes)?;
    let ([_] | [_, 1]) = array.shape[..] else {
        bail!("has shape {:?}, expected [n] or [n, 1]", array.shape);
    };
    let values = array.wide()?;
    if let Some(row) = values.iter().position(|value| value.is_nan()) {
        bail!("row {row} is NaN, expected a score");
    }
    Ok(values)
}

/// A column that may be chosen.
struct Candidate<'a> {
    name: &'a str,
    /// Whether it holds numbers.
    is_numeric: bool,
    /// Whether it is the row index of a data frame, which is no score.
    is_index: bool,
}

/// Index of the wanted column, or of the only numeric one.
fn choose(path: &Path, columns: &[Candidate<'_>], wanted: Option<&str>) -> Result<usize> {
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    let numbers: Vec<usize> = (0..columns.len())
        .filter(|&at| columns[at].is_numeric && !columns[at].is_index)
        .collect();
    let file = path.display();
    let problem = match (wanted, &numbers[..]) {
        (Some(wanted), _) => {
            let found: Vec<usize> = (0..names.len())
                .filter(|&at| names[at] == wanted)
                .collect();
            match found[..] {
                [at] if columns[at].is_numeric => return Ok(at),
                [_] => format!("{file}: column `{wanted}` holds no numbers"),
                [] => {
                    let hint = nearest(wanted, names.iter().copied())
                        .map_or(String::new(), |close| format!("; did you mean `{close}`?"));
                    format!(
                        "{file}: no column `{wanted}`{hint} (columns: {})",
                        names.join(", ")
                    )
                }
                _ => format!(
                    "{file}: found {} columns `{wanted}`, expected one",
                    found.len()
                ),
            }
        }
        (None, [only]) => return Ok(*only),
        (None, []) => format!(
            "{file}: no column of numbers (columns: {})",
            names.join(", ")
        ),
        (None, several) => {
            let several: Vec<&str> = several.iter().map(|&at| names[at]).collect();
            format!(
                "{file}: several columns of numbers, choose one with --column: {}",
                several.join(", ")
            )
        }
    };
    Err(PipelineError::Usage(problem).into())
}

/// A column of a text or JSON table while it is read.
#[derive(Default)]
struct Column {
    name: String,
    is_index: bool,
    values: Vec<f64>,
    /// Entries that are numbers, NaN among them, and entries that are texts.
    numbers: usize,
    texts: usize,
    /// Place of the first entry that is no score, and what it is.
    bad: Option<(String, String)>,
}

/// An entry of a text or JSON table.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cell<'a> {
    /// A number, which may be infinite or NaN.
    Number(f64),
    /// Nothing, as the file writes it.
    Missing(&'a str),
    /// Anything else.
    Text(&'a str),
}

impl Column {
    fn push(&mut self, cell: Cell<'_>, place: impl Fn() -> String) {
        let problem = match cell {
            Cell::Number(value) => {
                self.numbers += 1;
                if !value.is_nan() {
                    self.values.push(value);
                    return;
                }
                "found NaN, expected a number".to_owned()
            }
            Cell::Missing(text) => format!("the value is missing (`{text}`)"),
            Cell::Text(text) => {
                self.texts += 1;
                format!("`{text}` is no number")
            }
        };
        self.bad.get_or_insert_with(|| (place(), problem));
    }
}

/// The values of the wanted column, or of the only numeric one.
fn chosen(path: &Path, mut columns: Vec<Column>, wanted: Option<&str>) -> Result<Vec<f64>> {
    let alone = columns.len() == 1;
    let candidates: Vec<Candidate<'_>> = columns
        .iter()
        .map(|column| Candidate {
            name: &column.name,
            // A column of scores in which some are missing or are words is no other column's excuse: it is reported. The
            // requested column, or the only one, is read in any case.
            is_numeric: column.numbers > column.texts || alone || wanted == Some(&*column.name),
            is_index: column.is_index && !alone,
        })
        .collect();
    let at = choose(path, &candidates, wanted)?;
    let column = columns.swap_remove(at);
    if let Some((place, problem)) = column.bad {
        bail!(
            "{}: column `{}`, {place}: {problem}",
            path.display(),
            column.name
        );
    }
    Ok(column.values)
}
