//! The detectors, one file per kind or close family, and the list that makes them known.
//!
//! To add one: write `detectors/<file>.rs` with an implementation of [`Detector`] and its test, name the file in a `mod`
//! line here, and give it a line in the list at the end of this file.

mod adaneg;
mod cooked;
mod entropy;
mod eoe;
mod knn;
mod logits;
mod mahalanobis;
mod mcm;
mod min_kl;
mod neg_prompt;
mod negative_labels;
mod one_class_svm;
mod oodd;
mod r_mcm;
mod tanl;
mod tins;
mod vim;

use crate::bank::Bank;
use crate::block::{Block, Patches};
use crate::detector::{Detector, Learned};
use crate::error::OodError;
use crate::fit_inputs::{FitSizes, Prepared};
use crate::info::{DetectorInfo, Needs};
use crate::parameters::{Values, unknown};
use crate::stream::{AnyStream, StreamDetector};
use serde::{Deserialize, Serialize};

/// A [`Detector`] of any kind, with what it learned inside a [`Model`].
pub(crate) trait AnyDetector {
    fn scale(&self) -> Option<f64>;
    fn local_scale(&self) -> Option<f64>;
    fn reduce_patches(&self, patches: &Patches<'_>) -> f64;
    fn best_patch_scale(&self) -> Option<f64>;
    fn refuses(&self, sizes: &FitSizes) -> Option<String>;
    fn fit(&self, data: &Prepared<'_>, notes: &mut Vec<String>) -> Result<Model, OodError>;
    /// Whether the model is one of this kind and its parts fit together.
    fn accepts(&self, model: &Model) -> bool;
    /// Scores of a block, or nothing for a model of another kind.
    fn score(&self, model: &Model, block: &Block<'_>) -> Option<Vec<f32>>;
}

impl<D: Detector<Fitted: Stored>> AnyDetector for D {
    fn scale(&self) -> Option<f64> {
        Detector::scale(self)
    }

    fn local_scale(&self) -> Option<f64> {
        Detector::local_scale(self)
    }

    fn reduce_patches(&self, patches: &Patches<'_>) -> f64 {
        Detector::reduce_patches(self, patches)
    }

    fn best_patch_scale(&self) -> Option<f64> {
        Detector::best_patch_scale(self)
    }

    fn refuses(&self, sizes: &FitSizes) -> Option<String> {
        Detector::refuses(self, sizes)
    }

    fn fit(&self, data: &Prepared<'_>, notes: &mut Vec<String>) -> Result<Model, OodError> {
        Ok(Detector::fit(self, data, notes)?.into_model())
    }

    fn accepts(&self, model: &Model) -> bool {
        D::Fitted::of(model).is_some_and(|fitted| fitted.is_consistent() && self.agrees(fitted))
    }

    fn score(&self, model: &Model, block: &Block<'_>) -> Option<Vec<f32>> {
        Some(Detector::score(self, D::Fitted::of(model)?, block))
    }
}

/// Data of a detector as a case of [`Model`]; the list writes the implementations.
trait Stored: Learned + Sized {
    fn into_model(self) -> Model;
    fn of(model: &Model) -> Option<&Self>;
}

impl Stored for () {
    fn into_model(self) -> Model {
        Model::None
    }

    fn of(model: &Model) -> Option<&Self> {
        matches!(model, Model::None).then_some(&())
    }
}

/// Writes out what the list below says.
macro_rules! detectors {
    (
        $( $kind:ident ( $detector:ty ) $( learns $tag:ident ( $fitted:ty ) )? ),+;
        streams $( $stream:ident ( $memory:ty ) ),+ $(,)?
    ) => {
        /// A kind of detector with its parameters.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub(crate) enum Kind {
            $( $kind($detector), )+
            $( $stream($memory), )+
        }

        impl Kind {
            /// Reads the `key=value` fields of the kind of this name.
            pub(crate) fn read<'a>(
                name: &str,
                fields: impl Iterator<Item = &'a str>,
            ) -> Result<Self, String> {
                $(
                    if name == <$detector>::INFO.kind {
                        let values = Values::read(<$detector>::INFO, fields)?;
                        return <$detector>::read(&values).map(Kind::$kind);
                    }
                )+
                $(
                    if name == <$memory>::INFO.kind {
                        let values = Values::read(<$memory>::INFO, fields)?;
                        return <$memory>::read(&values).map(Kind::$stream);
                    }
                )+
                Err(unknown("kind", name, registry().iter().map(|info| info.kind)))
            }

            pub(crate) fn info(&self) -> &'static DetectorInfo {
                match self {
                    $( Kind::$kind(_) => <$detector>::INFO, )+
                    $( Kind::$stream(_) => <$memory>::INFO, )+
                }
            }

            pub(crate) fn min_classes(&self) -> usize {
                match self {
                    $( Kind::$kind(_) => <$detector>::MIN_CLASSES, )+
                    $( Kind::$stream(_) => <$memory>::MIN_CLASSES, )+
                }
            }

            /// The parameters as text.
            pub(crate) fn write(&self) -> Vec<String> {
                match self {
                    $( Kind::$kind(detector) => Detector::write(detector), )+
                    $( Kind::$stream(stream) => StreamDetector::write(stream), )+
                }
            }

            pub(crate) fn needs(&self) -> Needs {
                match self {
                    $( Kind::$kind(detector) => Detector::needs(detector), )+
                    $( Kind::$stream(_) => <$memory>::INFO.needs, )+
                }
            }

            /// The detector, if its score of an image depends on nothing but the image.
            pub(crate) fn detector(&self) -> Option<&(dyn AnyDetector + Sync)> {
                match self {
                    $( Kind::$kind(detector) => Some(detector), )+
                    $( Kind::$stream(_) => None, )+
                }
            }

            /// The detector, if it scores a stream of images.
            pub(crate) fn stream(&self) -> Option<&(dyn AnyStream + Sync)> {
                match self {
                    $( Kind::$kind(_) => None, )+
                    $( Kind::$stream(stream) => Some(stream), )+
                }
            }
        }

        /// What a detector learned. The names are those of stored detectors.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub(crate) enum Model {
            /// Nothing: the detector only reads the classifier's outputs.
            None,
            $( $( $tag($fitted), )? )+
        }

