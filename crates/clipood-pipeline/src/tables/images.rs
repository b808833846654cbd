//! The table of the plan: every image of a run, with its location and shard.

use bytes::Bytes;

use super::column::{Column, columns, read_rows, write_rows};
use super::error::Result;
use super::footer::FileMeta;

/// One image of the plan. The dataset is the hive key of the folder (`images/dataset=<d>/`), not a column.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageRow {
    /// `dataset/split/relative/path`.
    pub image_key: String,
    /// The file, or the archive that holds it.
    pub uri: String,
    /// Offset of its first byte in `uri`, or whatever `form` says; absent if the image is the whole file.
    pub offset: Option<u64>,
    /// Size in bytes; absent if it could not be read.
    pub length: Option<u64>,
    /// BLAKE3 hash of the image's bytes, hexadecimal.
    pub content_hash: String,
    /// `train`, `val` or `test`.
    pub split: String,
    /// Class, from 0; absent out of distribution.
    pub label: Option<u32>,
    /// Name of the class or folder.
    pub class_name: Option<String>,
    /// Shard of the image.
    pub shard: u32,
    /// How `uri` holds the image, if not as a file or as bytes of one: `row:<column>` for the row `offset` of a Parquet file.
    /// Plans of earlier builds have no such column.
    pub form: Option<String>,
}

fn image_columns() -> Vec<Column<ImageRow>> {
    columns!(ImageRow:
        plain image_key,
        plain uri,
        plain offset,
        plain length,
        plain content_hash,
        words split,
        plain label,
        words class_name,
        plain shard,
        added form,
    )
}

/// Encodes the images of one dataset.
///
/// # Errors
/// [`TableError::Metadata`](super::TableError::Metadata) if `meta.extra` holds a key that every table writes.
pub fn write_images(rows: &[ImageRow], meta: &FileMeta) -> Result<Vec<u8>> {
    write_rows("images table", &image_columns(), rows, meta)
}

/// Reads what [`write_images`] wrote; `file` names it in errors.
///
/// # Errors
/// Bytes that are not a Parquet file, metadata or columns of another table.
pub fn read_images(bytes: Bytes, file: &str) -> Result<Vec<ImageRow>> {
    read_rows(&image_columns(), bytes, file)
}
