//! Images that could not be used, with their reasons.

use bytes::Bytes;

use super::column::{Column, columns, read_rows, write_rows};
use super::error::Result;
use super::footer::{FileMeta, QuarantineRow};

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
/// Bytes that are not a Parquet file, metadata or columns of another table.
pub fn read_quarantine(bytes: Bytes, file: &str) -> Result<Vec<QuarantineRow>> {
    read_rows(&quarantine_columns(), bytes, file)
}
