//! Out-of-distribution detectors and metrics as pure functions on arrays.
//!
//! Name detectors as text, fit them on the class texts (and shots, where a kind asks for them), score image features in
//! one pass, and compare in-distribution with OOD scores. **A higher score always means more in-distribution.** Features
//! come raw, as encoders give them, and are divided by their lengths inside (`mahalanobis:normalize=false` and the linear probe
//! take them as they are).
//!
//! ```
//! use clipood_ood::{DetectorSpec, FitInputs, Matrix, ScoreInputs, fit, metrics::ood_metrics, score_all};
//! # fn main() -> Result<(), clipood_ood::OodError> {
//! // Two classes, features of width 3.
//! let text = Matrix::new("text", &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0], 2, 3)?;
//! let inputs = FitInputs { text, negative_text: None, train: None, train_labels: None, classifiers: &[] };
//! let detectors = DetectorSpec::parse_list("mcm:t=0.1,energy")?
//!     .iter()
//!     .map(|spec| fit(spec, &inputs))
//!     .collect::<Result<Vec<_>, _>>()?;
//!
//! let id = Matrix::new("id", &[2.0, 0.1, 0.0, 0.2, 3.0, 0.1], 2, 3)?;
//! let ood = Matrix::new("ood", &[0.3, 0.3, 2.0], 1, 3)?;
//! let id = score_all(&detectors, &text, &ScoreInputs { global: id, local: None })?;
//! let ood = score_all(&detectors, &text, &ScoreInputs { global: ood, local: None })?;
//!
//! assert_eq!(id.predictions[1].class, 1);
//! assert_eq!(detectors[0].name(), "mcm:t=0.1");
//! assert_eq!(ood_metrics(&id.columns[0], &ood.columns[0])?.auroc, 1.0);
//! # Ok(())
//! # }
//! ```
//!
//! [`registry`] lists the kinds with formulas, papers, parameters and defaults, and [`DetectorSpec::needs`] says what one is
//! fitted on and scores. [`fuse_dual_pattern`] joins two columns into the dual-pattern score of a pair of data sets.
//! [`metrics`] holds the figures, bootstrap intervals and the merge of sorted parts. [`mine_negative_labels`] picks negative
//! labels from a word list, [`mine_inter_modal_labels`] with the help of shots. [`Stream`] scores test images in an order of
//! arrival with the detectors that learn from them. [`fit_linear_probe`] learns a linear classifier from image features, and [`score_linear`] scores
//! with its logits in place of the texts'. A [`FittedDetector`] is plain data that serde stores and restores.
//!
//! # How to add a detector
//!
//! 1. Write `src/detectors/<file>.rs`: a struct of its parameters and an implementation of the trait `Detector` (in
//!    `src/detector.rs`, where every item is explained). It holds the entry for listings, parameters and defaults, needs, the
//!    scale of the softmax it reads, fitting and the score; what it learns is a second struct that implements `Learned`. The
//!    file ends with a test that compares scores with a plain f64 implementation. `src/detectors/knn.rs` is a short example
//!    of one that is fitted, `Mcm` in `src/detectors/mcm.rs` of one that is not.
//! 2. In `src/detectors.rs`, name the file (`mod <file>;`) and add one line to the list at the `detectors!` call, such as
//!    `Knn(knn::Knn) learns Knn(knn::Shots),`. The line puts it into specifications, [`registry`], [`fit`], stored detectors
//!    and scoring. A listed detector that lacks a part does not compile; one without a line is reported as dead code.
//!
//! A detector that learns from the images it scores implements the trait `StreamDetector` (in `src/stream.rs`) instead, and its
//! line stands after `streams`; `src/detectors/oodd.rs` is a short example.
//!
//! The name after `learns` and the fields of `Learned` structs are a file format: a new field takes a serde default, and is
//! left out of the file where it has that default.

mod bank;
mod block;
mod detector;
mod detectors;
mod dual_pattern;
mod error;
mod fit_inputs;
mod fitted;
mod info;
mod kernels;
mod lbfgs;
mod linalg;
mod linear_probe;
mod matrix;
pub mod metrics;
mod mining;
mod parameters;
mod score;
mod smo;
mod spec;
mod stream;

pub use detectors::registry;
pub use dual_pattern::{
    DualPatternPair, DualPatternScaling, Scaling, best_beta, beta_grid, fuse_dual_pattern,
};
pub use error::OodError;
pub use fit_inputs::{Classifier, FitInputs, FitSizes};
pub use fitted::{FittedDetector, check_fit, fit};
pub use info::{DetectorInfo, Needs, Negatives, ParameterInfo};
pub use linear_probe::{LinearProbe, LinearProbeOptions, fit_linear_probe};
pub use matrix::{LocalFeatures, Matrix, PatchBest};
pub use mining::{mine_inter_modal_labels, mine_negative_labels};
pub use score::{Prediction, ScoreInputs, Scores, predict, score_all, score_linear};
pub use spec::DetectorSpec;
pub use stream::{Stream, StreamInputs, score_stream, stream_order};
