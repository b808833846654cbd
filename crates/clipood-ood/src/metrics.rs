//! How well scores separate in-distribution (ID) from out-of-distribution (OOD) images.
//!
//! A higher score means more in-distribution, and an image counts as ID if its score reaches a threshold. ID is the
//! positive class unless a name says `openood`. Every figure comes from one walk over the distinct scores, highest first,
//! each with the number of ID and OOD images that have it ([`OodAccumulator`]); [`ood_metrics`] sorts, [`merge_sorted`]
//! walks parts that are sorted already.

mod accumulator;
mod bootstrap;
mod classification;
mod merge;
mod recall;
mod sort;
mod summary;

pub use accumulator::{LOW_RESOLUTION, OodAccumulator, OodMetrics, ood_metrics};
pub use bootstrap::{
    BootstrapOptions, Interval, MetricIntervals, PairedDifference, Resamples, ScorePair, bootstrap,
    paired_bootstrap,
};
pub use classification::{Accuracy, Calibration, accuracy, expected_calibration_error};
pub use merge::merge_sorted;
pub use recall::threshold_at_tpr;
pub use sort::Score;
pub use summary::{MeanStd, Selection, average, mean_std, select_best};