        impl Model {
            /// The products with features that it scores with.
            pub(crate) fn banks(&self) -> Vec<&Bank> {
                match self {
                    Model::None => Vec::new(),
                    $( $( Model::$tag(fitted) => fitted.banks(), )? )+
                }
            }

            /// The product with patches that it scores with, if any.
            pub(crate) fn patch_bank(&self) -> Option<&Bank> {
                match self {
                    Model::None => None,
                    $( $( Model::$tag(fitted) => fitted.patch_bank(), )? )+
                }
            }
        }

        $( $(
            impl Stored for $fitted {
                fn into_model(self) -> Model {
                    Model::$tag(self)
                }

                fn of(model: &Model) -> Option<&Self> {
                    if let Model::$tag(fitted) = model {
                        return Some(fitted);
                    }
                    None
                }
            }
        )? )+

        static REGISTRY: &[DetectorInfo] = &[ $( *<$detector>::INFO, )+ $( *<$memory>::INFO, )+ ];
    };
}

/// Every kind of detector, in the order of listings.
pub fn registry() -> &'static [DetectorInfo] {
    REGISTRY
}

// One line per detector: its parameters, and for one that is fitted the name and the type of what is stored. A type that two
// detectors share is named by the first. After the semicolon the detectors of streams.
detectors! {
    Mcm(mcm::Mcm),
    LMcm(mcm::LMcm),
    GlMcm(mcm::GlMcm),
    Msp(logits::Msp),
    MaxLogit(logits::MaxLogit),
    MaxCosine(logits::MaxCosine),
    Energy(logits::Energy),
    NegEntropy(entropy::NegEntropy),
    Gen(entropy::Gen),
    Mahalanobis(mahalanobis::Mahalanobis) learns Mahalanobis(mahalanobis::ClassDistance),
    RelativeMahalanobis(mahalanobis::Relative) learns RelativeMahalanobis(mahalanobis::RelativeDistance),
    Knn(knn::Knn) learns Knn(knn::Shots),
    Vim(vim::Vim) learns Residual(vim::Complement),
    Residual(vim::Residual),
    OneClassSvm(one_class_svm::OneClassSvm) learns OneClassSvm(one_class_svm::Support),
    NegLabel(negative_labels::NegLabel) learns NegativeLabels(negative_labels::Groups),
    UnknownPrompt(negative_labels::UnknownPrompt),
    DpmNegMinKl(min_kl::DpmNegMinKl) learns MinKl(min_kl::Patterns),
    InterModal(tins::InterModal),
    Tins(tins::Tins),
    Eoe(eoe::Eoe) learns Outliers(eoe::Outliers),
    NegPrompt(neg_prompt::NegPrompt) learns NegativePrompts(neg_prompt::NegativePrompts),
    RMcm(r_mcm::RMcm) learns PatchNegatives(r_mcm::PatchNegatives),
    Cooked(cooked::Cooked) learns Ensemble(cooked::Ensemble);
    streams
    Oodd(oodd::Oodd),
    AdaNeg(adaneg::AdaNeg),
    Tanl(tanl::Tanl),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_whole() {
        for (i, info) in registry().iter().enumerate() {
            assert!(registry()[..i].iter().all(|other| other.kind != info.kind));
            for text in [
                info.kind,
                info.summary,
                info.formula,
                info.paper,
                info.cost,
                info.trap,
            ] {
                assert!(!text.is_empty(), "{}", info.kind);
            }
            let kind = Kind::read(info.kind, std::iter::empty()).unwrap();
            assert_eq!(kind.info(), info);
            assert_eq!(kind.needs(), info.needs);
            let defaults: Vec<&str> = info.parameters.iter().map(|p| p.default).collect();
            assert_eq!(kind.write(), defaults, "{}", info.kind);
            assert_eq!(kind.stream().is_some(), info.needs.stream, "{}", info.kind);
            let local = kind.detector().and_then(|d| d.local_scale());
            assert_eq!(local.is_some(), info.needs.patches, "{}", info.kind);
            assert!(info.needs.shots || !info.needs.labels, "{}", info.kind);
        }
    }
}
