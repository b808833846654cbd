//! The log of a prompt training.

use bytes::Bytes;

use super::column::{Column, columns, read_rows, write_rows};
use super::error::Result;
use super::footer::FileMeta;

/// One epoch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainLogRow {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Steps done after it.
    pub step: u64,
    /// Mean loss of its steps.
    pub loss: f64,
    /// Share of training views that were classified correctly, 0 to 1.
    pub accuracy: f64,
    /// Learning rate.
    pub lr: f64,
}

fn train_log_columns() -> Vec<Column<TrainLogRow>> {
    columns!(TrainLogRow: plain epoch, plain step, plain loss, plain accuracy, plain lr)
}

/// Encodes a training log.
///
/// # Errors
/// [`TableError::Metadata`](super::TableError::Metadata) if `meta.extra` holds a key that every table writes.
pub fn write_train_log(rows: &[TrainLogRow], meta: &FileMeta) -> Result<Vec<u8>> {
    write_rows("training log", &train_log_columns(), rows, meta)
}

/// Reads what [`write_train_log`] wrote; `file` names it in errors.
///
/// # Errors
/// Bytes that are not a Parquet file, metadata or columns of another table.
pub fn read_train_log(bytes: Bytes, file: &str) -> Result<Vec<TrainLogRow>> {
    read_rows(&train_log_columns(), bytes, file)
}
