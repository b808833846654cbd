//! Maximum concept matching, global and local.
//!
//! MCM: Ming et al., "Delving into Out-of-Distribution Detection with Vision-Language Representations", NeurIPS 2022:
//! `max_k softmax(c / t)_k` with cosines `c`. L-MCM and GL-MCM: Miyai et al., "GL-MCM: Global and Local Maximum Concept
//! Matching for Zero-Shot Out-of-Distribution Detection", IJCV 2025: the same of each patch, the largest over patches, and
//! `mcm + weight * l_mcm`. The papers use t = 1; the dual-pattern repository multiplies cosines by 10 (t = 0.1) and
//! halves the local term.
//!
//! Fitted on nothing. Cost per image: `classes * dim` multiplications, shared by all detectors, and `classes` exponentials;
//! the local score costs that for every patch.

use crate::block::Block;
use crate::detector::Detector;
use crate::error::OodError;
use crate::fit_inputs::Prepared;
use crate::info::{DetectorInfo, Needs, ParameterInfo};
use crate::parameters::Values;

const TEMPERATURE: ParameterInfo =
    ParameterInfo::new("t", "1", "softmax temperature on cosines, above 0");

/// `max softmax(c / t)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mcm {
    t: f64,
}

impl Detector for Mcm {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "mcm",
        summary: "maximum concept matching: largest softmax probability of the cosines",
        formula: "max softmax(c / t)",
        paper: "Ming et al., Delving into Out-of-Distribution Detection with Vision-Language Representations, NeurIPS 2022",
        needs: Needs {
            texts: true,
            ..Needs::LOGITS
        },
        parameters: &[TEMPERATURE],
    };
    const MIN_CLASSES: usize = 2;
    type Fitted = ();

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            t: values.positive("t")?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.t.to_string()]
    }

    fn scale(&self) -> Option<f64> {
        Some(1.0 / self.t)
    }

    fn fit(&self, _: &Prepared<'_>, _: &mut Vec<String>) -> Result<(), OodError> {
        Ok(())
    }

    fn score(&self, (): &(), block: &Block<'_>) -> Vec<f32> {
        let softmaxes = block.softmax().iter();
        softmaxes.map(|s| s.probability() as f32).collect()
    }
}

/// `max over patches of max softmax(c_patch / t)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LMcm {
    t: f64,
}

impl Detector for LMcm {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "l_mcm",
        summary: "MCM of the best patch",
        formula: "max over patches of max softmax(c_patch / t)",
        paper: "Miyai et al., GL-MCM: Global and Local Maximum Concept Matching, IJCV 2025",
        needs: Needs {
            texts: true,
            patches: true,
            ..Needs::LOGITS
        },
        parameters: &[TEMPERATURE],
    };
    const MIN_CLASSES: usize = 2;
    type Fitted = ();

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            t: values.positive("t")?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.t.to_string()]
    }

    fn local_scale(&self) -> Option<f64> {
        Some(1.0 / self.t)
    }

    fn fit(&self, _: &Prepared<'_>, _: &mut Vec<String>) -> Result<(), OodError> {
        Ok(())
    }

    fn score(&self, (): &(), block: &Block<'_>) -> Vec<f32> {
        block.local().iter().map(|&p| p as f32).collect()
    }
}

/// `mcm + weight * l_mcm`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GlMcm {
    t: f64,
    weight: f64,
}

impl Detector for GlMcm {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "gl_mcm",
        summary: "MCM of the image plus MCM of its best patch",
        formula: "mcm + weight * l_mcm",
        paper: "Miyai et al., GL-MCM: Global and Local Maximum Concept Matching, IJCV 2025",
        needs: Needs {
            texts: true,
            patches: true,
            ..Needs::LOGITS
        },
        parameters: &[
            TEMPERATURE,
            ParameterInfo::new("weight", "1", "weight of the local term, any finite number"),
        ],
    };
    const MIN_CLASSES: usize = 2;
    type Fitted = ();

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            t: values.positive("t")?,
            weight: values.number("weight", "a finite number", |_| true)?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.t.to_string(), self.weight.to_string()]
    }

    fn scale(&self) -> Option<f64> {
        Some(1.0 / self.t)
    }

    fn local_scale(&self) -> Option<f64> {
        Some(1.0 / self.t)
    }

    fn fit(&self, _: &Prepared<'_>, _: &mut Vec<String>) -> Result<(), OodError> {
        Ok(())
    }

    fn score(&self, (): &(), block: &Block<'_>) -> Vec<f32> {
        let softmaxes = block.softmax().iter().zip(block.local());
        softmaxes
            .map(|(s, l)| (s.probability() + self.weight * l) as f32)
            .collect()
    }
}
