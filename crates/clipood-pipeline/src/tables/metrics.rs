//! The result tables, tidy: one row a figure set.

use bytes::Bytes;

use super::column::{Column, columns, read_rows, write_rows};
use super::error::Result;
use super::footer::FileMeta;

/// How well one detector with one prompt set tells one OOD set from the ID images. Rates lie in 0 to 1; ID is positive
/// unless a name says `openood`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OodRow {
    /// Name of the prompt set.
    pub prompt: String,
    /// Method that made it.
    pub method: String,
    /// Training images a class; absent for zero-shot.
    pub shots: Option<u32>,
    /// Seed of split and training; absent for zero-shot.
    pub seed: Option<u64>,
    /// In-distribution dataset.
    pub id_dataset: String,
    /// Out-of-distribution dataset, or `average`.
    pub ood_dataset: String,
    /// Detector.
    pub detector: String,
    /// How hyperparameters were chosen: `fixed`, `validation` or `oracle`.
    pub selection: String,
    /// Scaling of a fused score: `transductive` or `calibrated`; absent for others.
    pub scaling: Option<String>,
    /// Training views an image; absent without training.
    pub views: Option<u32>,
    /// Hash of the class list.
    pub classes_hash: String,
    /// Hash of the model's weights.
    pub weights_hash: String,
    /// ID images.
    pub n_id: u64,
    /// OOD images; an average has their sum.
    pub n_ood: u64,
    /// Images of either side without a score (quarantine).
    pub n_excluded: u64,
    /// Area under the ROC curve, ties as one half.
    pub auroc: f64,
    /// Average precision, ID positive.
    pub aupr_in: f64,
    /// Average precision, OOD positive.
    pub aupr_out: f64,
    /// False positive rate where the recall of ID is nearest to 0.95.
    pub fpr95: f64,
    /// OOD positive, first threshold with a true positive rate of at least 0.95.
    pub fpr95_openood: f64,
    /// Trapezoid under the precision-recall curve, ID positive.
    pub aupr_in_openood: f64,
    /// Trapezoid under the precision-recall curve, OOD positive.
    pub aupr_out_openood: f64,
    /// Score threshold of `fpr95`; absent for an average.
    pub threshold95: Option<f64>,
    /// Best share of images on the right side of a threshold.
    pub detection_accuracy: f64,
    /// Best mean of the two sides' shares.
    pub balanced_accuracy: f64,
    /// Images less distinct scores; an average has the sum.
    pub ties: u64,
    /// Lower end of the 95% bootstrap interval of `auroc`; absent where none was drawn.
    pub auroc_lo: Option<f64>,
    /// Upper end of it.
    pub auroc_hi: Option<f64>,
    /// Lower end of the 95% bootstrap interval of `fpr95`; absent where none was drawn.
    pub fpr95_lo: Option<f64>,
    /// Upper end of it.
    pub fpr95_hi: Option<f64>,
}

fn ood_columns() -> Vec<Column<OodRow>> {
    columns!(OodRow:
        words prompt,
        words method,
        plain shots,
        plain seed,
        words id_dataset,
        words ood_dataset,
        words detector,
        words selection,
        words scaling,
        plain views,
        words classes_hash,
        words weights_hash,
        plain n_id,
        plain n_ood,
        plain n_excluded,
        plain auroc,
        plain aupr_in,
        plain aupr_out,
        plain fpr95,
        plain fpr95_openood,
        plain aupr_in_openood,
        plain aupr_out_openood,
        plain threshold95,
        plain detection_accuracy,
        plain balanced_accuracy,
        plain ties,
        plain auroc_lo,
        plain auroc_hi,
        plain fpr95_lo,
        plain fpr95_hi,
    )
}

/// How well one prompt set classifies the ID test images. Rates lie in 0 to 1.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AccuracyRow {
    /// Name of the prompt set.
    pub prompt: String,
    /// Method that made it.
    pub method: String,
    /// Training images a class; absent for zero-shot.
    pub shots: Option<u32>,
    /// Seed of split and training; absent for zero-shot.
    pub seed: Option<u64>,
    /// In-distribution dataset.
    pub id_dataset: String,
    /// Images.
    pub n: u64,
    /// Share whose best class is the right one.
    pub top1: f64,
    /// Share whose right class is among the best five.
    pub top5: f64,
    /// Expected calibration error of the best class's probability.
    pub ece: f64,
    /// Training views an image; absent without training.
    pub views: Option<u32>,
    /// Hash of the class list.
    pub classes_hash: String,
    /// Hash of the model's weights.
    pub weights_hash: String,
}

fn accuracy_columns() -> Vec<Column<AccuracyRow>> {
    columns!(AccuracyRow:
        words prompt,
        words method,
        plain shots,
        plain seed,
        words id_dataset,
        plain n,
        plain top1,
        plain top5,
        plain ece,
        plain views,
        words classes_hash,
        words weights_hash,
    )
}

/// Encodes `metrics/ood.parquet`.
///
/// # Errors
/// [`TableError::Metadata`](super::TableError::Metadata) if `meta.extra` holds a key that every table writes.
pub fn write_ood(rows: &[OodRow], meta: &FileMeta) -> Result<Vec<u8>> {
    write_rows("OOD metrics table", &ood_columns(), rows, meta)
}

/// Reads what [`write_ood`] wrote; `file` names it in errors.
///
/// # Errors
/// Bytes that are no Parquet file, metadata or columns that are not this table's.
pub fn read_ood(bytes: Bytes, file: &str) -> Result<Vec<OodRow>> {
    read_rows(&ood_columns(), bytes, file)
}

/// Encodes `metrics/accuracy.parquet`.
///
/// # Errors
/// [`TableError::Metadata`](super::TableError::Metadata) if `meta.extra` holds a key that every table writes.
pub fn write_accuracy(rows: &[AccuracyRow], meta: &FileMeta) -> Result<Vec<u8>> {
    write_rows("accuracy table", &accuracy_columns(), rows, meta)
}

/// Reads what [`write_accuracy`] wrote; `file` names it in errors.
///
/// # Errors
/// Bytes that are no Parquet file, metadata or columns that are not this table's.
pub fn read_accuracy(bytes: Bytes, file: &str) -> Result<Vec<AccuracyRow>> {
    read_rows(&accuracy_columns(), bytes, file)
}
