//! One file a detector or close family; here what they share: fitting, and the fitted detector as plain data.

mod dual_pattern;
mod entropy;
mod knn;
mod logits;
mod mahalanobis;
mod mcm;
mod min_kl;
mod negative_labels;
mod one_class_svm;
mod shots;
mod smo;
mod vim;

pub use dual_pattern::{
    DualPatternPair, DualPatternScaling, Scaling, best_beta, beta_grid, fuse_dual_pattern,
};
pub use shots::FitInputs;

use crate::bank::Bank;
use crate::error::OodError;
use crate::kind::{DetectorKind, EnergyOn};
use crate::score::Block;
use crate::spec::DetectorSpec;
use serde::{Deserialize, Serialize};

/// Scale of CLIP's logits: `s = 100 c`.
pub(crate) const LOGIT_SCALE: f64 = 100.0;

/// A detector with everything it needs to score: plain data, to be stored with the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FittedDetector {
    spec: DetectorSpec,
    classes: usize,
    dim: usize,
    notes: Vec<String>,
    model: Model,
}

/// What a detector learned, by family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Model {
    /// Reads only the cosines to the class texts.
    None,
    Mahalanobis(mahalanobis::Mahalanobis),
    RelativeMahalanobis(mahalanobis::RelativeMahalanobis),
    Knn(knn::Knn),
    Residual(vim::Residual),
    OneClassSvm(one_class_svm::OneClassSvm),
    NegativeLabels(negative_labels::NegativeLabels),
    MinKl(min_kl::MinKl),
}

impl FittedDetector {
    /// The specification that it was fitted from.
    pub fn spec(&self) -> &DetectorSpec {
        &self.spec
    }

    /// The name for columns: [`DetectorSpec::name`].
    pub fn name(&self) -> String {
        self.spec.name()
    }

    /// Fallbacks that fitting took, as sentences for the report; empty when the detector is what its name says.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Number of classes of the text features that it was fitted with.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Width of the features that it was fitted with.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Fails if the parts do not fit together, which only data read from a damaged file can cause.
    pub(crate) fn check(&self) -> Result<(), OodError> {
        let kind = self.spec.kind();
        let fits = match (&self.model, kind) {
            (Model::Mahalanobis(model), DetectorKind::Mahalanobis { .. }) => model.is_consistent(),
            (Model::RelativeMahalanobis(model), DetectorKind::RelativeMahalanobis) => {
                model.is_consistent()
            }
            (Model::Knn(model), DetectorKind::Knn { .. }) => model.is_consistent(),
            (Model::Residual(_), DetectorKind::Vim { .. } | DetectorKind::Residual { .. }) => true,
            (Model::OneClassSvm(model), DetectorKind::OneClassSvm { .. }) => model.is_consistent(),
            (
                Model::NegativeLabels(model),
                DetectorKind::NegLabel { .. } | DetectorKind::UnknownPrompt { .. },
            ) => model.is_consistent(),
            (Model::MinKl(model), DetectorKind::DpmNegMinKl { .. }) => model.is_consistent(),
            (Model::None, _) => !is_fitted(kind),
            _ => false,
        };
        let banks = self.banks();
        if fits && banks.iter().all(|b| b.dim() == self.dim && b.rows() > 0) {
            return Ok(());
        }
        Err(self.problem("its stored parts do not fit together; fit it again".to_owned()))
    }

    fn problem(&self, problem: String) -> OodError {
        OodError::Detector {
            detector: self.name(),
            problem,
        }
    }

    /// The products it scores with, in the order that its scoring function reads them.
    pub(crate) fn banks(&self) -> Vec<&Bank> {
        match &self.model {
            Model::None => vec![],
            Model::Mahalanobis(model) => vec![model.bank()],
            Model::RelativeMahalanobis(model) => model.banks().to_vec(),
            Model::Knn(model) => vec![model.bank()],
            Model::Residual(model) => vec![model.bank()],
            Model::OneClassSvm(model) => vec![model.bank()],
            Model::NegativeLabels(model) => vec![model.bank()],
            Model::MinKl(model) => vec![model.bank()],
        }
    }

    /// The factor on cosines of the softmax over classes that it reads, if any.
    pub(crate) fn scale(&self) -> Option<f64> {
        match self.spec.kind() {
            DetectorKind::Mcm { t }
            | DetectorKind::GlMcm { t, .. }
            | DetectorKind::DpmNegMinKl { t } => Some(1.0 / t),
            DetectorKind::Energy {
                on: EnergyOn::Cosine,
            } => Some(1.0),
            DetectorKind::Energy {
                on: EnergyOn::Logits,
            }
            | DetectorKind::Msp { .. }
            | DetectorKind::NegEntropy
            | DetectorKind::Gen { .. }
            | DetectorKind::Vim { .. }
            | DetectorKind::UnknownPrompt { .. } => Some(LOGIT_SCALE),
            DetectorKind::NegLabel { scale, .. } => Some(scale),
            DetectorKind::LMcm { .. }
            | DetectorKind::MaxLogit
            | DetectorKind::MaxCosine
            | DetectorKind::Mahalanobis { .. }
            | DetectorKind::RelativeMahalanobis
            | DetectorKind::Knn { .. }
            | DetectorKind::Residual { .. }
            | DetectorKind::OneClassSvm { .. } => None,
        }
    }

    /// The factor on the cosines of patches of the softmax that it reads, if any.
    pub(crate) fn local_scale(&self) -> Option<f64> {
        match self.spec.kind() {
            DetectorKind::LMcm { t } | DetectorKind::GlMcm { t, .. } => Some(1.0 / t),
            _ => None,
        }
    }

