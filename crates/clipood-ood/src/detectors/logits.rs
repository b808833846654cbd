//! Scores of the largest logit and of all logits together: MSP, max logit, max cosine, energy.
//!
//! MSP: Hendrycks and Gimpel, ICLR 2017, `max softmax(s)`. Max logit: Hendrycks et al., ICML 2022, `max s`. Energy: Liu et
//! al., NeurIPS 2020, `logsumexp(s)`; MCM's code takes it of the cosines. Logits `s = 100 c`.
//!
//! Fitted on nothing. Cost per image: the shared cosines and `classes` exponentials.
//!
//! MSP of CLIP is 1 in f32 for most images. The f64 value is `1 / (1 + r)`, `r` the sum of the other exponentials over the
//! largest, so it is rounded once; `space=log_odds` reports `-ln r`, which orders images the same way without ties.

use crate::block::{Block, LOGIT_SCALE};
use crate::detector::Detector;
use crate::error::OodError;
use crate::fit_inputs::Prepared;
use crate::info::{DetectorInfo, Needs, ParameterInfo};
use crate::parameters::{Space, Values, word};

/// `max softmax(s)` or its log-odds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Msp {
    space: Space,
}

impl Detector for Msp {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "msp",
        summary: "largest softmax probability of the logits",
        formula: "max softmax(s)",
        paper: "Hendrycks and Gimpel, A Baseline for Detecting Misclassified and Out-of-Distribution Examples, ICLR 2017",
        needs: Needs::LOGITS,
        cost: "shared class products; one exponential per class",
        trap: "probabilities near 1 tie in f32; space=log_odds does not",
        parameters: &[Space::INFO],
    };
    const MIN_CLASSES: usize = 2;
    type Fitted = ();

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            space: Space::read(values)?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.space.word()]
    }

    fn scale(&self) -> Option<f64> {
        Some(LOGIT_SCALE)
    }

    fn fit(&self, _: &Prepared<'_>, _: &mut Vec<String>) -> Result<(), OodError> {
        Ok(())
    }

    fn score(&self, (): &(), block: &Block<'_>) -> Vec<f32> {
        let softmaxes = block.softmax().iter();
        softmaxes
            .map(|s| match self.space {
                Space::Probability => s.probability() as f32,
                Space::LogOdds => -s.others.ln() as f32,
            })
            .collect()
    }
}

/// `max s`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MaxLogit;

impl Detector for MaxLogit {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "max_logit",
        summary: "largest logit",
        formula: "max s",
        paper: "Hendrycks et al., Scaling Out-of-Distribution Detection for Real-World Settings, ICML 2022",
        needs: Needs::LOGITS,
        cost: "shared class products",
        trap: "nothing is normalised: images of many classes at once score high",
        parameters: &[],
    };
    const MIN_CLASSES: usize = 1;
    type Fitted = ();

    fn read(_: &Values<'_>) -> Result<Self, String> {
        Ok(Self)
    }

    fn write(&self) -> Vec<String> {
        vec![]
    }

    fn fit(&self, _: &Prepared<'_>, _: &mut Vec<String>) -> Result<(), OodError> {
        Ok(())
    }

    fn score(&self, (): &(), block: &Block<'_>) -> Vec<f32> {
        let maxima = block.maxima();
        maxima
            .map(|max| (LOGIT_SCALE * f64::from(max)) as f32)
            .collect()
    }
}

/// `max c`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MaxCosine;

impl Detector for MaxCosine {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "max_cosine",
        summary: "largest cosine",
        formula: "max c",
        paper: "Ming et al., NeurIPS 2022 (the maximum without softmax)",
        needs: Needs {
            texts: true,
            ..Needs::LOGITS
        },
        cost: "shared class products",
        trap: "the same order as max_logit for texts",
        parameters: &[],
    };
    const MIN_CLASSES: usize = 1;
    type Fitted = ();

    fn read(_: &Values<'_>) -> Result<Self, String> {
        Ok(Self)
    }

    fn write(&self) -> Vec<String> {
        vec![]
    }

    fn fit(&self, _: &Prepared<'_>, _: &mut Vec<String>) -> Result<(), OodError> {
        Ok(())
    }

    fn score(&self, (): &(), block: &Block<'_>) -> Vec<f32> {
        block.maxima().collect()
    }
}

/// What [`Energy`] sums over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EnergyOn {
    /// 100 * cosine.
    Logits,
    /// The cosine.
    Cosine,
}

const ENERGIES: [(&str, EnergyOn); 2] =
    [("logits", EnergyOn::Logits), ("cosine", EnergyOn::Cosine)];

/// `logsumexp(s)` or `logsumexp(c)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Energy {
    on: EnergyOn,
}

impl Detector for Energy {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "energy",
        summary: "free energy of the logits or the cosines",
        formula: "logsumexp(s), or logsumexp(c) with on=cosine",
        paper: "Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020",
        needs: Needs::LOGITS,
        cost: "shared class products; one exponential per class",
        trap: "on=logits and on=cosine order images differently; MCM's code means the second",
        parameters: &[ParameterInfo::new(
            "on",
            "logits",
            "logits, or cosine as in MCM's code",
        )],
    };
    const MIN_CLASSES: usize = 1;
    type Fitted = ();

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            on: values.choice("on", &ENERGIES)?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![word(&ENERGIES, self.on)]
    }

    fn needs(&self) -> Needs {
        match self.on {
            EnergyOn::Logits => Self::INFO.needs,
            EnergyOn::Cosine => Needs {
                texts: true,
                ..Self::INFO.needs
            },
        }
    }

    fn scale(&self) -> Option<f64> {
        match self.on {
            EnergyOn::Logits => Some(LOGIT_SCALE),
            EnergyOn::Cosine => Some(1.0),
        }
    }

    fn fit(&self, _: &Prepared<'_>, _: &mut Vec<String>) -> Result<(), OodError> {
        Ok(())
    }

    fn score(&self, (): &(), block: &Block<'_>) -> Vec<f32> {
        block.log_sums().map(|sum| sum as f32).collect()
    }
}
