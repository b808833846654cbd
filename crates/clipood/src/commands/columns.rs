//! Reading a list of scores: a column of a table, or an array, as other programs write them.
//!
//! The kind of a file follows from its first bytes, and for texts from the ending of its name.

mod choose;
mod json;
mod parquet_column;
mod text;

use std::io::{Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use clipood_core::files::{open_file, read_file};
use clipood_pipeline::PipelineError;

use super::arrays::{LONGEST_FILE, extension};
use super::npy::Npy;
use super::npz;

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
        // The decoder panics on some corrupt files; that becomes an ordinary error.
        Kind::Parquet => catch_unwind(AssertUnwindSafe(|| {
            parquet_column::column(path, file, wanted)
        }))
        .unwrap_or_else(|_| Err(anyhow!("{}: the Parquet file is corrupt", path.display()))),
        Kind::Npy => array_scores(&whole()?).with_context(given),
        Kind::Npz => {
            let bytes = whole()?;
            let member = npz::member(&bytes, wanted, "--column").with_context(given)?;
            array_scores(&member).with_context(given)
        }
        Kind::Csv => text::column(path, whole()?, wanted),
        Kind::Json { lines } => json::column(path, whole()?, lines, wanted),
        Kind::Refused(advice) => bail!("{}: {advice}", path.display()),
        Kind::Unknown => Err(PipelineError::Usage(format!(
            "{}: expected a file named .parquet, .csv, .tsv, .txt, .json, .jsonl, .npy or .npz",
            path.display()
        ))
        .into()),
    }
}

/// What a file is.
enum Kind {
    Parquet,
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
        const PICKLE: &str = "a file of Python's pickle or torch.save; save the array with numpy.save(FILE, tensor.numpy())";
        const FEATHER: &str = "an Arrow file (Feather); write Parquet";
        const EXCEL: &str = "an Excel workbook; export the sheet as CSV";
        const COMPRESSED: &str = "a compressed file; decompress it first";
        match head {
            [b'P', b'A', b'R', b'1', ..] => return Self::Parquet,
            [b'A', b'R', b'R', b'O', b'W', b'1', ..] | [b'F', b'E', b'A', b'1', ..] => {
                return Self::Refused(FEATHER);
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
            "feather" | "arrow" | "ipc" => Self::Refused(FEATHER),
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
