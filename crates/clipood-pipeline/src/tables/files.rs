//! The list of a dataset's files when it was planned, with which a later call compares its folders.

use bytes::Bytes;

use super::column::{Column, columns, read_rows, write_rows};
use super::error::Result;
use super::footer::FileMeta;

/// One image file of a dataset, whether the plan uses it or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileRow {
    /// Path relative to the root of the dataset.
    pub name: String,
    /// Size in bytes; absent if it could not be looked up.
    pub bytes: Option<u64>,
    /// Time of the last modification, in nanoseconds since 1970; absent if it could not be looked up.
    pub modified: Option<u64>,
}

fn file_columns() -> Vec<Column<FileRow>> {
    columns!(FileRow: plain name, plain bytes, plain modified)
}

/// Encodes a list of files.
///
/// # Errors
/// [`TableError::Metadata`](super::TableError::Metadata) if `meta.extra` holds a key that every table writes.
pub fn write_files(rows: &[FileRow], meta: &FileMeta) -> Result<Vec<u8>> {
    write_rows("files table", &file_columns(), rows, meta)
}

/// Reads what [`write_files`] wrote; `file` names it in errors.
///
/// # Errors
/// Bytes that are not a Parquet file, metadata or columns of another table.
pub fn read_files(bytes: Bytes, file: &str) -> Result<Vec<FileRow>> {
    read_rows(&file_columns(), bytes, file)
}
