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
    /// Out-of-distribution dataset, `average`, or `average:<group>`.
    pub ood_dataset: String,
    /// Detector.
    pub detector: String,
    /// How hyperparameters were chosen: `fixed`, `validation`, `oracle` or `oracle-shared`.
    pub selection: String,
    /// Scaling of a fused score: `transductive` or `calibrated`; absent for others.
    pub scaling: Option<String>,
    /// What was chosen, as `t=0.5`; absent where nothing was, and for averages over sets that differ in it.
    pub hyperparameters: Option<String>,
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
    /// Distinct scores an image, 0 to 1: below 0.01, equal scores decide the figures.
    pub score_resolution: f64,
    /// Lower end of the 95% bootstrap interval of `auroc`; absent where none was drawn.
    pub auroc_lo: Option<f64>,
    /// Upper end of it.
    pub auroc_hi: Option<f64>,
    /// Lower end of the 95% bootstrap interval of `fpr95`; absent where none was drawn.
    pub fpr95_lo: Option<f64>,
    /// Upper end of it.
    pub fpr95_hi: Option<f64>,
    /// What the detector says of its fit, such as what it did about a covariance without full rank; absent where it has
    /// nothing to say.
    pub notes: Option<String>,
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
        words hyperparameters,
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
        plain score_resolution,
        plain auroc_lo,
        plain auroc_hi,
        plain fpr95_lo,
        plain fpr95_hi,
        words notes,
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

/// Mean and standard deviation over seeds of one line of the OOD table; `n - 1` in the deviation, absent for one seed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SummaryRow {
    /// Method of the prompt sets.
    pub method: String,
    /// Training images a class; absent for zero-shot.
    pub shots: Option<u32>,
    /// In-distribution dataset.
    pub id_dataset: String,
    /// Out-of-distribution dataset, `average`, or `average:<group>`.
    pub ood_dataset: String,
    /// Detector.
    pub detector: String,
    /// How hyperparameters were chosen.
    pub selection: String,
    /// Scaling of a fused score; absent for others.
    pub scaling: Option<String>,
    /// Seeds, 1 for zero-shot.
    pub seeds: u32,
    /// Mean of `auroc`.
    pub auroc: f64,
    /// Its standard deviation.
    pub auroc_std: Option<f64>,
    /// Mean of `fpr95`.
    pub fpr95: f64,
    /// Its standard deviation.
    pub fpr95_std: Option<f64>,
    /// Mean of `fpr95_openood`.
    pub fpr95_openood: f64,
    /// Its standard deviation.
    pub fpr95_openood_std: Option<f64>,
    /// Mean of `aupr_in`.
    pub aupr_in: f64,
    /// Its standard deviation.
    pub aupr_in_std: Option<f64>,
    /// Mean of `aupr_out`.
    pub aupr_out: f64,
    /// Its standard deviation.
    pub aupr_out_std: Option<f64>,
    /// Mean of the prompt sets' ID accuracy.
    pub top1: f64,
    /// Its standard deviation.
    pub top1_std: Option<f64>,
}

fn summary_columns() -> Vec<Column<SummaryRow>> {
    columns!(SummaryRow:
        words method,
        plain shots,
        words id_dataset,
        words ood_dataset,
        words detector,
        words selection,
        words scaling,
        plain seeds,
        plain auroc,
        plain auroc_std,
        plain fpr95,
        plain fpr95_std,
        plain fpr95_openood,
        plain fpr95_openood_std,
        plain aupr_in,
        plain aupr_in_std,
        plain aupr_out,
        plain aupr_out_std,
        plain top1,
        plain top1_std,
    )
}

/// A trained prompt set against zero-shot on the same images: differences (trained less zero-shot) over the same bootstrap
/// resamples, with 95% intervals.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PairedRow {
    /// Name of the prompt set.
    pub prompt: String,
    /// Method that made it.
    pub method: String,
    /// Training images a class.
    pub shots: Option<u32>,
    /// Seed of split and training.
    pub seed: Option<u64>,
    /// The prompt set it is compared with.
    pub baseline: String,
    /// In-distribution dataset.
    pub id_dataset: String,
    /// Out-of-distribution dataset.
    pub ood_dataset: String,
    /// Detector.
    pub detector: String,
    /// Difference of AUROC.
    pub auroc_diff: f64,
    /// Lower end of its interval.
    pub auroc_diff_lo: f64,
    /// Upper end of it.
    pub auroc_diff_hi: f64,
    /// Share of resamples where the trained set has the larger AUROC.
    pub auroc_larger: f64,
    /// Difference of FPR95.
    pub fpr95_diff: f64,
    /// Lower end of its interval.
    pub fpr95_diff_lo: f64,
    /// Upper end of it.
    pub fpr95_diff_hi: f64,
    /// Share of resamples where the trained set has the smaller FPR95.
    pub fpr95_smaller: f64,
}

fn paired_columns() -> Vec<Column<PairedRow>> {
    columns!(PairedRow:
        words prompt,
        words method,
        plain shots,
        plain seed,
        words baseline,
        words id_dataset,
        words ood_dataset,
        words detector,
        plain auroc_diff,
        plain auroc_diff_lo,
        plain auroc_diff_hi,
        plain auroc_larger,
        plain fpr95_diff,
        plain fpr95_diff_lo,
        plain fpr95_diff_hi,
        plain fpr95_smaller,
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

/// Encodes `metrics/summary.parquet`.
///
/// # Errors
/// [`TableError::Metadata`](super::TableError::Metadata) if `meta.extra` holds a key that every table writes.
pub fn write_summary(rows: &[SummaryRow], meta: &FileMeta) -> Result<Vec<u8>> {
    write_rows("summary table", &summary_columns(), rows, meta)
}

/// Reads what [`write_summary`] wrote; `file` names it in errors.
///
/// # Errors
/// Bytes that are no Parquet file, metadata or columns that are not this table's.
pub fn read_summary(bytes: Bytes, file: &str) -> Result<Vec<SummaryRow>> {
    read_rows(&summary_columns(), bytes, file)
}

/// Encodes `metrics/paired.parquet`.
///
/// # Errors
/// [`TableError::Metadata`](super::TableError::Metadata) if `meta.extra` holds a key that every table writes.
pub fn write_paired(rows: &[PairedRow], meta: &FileMeta) -> Result<Vec<u8>> {
    write_rows("paired table", &paired_columns(), rows, meta)
}

/// Reads what [`write_paired`] wrote; `file` names it in errors.
///
/// # Errors
/// Bytes that are no Parquet file, metadata or columns that are not this table's.
pub fn read_paired(bytes: Bytes, file: &str) -> Result<Vec<PairedRow>> {
    read_rows(&paired_columns(), bytes, file)
}
