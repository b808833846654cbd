//! Scores on inter-modal negative labels, which [`mine_inter_modal_labels`](crate::mine_inter_modal_labels) picks with the
//! help of shots: NegLabel's, as the static part of InterNeg (Xu et al., CVPR 2026), and TINS'.
//!
//! TINS: mean over groups g of `S / (S + C mean_j exp(s_gj))`, `S = sum_c exp(s_c)` over the C classes, so that the size of a
//! group does not matter; five groups of a seeded permutation, the remainder dropped, in log space. Only the abstract and the
//! formula are public: figures of it cannot be compared with the authors' code.
//!
//! Both are [`NegLabel`] on other texts, and the second with another weight; see there for cost and memory.

use crate::block::Block;
use crate::detector::Detector;
use crate::detectors::negative_labels::{Groups, NegLabel};
use crate::error::OodError;
use crate::fit_inputs::Prepared;
use crate::info::{DetectorInfo, Needs, Negatives, ParameterInfo};
use crate::parameters::Values;

const NEEDS: Needs = Needs {
    texts: true,
    negatives: Some(Negatives::InterModal),
    ..Needs::LOGITS
};

/// NegLabel's score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct InterModal(NegLabel);

impl Detector for InterModal {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "inter_modal",
        summary: "NegLabel's score on negative labels that are far from the shots",
        formula: NegLabel::INFO.formula,
        paper: "Xu et al., InterNeg, CVPR 2026 (its static part: the labels; without its updates at test time)",
        needs: NEEDS,
        cost: NegLabel::INFO.cost,
        trap: "published InterNeg figures include updates at test time, and 1 group for near, 5 for far sets: selection on the test set",
        parameters: NegLabel::INFO.parameters,
    };
    const MIN_CLASSES: usize = 1;
    type Fitted = Groups;

    fn read(values: &Values<'_>) -> Result<Self, String> {
        NegLabel::read(values).map(Self)
    }

    fn write(&self) -> Vec<String> {
        self.0.write()
    }

    fn scale(&self) -> Option<f64> {
        self.0.scale()
    }

    fn fit(&self, data: &Prepared<'_>, notes: &mut Vec<String>) -> Result<Groups, OodError> {
        self.0.fit(data, notes)
    }

    fn agrees(&self, fitted: &Groups) -> bool {
        self.0.agrees(fitted)
    }

    fn score(&self, fitted: &Groups, block: &Block<'_>) -> Vec<f32> {
        fitted.score(block)
    }
}

/// TINS' score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tins(NegLabel);

impl Detector for Tins {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "tins",
        summary: "mass on the classes against the mean of each group of inter-modal labels",
        formula: "mean over groups of S / (S + C mean_group exp(scale c)), S = sum_id exp(scale c) over C classes",
        paper: "TINS, 2026 (from its abstract and formula; its code is not public)",
        needs: NEEDS,
        cost: NegLabel::INFO.cost,
        trap: "the authors pick lambda for each ID set; no code to compare with",
        parameters: &[
            ParameterInfo::new("scale", "100", "factor on cosines, above 0"),
            ParameterInfo::new(
                "groups",
                "5",
                "equal groups of negative texts, at least 1; a remainder is dropped",
            ),
            ParameterInfo::new(
                "shuffle",
                "0",
                "none: consecutive groups; a number: the seed of a shuffle before grouping",
            ),
            crate::parameters::Space::INFO,
        ],
    };
    const MIN_CLASSES: usize = 1;
    type Fitted = Groups;

    fn read(values: &Values<'_>) -> Result<Self, String> {
        NegLabel::read(values).map(Self)
    }

    fn write(&self) -> Vec<String> {
        self.0.write()
    }

    fn scale(&self) -> Option<f64> {
        self.0.scale()
    }

    fn fit(&self, data: &Prepared<'_>, notes: &mut Vec<String>) -> Result<Groups, OodError> {
        let groups = self.0.fit(data, notes)?;
        Ok(groups.weighted_by_classes(data.classes()))
    }

    fn agrees(&self, fitted: &Groups) -> bool {
        self.0.agrees(fitted)
    }

    fn score(&self, fitted: &Groups, block: &Block<'_>) -> Vec<f32> {
        fitted.score(block)
    }
}
