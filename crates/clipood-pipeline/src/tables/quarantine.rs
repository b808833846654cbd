//! Images that could not be used, with their reasons.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::column::{Column, columns, read_rows, write_rows};
use super::error::Result;
use super::footer::FileMeta;

/// One image that a unit left out. It also stands in the footer of the unit's part, so that a run that reuses the part
/// reports it again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QuarantineRow {
    /// `dataset/split/relative/path`.
    pub image_key: String,
    /// The file, or the archive that holds it.
    pub uri: String,
    /// Stage that could not use it.
    pub stage: String,
    /// Kind of error, one word of few.
    pub error_kind: String,
    /// The error.
    pub message: String,
    /// blake3 of the image's bytes, hexadecimal; empty if they could not be read.
    pub content_hash: String,
}

fn quarantine_columns() -> Vec<Column<QuarantineRow>> {
    columns!(QuarantineRow:
        plain image_key,
        plain uri,
        words stage,
        words error_kind,
        plain message,
        plain content_hash,
    )
}

/// Encodes a quarantine table.
///
/// # Errors
/// [`TableError::Metadata`](super::TableError::Metadata) if `meta.extra` holds a key that every table writes.
pub fn write_quarantine(rows: &[QuarantineRow], meta: &FileMeta) -> Result<Vec<u8>> {
    write_rows("quarantine table", &quarantine_columns(), rows, meta)
}

/// Reads what [`write_quarantine`] wrote; `file` names it in errors.
///
/// # Errors
/// Bytes that are no Parquet file, metadata or columns that are not this table's.
pub fn read_quarantine(bytes: Bytes, file: &str) -> Result<Vec<QuarantineRow>> {
    read_rows(&quarantine_columns(), bytes, file)
}
