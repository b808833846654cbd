//! The tables of metrics, in tidy form.

use bytes::Bytes;

use super::column::{Column, columns, read_rows, write_rows};
use super::error::Result;
use super::footer::FileMeta;

/// How well one detector with one prompt set separates one OOD set from the ID images. Rates are between 0 and 1; ID is
/// the positive class, except in columns with `openood` in their name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OodRow {
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
    /// How hyperparameters were chosen: `fixed`, or `validation`, `oracle` or `oracle-shared`, which maximise AUROC - FPR95.
    pub selection: String,
    /// Scaling of a fused score: `transductive` or `calibrated`; absent for others.
    pub scaling: Option<String>,
    /// The chosen value, as in `t=0.5`; absent if nothing was chosen, and for averages over sets with different
    /// choices.
    pub hyperparameters: Option<String>,
    /// Training views per image; absent without training.
    pub views: Option<u32>,
    /// Hash of the class list.
    pub classes_hash: String,
    /// Hash of the model's weights.
    pub weights_hash: String,
    /// ID images.
    pub n_id: u64,
    /// OOD images; for an average their sum.
    pub n_ood: u64,
    /// Images of both sides without a score (quarantine).
    pub n_excluded: u64,
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
    /// Trapezoidal area under the precision-recall curve with ID as the positive class.
    pub aupr_in_openood: f64,
    /// Trapezoidal area under the precision-recall curve with OOD as the positive class.
    pub aupr_out_openood: f64,
    /// Score threshold of `fpr95`; absent for an average.
    pub threshold95: Option<f64>,
    /// Largest share of images on the right side of a threshold.
    pub detection_accuracy: f64,
    /// Largest mean of the shares of ID and of OOD images on the right side of a threshold.
    pub balanced_accuracy: f64,
    /// Number of images minus number of distinct scores; for an average the sum.
    pub ties: u64,
    /// Distinct scores per image, 0 to 1; below 0.01, ties dominate the metrics.
    pub score_resolution: f64,
    /// Lower end of the 95% bootstrap interval of `auroc`; absent without bootstrap, and for averages in tables of earlier
    /// versions.
    pub auroc_lo: Option<f64>,
    /// Upper end of it.
    pub auroc_hi: Option<f64>,
    /// Lower end of the 95% bootstrap interval of `fpr95`; absent without bootstrap.
    pub fpr95_lo: Option<f64>,
    /// Upper end of it.
    pub fpr95_hi: Option<f64>,
    /// Notes of the detector on its fit, for instance on a covariance without full rank; absent if there are none.
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

/// How well one prompt set classifies the ID test images. Rates are between 0 and 1.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AccuracyRow {
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
    /// Images.
    pub n: u64,
    /// Share of images whose most likely class is the right one.
    pub top1: f64,
    /// Share of images whose class is among the five most likely ones.
    pub top5: f64,
    /// Expected calibration error of the probability of the most likely class.
    pub ece: f64,
    /// Training views per image; absent without training.
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

/// Mean and standard deviation over seeds of one line of the OOD table. The deviation divides by `n - 1` and is absent
/// for one seed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SummaryRow {
    /// Method of the prompt sets.
    pub method: String,
    /// Training images per class; absent for zero-shot.
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

/// A trained prompt set compared with zero-shot on the same images: differences (trained minus zero-shot) on the same
/// bootstrap resamples, with 95% intervals.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PairedRow {
    /// Name of the prompt set.
    pub prompt: String,
    /// Method that made it.
    pub method: String,
    /// Training images per class.
    pub shots: Option<u32>,
    /// Seed of split and training.
    pub seed: Option<u64>,
    /// The prompt set it is compared with.
    pub baseline: String,
    /// In-distribution dataset.
    pub id_dataset: String,
    /// Out-of-distribution dataset, or `average`.
    pub ood_dataset: String,
    /// Detector.
    pub detector: String,
    /// Difference of AUROC.
    pub auroc_diff: f64,
    /// Lower end of its interval.
    pub auroc_diff_lo: f64,
    /// Upper end of it.
    pub auroc_diff_hi: f64,
    /// Share of resamples in which the trained prompt set has the larger AUROC.
    pub auroc_larger: f64,
    /// Difference of FPR95.
    pub fpr95_diff: f64,
    /// Lower end of its interval.
    pub fpr95_diff_lo: f64,
    /// Upper end of it.
    pub fpr95_diff_hi: f64,
    /// Share of resamples in which the trained prompt set has the smaller FPR95.
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
/// Bytes that are not a Parquet file, metadata or columns of another table.
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
/// Bytes that are not a Parquet file, metadata or columns of another table.
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
/// Bytes that are not a Parquet file, metadata or columns of another table.
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
/// Bytes that are not a Parquet file, metadata or columns of another table.
pub fn read_paired(bytes: Bytes, file: &str) -> Result<Vec<PairedRow>> {
    read_rows(&paired_columns(), bytes, file)
}
