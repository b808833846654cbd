//! Out-of-distribution detectors and metrics as pure functions on arrays.
//!
//! Name detectors as text, fit them on the class texts (and shots, where a kind asks for them), score image features in
//! one pass, and compare in-distribution with OOD scores. **A higher score always means more in-distribution.** Features
//! come raw, as encoders give them, and are divided by their lengths inside.
//!
//! ```
//! use clipood_ood::{DetectorSpec, FitInputs, Matrix, ScoreInputs, fit, metrics::ood_metrics, score_all};
//! # fn main() -> Result<(), clipood_ood::OodError> {
//! // Two classes, features of width 3.
//! let text = Matrix::new("text", &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0], 2, 3)?;
//! let inputs = FitInputs { text, negative_text: None, train: None, train_labels: None };
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
//! [`registry`] lists the kinds with formulas, papers, parameters and defaults. [`fuse_dual_pattern`] joins two columns into
//! the dual-pattern score of a pair of data sets. [`metrics`] holds the figures, bootstrap intervals and the merge of sorted
//! parts. [`mine_negative_labels`] picks negative labels from a word list. [`fit_linear_probe`] learns a linear classifier from
//! image features, and [`score_linear`] scores with its logits in place of the texts'. A [`FittedDetector`] is plain data that serde stores and restores.

mod bank;
mod detectors;
mod error;
mod kernels;
mod kind;
mod lbfgs;
mod linalg;
mod linear_probe;
mod matrix;
pub mod metrics;
mod mining;
mod needs_shim;
pub use needs_shim::{Needs, Negatives};
mod registry;
mod score;
mod spec;

pub use detectors::{
    DualPatternPair, DualPatternScaling, FitInputs, FittedDetector, Scaling, best_beta, beta_grid,
    fit, fuse_dual_pattern,
};
pub use error::OodError;
pub use kind::{Covariance, DetectorKind, EnergyOn, Space};
pub use linear_probe::{LinearProbe, LinearProbeOptions, fit_linear_probe};
pub use matrix::{LocalFeatures, Matrix};
pub use mining::mine_negative_labels;
pub use registry::{DetectorInfo, ParameterInfo, registry};
pub use score::{Prediction, ScoreInputs, Scores, predict, score_all, score_linear};
pub use spec::DetectorSpec;
