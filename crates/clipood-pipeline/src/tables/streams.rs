//! The table of stream metrics: one row per stream, where the metric tables have means over the orders of arrival.

use bytes::Bytes;

use super::column::{Column, columns, read_rows, write_rows};
use super::error::Result;
use super::footer::FileMeta;

/// How well a detector that learns from the images it scores separates one OOD set from the ID images, in one order of
/// arrival. Such rows are transductive: the score of an image depends on the others, their order and the batch size. Rates
/// are as in [`OodRow`](super::OodRow).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StreamRow {
    /// Name of the prompt set.
    pub prompt: String,
    /// Method that made it.
    pub method: String,
    /// Training images per class; absent for zero-shot.
    pub shots: Option<u32>,
    /// Seed of split and training; absent for zero-shot.
    pub seed: Option<u64>,
    /// In-distribution dataset.
    pub id_dataset: String,
    /// Out-of-distribution dataset, `average`, or `average:<group>`.
    pub ood_dataset: String,
    /// Detector.
    pub detector: String,
    /// How hyperparameters were chosen.
    pub selection: String,
    /// The chosen value; absent if nothing was chosen, and for averages over sets with different choices.
    pub hyperparameters: Option<String>,
    /// Seed of the order of arrival.
    pub order_seed: u64,
    /// Images that arrive together; absent for averages over sets with different choices of it.
    pub batch: Option<u32>,
    /// Hash of the class list.
    pub classes_hash: String,
    /// Hash of the model's weights.
    pub weights_hash: String,
    /// ID images.
    pub n_id: u64,
    /// OOD images; for an average their sum.
    pub n_ood: u64,
    /// Area under the ROC curve; ties count as one half.
    pub auroc: f64,
    /// Average precision with ID as the positive class.
    pub aupr_in: f64,
    /// Average precision with OOD as the positive class.
    pub aupr_out: f64,
    /// False positive rate at the threshold where the recall of ID is nearest to 0.95.
    pub fpr95: f64,
    /// False positive rate with OOD as the positive class, at the first threshold with a true positive rate of at least
    /// 0.95.
    pub fpr95_openood: f64,
}

fn stream_columns() -> Vec<Column<StreamRow>> {
    columns!(StreamRow:
        words prompt,
        words method,
        plain shots,
        plain seed,
        words id_dataset,
        words ood_dataset,
        words detector,
        words selection,
        words hyperparameters,
        plain order_seed,
        plain batch,
        words classes_hash,
        words weights_hash,
        plain n_id,
        plain n_ood,
        plain auroc,
        plain aupr_in,
        plain aupr_out,
        plain fpr95,
        plain fpr95_openood,
    )
}

/// Encodes `metrics/streams.parquet`.
///
/// # Errors
/// [`TableError::Metadata`](super::TableError::Metadata) if `meta.extra` holds a key that every table writes.
pub fn write_streams(rows: &[StreamRow], meta: &FileMeta) -> Result<Vec<u8>> {
    write_rows("stream metrics table", &stream_columns(), rows, meta)
}

/// Reads what [`write_streams`] wrote; `file` names it in errors.
///
/// # Errors
/// Bytes that are not a Parquet file, metadata or columns of another table.
pub fn read_streams(bytes: Bytes, file: &str) -> Result<Vec<StreamRow>> {
    read_rows(&stream_columns(), bytes, file)
}
