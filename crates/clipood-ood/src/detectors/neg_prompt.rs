//! NegPrompt: the likeliest class in a softmax over classes and their learned negative prompts.
//!
//! Li et al., "Learning Transferable Negative Prompts for Out-of-Distribution Detection", CVPR 2024, as `get_ood_score` of the
//! authors' code computes it by default (`msp`): cosines without the scale of logits, one softmax over the positive prompt and the
//! negative prompts of every class, and the largest probability of a positive. (Their training script asks for a score `OE` that
//! the function does not have.)
//!
//! Fitted on the negative texts, which it keeps. Cost per image: one product with them and one exponential for each.

use crate::bank::Bank;
use crate::block::Block;
use crate::detector::{Detector, Learned};
use crate::error::OodError;
use crate::fit_inputs::Prepared;
use crate::info::{DetectorInfo, Needs, Negatives, ParameterInfo};
use crate::kernels;
use crate::parameters::Values;
use serde::{Deserialize, Serialize};

/// The parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NegPrompt {
    t: f64,
}

/// Unit features of negative prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct NegativePrompts {
    /// `[negatives, dim]`
    texts: Bank,
}

impl Learned for NegativePrompts {
    fn banks(&self) -> Vec<&Bank> {
        vec![&self.texts]
    }

    fn is_consistent(&self) -> bool {
        self.texts.rows() > 0
    }
}

impl Detector for NegPrompt {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "negprompt",
        summary: "likeliest class against the prompt set's own negative prompts",
        formula: "max_classes exp(c / t) / (sum_classes exp(c / t) + sum_negatives exp(c / t))",
        paper: "Li et al., Learning Transferable Negative Prompts for Out-of-Distribution Detection, CVPR 2024",
        needs: Needs {
            texts: true,
            negatives: Some(Negatives::Learned),
            ..Needs::LOGITS
        },
        cost: "one product with the negative prompts of all classes; one exponential for each",
        trap: "the authors' code keeps the epoch with the best AUROC on the OOD set that it then reports",
        parameters: &[ParameterInfo::new(
            "t",
            "1",
            "softmax temperature on cosines, above 0",
        )],
    };
    const MIN_CLASSES: usize = 1;
    type Fitted = NegativePrompts;

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

    fn fit(&self, data: &Prepared<'_>, _: &mut Vec<String>) -> Result<NegativePrompts, OodError> {
        Ok(NegativePrompts {
            texts: Bank::new(data.negatives()?, data.dim()),
        })
    }

    fn score(&self, fitted: &NegativePrompts, block: &Block<'_>) -> Vec<f32> {
        let scale = 1.0 / self.t;
        block
            .product(0)
            .chunks_exact(fitted.texts.rows())
            .zip(block.log_sums().zip(block.maxima()))
            .map(|(negatives, (log_sum, own))| {
                // Everything relative to the sum over the classes, which becomes 1.
                let (sum, _) = kernels::exp_sums(negatives, scale, log_sum / scale);
                ((scale * f64::from(own) - log_sum).exp() / (1.0 + sum)) as f32
            })
            .collect()
    }
}
