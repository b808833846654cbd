//! Entropies of the softmax over `s = 100 c`: negative entropy and GEN.
//!
//! GEN: Liu et al., "GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection", CVPR 2023, as in OpenOOD:
//! `- sum over the m largest of p^gamma (1 - p)^gamma`, gamma 0.1, m 100.
//!
//! Fitted on nothing. Cost per image: the shared cosines and exponentials; GEN adds a selection and `m` powers.
//!
//! Where one class takes nearly all of the mass, `1 - p` cancels to nothing: it is summed from the other classes instead, and
//! logarithms of p are differences of logits.

use crate::block::{Block, LOGIT_SCALE};
use crate::detector::Detector;
use crate::error::OodError;
use crate::fit_inputs::Prepared;
use crate::info::{DetectorInfo, Needs, ParameterInfo};
use crate::kernels;
use crate::parameters::Values;

/// `sum p log p`: with `x = s - max s` and `Z = sum exp(x)`, `sum x exp(x) / Z - ln Z`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NegEntropy;

impl Detector for NegEntropy {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "neg_entropy",
        summary: "negative entropy of the softmax",
        formula: "sum p log p",
        paper: "Ren et al., Likelihood Ratios for Out-of-Distribution Detection, NeurIPS 2019 (as baseline)",
        needs: Needs::LOGITS,
        cost: "shared class products; two exponentials per class",
        trap: "at scale 100 it is close to msp",
        parameters: &[],
    };
    const MIN_CLASSES: usize = 2;
    type Fitted = ();

    fn read(_: &Values<'_>) -> Result<Self, String> {
        Ok(Self)
    }

    fn write(&self) -> Vec<String> {
        vec![]
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
            .map(|s| (s.weighted / (1.0 + s.others) - s.others.ln_1p()) as f32)
            .collect()
    }
}

/// `- sum over the m largest of p^gamma (1 - p)^gamma`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Gen {
    gamma: f64,
    m: usize,
}

impl Detector for Gen {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "gen",
        summary: "generalised entropy of the largest probabilities",
        formula: "- sum over the m largest of p^gamma (1 - p)^gamma",
        paper: "Liu et al., GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection, CVPR 2023",
        needs: Needs::LOGITS,
        cost: "shared class products; one power per class that counts",
        trap: "gamma and m were tuned on classifiers, not on CLIP",
        parameters: &[
            ParameterInfo::new("gamma", "0.1", "exponent, above 0"),
            ParameterInfo::new(
                "m",
                "100",
                "probabilities that count, at least 1; all classes if there are fewer",
            ),
        ],
    };
    const MIN_CLASSES: usize = 2;
    type Fitted = ();

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            gamma: values.positive("gamma")?,
            m: values.count("m")?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.gamma.to_string(), self.m.to_string()]
    }

    fn scale(&self) -> Option<f64> {
        Some(LOGIT_SCALE)
    }

    fn fit(&self, _: &Prepared<'_>, _: &mut Vec<String>) -> Result<(), OodError> {
        Ok(())
    }

    fn score(&self, (): &(), block: &Block<'_>) -> Vec<f32> {
        let mut largest = Vec::new();
        block
            .softmax()
            .iter()
            .zip(block.cosine_rows())
            .map(|(s, cosines)| {
                kernels::largest(cosines, self.m, &mut largest);
                let max = largest.first().map_or(0.0, |&(c, _)| f64::from(c));
                let z = 1.0 + s.others;
                let log_z = s.others.ln_1p();
                let sum: f64 = largest
                    .iter()
                    .enumerate()
                    .map(|(rank, &(c, _))| {
                        let x = LOGIT_SCALE * (f64::from(c) - max);
                        // The largest is 1 / z, and what is left of it is exactly the others.
                        let log_rest = if rank == 0 {
                            s.others.ln() - log_z
                        } else {
                            (-x.exp() / z).ln_1p()
                        };
                        (self.gamma * (x - log_z + log_rest)).exp()
                    })
                    .sum();
                -sum as f32
            })
            .collect()
    }
}
