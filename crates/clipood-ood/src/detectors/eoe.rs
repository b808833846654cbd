//! EOE: the likeliest class against the likeliest imagined outlier.
//!
//! Cao et al., "Envisioning Outlier Exposure by Large Language Models for Out-of-Distribution Detection", ICML 2024, as in
//! the authors' code: the softmax runs over classes and imagined names together, and the score is the largest probability of
//! a class less `beta` times that of an imagined name. beta = 0.25 and t = 1 are theirs.
//!
//! Fitted on the texts of the imagined names, which it keeps. Cost per image: one product with them and one exponential
//! for each.

use crate::bank::Bank;
use crate::block::Block;
use crate::detector::{Detector, Learned};
use crate::error::OodError;
use crate::fit_inputs::Prepared;
use crate::info::{DetectorInfo, Needs, Negatives, ParameterInfo};
use crate::kernels;
use crate::parameters::Values;
use serde::{Deserialize, Serialize};

/// The parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Eoe {
    t: f64,
    beta: f64,
}

/// Unit texts of imagined outliers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outliers {
    /// `[outliers, dim]`
    texts: Bank,
}

impl Learned for Outliers {
    fn banks(&self) -> Vec<&Bank> {
        vec![&self.texts]
    }

    fn is_consistent(&self) -> bool {
        self.texts.rows() > 0
    }
}

impl Detector for Eoe {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "eoe",
        summary: "likeliest class against the likeliest imagined outlier",
        formula: "max_id p - beta max_outlier p, p = softmax(c / t) over classes and imagined names",
        paper: "Cao et al., Envisioning Outlier Exposure by Large Language Models for Out-of-Distribution Detection, ICML 2024",
        needs: Needs {
            texts: true,
            negatives: Some(Negatives::Imagined),
            ..Needs::LOGITS
        },
        cost: "one product with the imagined names; one exponential for each",
        trap: "the names decide: the authors ask a language model about the ID classes, per task (near, far, fine-grained)",
        parameters: &[
            ParameterInfo::new("t", "1", "temperature of the softmax, above 0"),
            ParameterInfo::new("beta", "0.25", "weight of the outliers, any finite number"),
        ],
    };
    const MIN_CLASSES: usize = 1;
    type Fitted = Outliers;

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            t: values.positive("t")?,
            beta: values.number("beta", "a finite number", |_| true)?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.t.to_string(), self.beta.to_string()]
    }

    fn scale(&self) -> Option<f64> {
        Some(1.0 / self.t)
    }

    fn fit(&self, data: &Prepared<'_>, _: &mut Vec<String>) -> Result<Outliers, OodError> {
        Ok(Outliers {
            texts: Bank::new(data.negatives()?, data.dim()),
        })
    }

    fn score(&self, fitted: &Outliers, block: &Block<'_>) -> Vec<f32> {
        let scale = 1.0 / self.t;
        block
            .product(0)
            .chunks_exact(fitted.texts.rows())
            .zip(block.log_sums().zip(block.maxima()))
            .map(|(outliers, (log_sum, own))| {
                // Everything relative to the sum over the classes, which becomes 1.
                let (_, largest) = kernels::argmax(outliers);
                let (sum, _) = kernels::exp_sums(outliers, scale, log_sum / scale);
                let share = |cosine: f32| (scale * f64::from(cosine) - log_sum).exp() / (1.0 + sum);
                (share(own) - self.beta * share(largest)) as f32
            })
            .collect()
    }
}