    /// Scores of the rows of a block, in order.
    pub(crate) fn score(&self, block: &Block<'_>) -> Vec<f32> {
        match &self.model {
            Model::None => match self.spec.kind() {
                DetectorKind::Mcm { t } => mcm::mcm(block, t),
                DetectorKind::LMcm { t } => mcm::l_mcm(block, t),
                DetectorKind::GlMcm { t, weight } => mcm::gl_mcm(block, t, weight),
                DetectorKind::Msp { space } => logits::msp(block, space),
                DetectorKind::MaxLogit => logits::max_logit(block),
                DetectorKind::Energy { on } => logits::energy(block, on),
                DetectorKind::NegEntropy => entropy::neg_entropy(block),
                DetectorKind::Gen { gamma, m } => entropy::generalized(block, gamma, m),
                // The other kinds are fitted, so `check` has refused them here.
                _ => logits::max_cosine(block),
            },
            Model::Mahalanobis(model) => model.score(block),
            Model::RelativeMahalanobis(model) => model.score(block),
            Model::Knn(model) => model.score(block),
            Model::Residual(model) => model.score(block),
            Model::OneClassSvm(model) => model.score(block),
            Model::NegativeLabels(model) => model.score(block),
            Model::MinKl(model) => model.score(block),
        }
    }
}

/// Whether a kind learns something beside its parameters.
fn is_fitted(kind: DetectorKind) -> bool {
    match kind {
        DetectorKind::Mahalanobis { .. }
        | DetectorKind::RelativeMahalanobis
        | DetectorKind::Knn { .. }
        | DetectorKind::Vim { .. }
        | DetectorKind::Residual { .. }
        | DetectorKind::OneClassSvm { .. }
        | DetectorKind::NegLabel { .. }
        | DetectorKind::UnknownPrompt { .. }
        | DetectorKind::DpmNegMinKl { .. } => true,
        DetectorKind::Mcm { .. }
        | DetectorKind::LMcm { .. }
        | DetectorKind::GlMcm { .. }
        | DetectorKind::Msp { .. }
        | DetectorKind::MaxLogit
        | DetectorKind::MaxCosine
        | DetectorKind::Energy { .. }
        | DetectorKind::NegEntropy
        | DetectorKind::Gen { .. } => false,
    }
}

/// Whether the score is a function of a softmax over the classes alone, and so constant for a single class.
fn needs_two_classes(kind: DetectorKind) -> bool {
    matches!(
        kind,
        DetectorKind::Mcm { .. }
            | DetectorKind::LMcm { .. }
            | DetectorKind::GlMcm { .. }
            | DetectorKind::Msp { .. }
            | DetectorKind::NegEntropy
            | DetectorKind::Gen { .. }
            | DetectorKind::DpmNegMinKl { .. }
    )
}

/// Fits a detector; kinds that only read cosines are fitted at once, with the text features alone.
///
/// # Errors
/// [`OodError::Missing`] for an array that the kind needs (see [`DetectorInfo::fitted_on`](crate::DetectorInfo)),
/// [`OodError::Mismatch`], [`OodError::Label`] and [`OodError::ZeroRow`] for arrays that do not fit, and
/// [`OodError::Detector`] where the data cannot carry the detector: a single class under a softmax over classes, `dim`
/// not below the feature width, no class with two shots under a covariance, fewer negative texts than groups.
pub fn fit(spec: &DetectorSpec, inputs: &FitInputs<'_>) -> Result<FittedDetector, OodError> {
    let kind = spec.kind();
    let classes = inputs.text.rows();
    let dim = inputs.text.cols();
    let mut fitted = FittedDetector {
        spec: spec.clone(),
        classes,
        dim,
        notes: Vec::new(),
        model: Model::None,
    };
    if classes == 0 || (classes == 1 && needs_two_classes(kind)) {
        return Err(fitted.problem(format!(
            "{} has {classes} classes; a softmax over classes needs at least 2, anything else at least 1",
            inputs.text.name()
        )));
    }
    let data = shots::Prepared { spec, inputs };
    let notes = &mut fitted.notes;
    fitted.model = match kind {
        DetectorKind::Mahalanobis { covariance } => {
            Model::Mahalanobis(mahalanobis::Mahalanobis::fit(&data, covariance, notes)?)
        }
        DetectorKind::RelativeMahalanobis => {
            Model::RelativeMahalanobis(mahalanobis::RelativeMahalanobis::fit(&data, notes)?)
        }
        DetectorKind::Knn { k } => Model::Knn(knn::Knn::fit(&data, k, notes)?),
        DetectorKind::Vim { dim } => Model::Residual(vim::Residual::fit_vim(&data, dim)?),
        DetectorKind::Residual { dim } => Model::Residual(vim::Residual::fit(&data, dim)?),
        DetectorKind::OneClassSvm { gamma, nu } => {
            Model::OneClassSvm(one_class_svm::OneClassSvm::fit(&data, gamma, nu)?)
        }
        DetectorKind::NegLabel {
            scale,
            groups,
            shuffle,
            space,
        } => Model::NegativeLabels(negative_labels::NegativeLabels::fit_groups(
            &data, scale, groups, shuffle, space, notes,
        )?),
        DetectorKind::UnknownPrompt { count, space } => Model::NegativeLabels(
            negative_labels::NegativeLabels::fit_unknown(&data, count, space)?,
        ),
        DetectorKind::DpmNegMinKl { t } => Model::MinKl(min_kl::MinKl::fit(&data, t, notes)?),
        _ => Model::None,
    };
    Ok(fitted)
}
