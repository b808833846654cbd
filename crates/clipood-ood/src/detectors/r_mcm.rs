//! R-MCM: MCM of the image, and of its patches against negative texts.
//!
//! Zeng et al., "Local-Prompt: Extensible Local Prompts for Few-Shot Out-of-Distribution Detection", ICLR 2025, as in the
//! authors' `test_ood`: the largest softmax probability of the image plus the mean of the `topk` largest, over patches and
//! classes, of `exp(c / t) / (sum_classes exp(c / t) + sum_negatives exp(c / t))`. Their negatives are learned local prompts;
//! here they are the first `count` negative labels.
//!
//! Fitted on the negative texts, which it keeps. Cost per image: that of `gl_mcm`, and one product of the patches with the
//! negatives.

use crate::bank::Bank;
use crate::block::{Block, Patches};
use crate::detector::{Detector, Learned};
use crate::error::OodError;
use crate::fit_inputs::Prepared;
use crate::info::{DetectorInfo, Needs, Negatives, ParameterInfo};
use crate::kernels;
use crate::parameters::Values;
use serde::{Deserialize, Serialize};

/// The parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RMcm {
    t: f64,
    topk: usize,
    count: usize,
}

/// Unit negative texts that patches are compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PatchNegatives {
    /// `[negatives, dim]`
    negatives: Bank,
}

impl Learned for PatchNegatives {
    fn banks(&self) -> Vec<&Bank> {
        Vec::new()
    }

    fn patch_bank(&self) -> Option<&Bank> {
        Some(&self.negatives)
    }

    fn is_consistent(&self) -> bool {
        self.negatives.rows() > 0
    }
}

impl Detector for RMcm {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "r_mcm",
        summary: "MCM of the image plus that of its best patches against negative texts",
        formula: "max softmax(c / t) + mean of the topk largest exp(c_patch / t) / sum_(classes and negatives) exp(c_patch / t)",
        paper: "Zeng et al., Local-Prompt: Extensible Local Prompts for Few-Shot Out-of-Distribution Detection, ICLR 2025",
        needs: Needs {
            texts: true,
            negatives: Some(Negatives::Mined),
            patches: true,
            ..Needs::LOGITS
        },
        cost: "gl_mcm, and a product of every patch with `count` negatives",
        trap: "published figures use learned local prompts for classes and negatives, these are texts",
        parameters: &[
            ParameterInfo::new("t", "1", "softmax temperature on cosines, above 0"),
            ParameterInfo::new(
                "topk",
                "10",
                "largest local probabilities, over patches and classes, to average, at least 1; all if there are fewer",
            ),
            ParameterInfo::new(
                "count",
                "300",
                "negative texts that count, the first ones, at least 1; all if there are fewer",
            ),
        ],
    };
    const MIN_CLASSES: usize = 2;
    type Fitted = PatchNegatives;

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            t: values.positive("t")?,
            topk: values.count("topk")?,
            count: values.count("count")?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![
            self.t.to_string(),
            self.topk.to_string(),
            self.count.to_string(),
        ]
    }

    fn scale(&self) -> Option<f64> {
        Some(1.0 / self.t)
    }

    fn local_scale(&self) -> Option<f64> {
        Some(1.0 / self.t)
    }

    fn reduce_patches(&self, patches: &Patches<'_>) -> f64 {
        let scale = 1.0 / self.t;
        let negatives = patches.product.len() / patches.softmax.len().max(1);
        let (mut largest, mut found) = (Vec::new(), Vec::new());
        let products = patches.product.chunks_exact(negatives.max(1));
        for ((cosines, softmax), products) in patches.rows().zip(products) {
            // No patch has more than `topk` of the largest, and they are those of its largest cosines.
            kernels::largest(cosines, self.topk.min(cosines.len()), &mut largest);
            let max = largest.first().map_or(0.0, |&(c, _)| f64::from(c));
            let (outside, _) = kernels::exp_sums(products, scale, max);
            let sum = 1.0 + softmax.others + outside;
            let shares = largest.iter();
            found.extend(shares.map(|&(c, _)| ((f64::from(c) - max) * scale).exp() / sum));
        }
        found.sort_unstable_by(|a: &f64, b| b.total_cmp(a));
        found.truncate(self.topk);
        found.iter().sum::<f64>() / found.len().max(1) as f64
    }

    fn fit(&self, data: &Prepared<'_>, _: &mut Vec<String>) -> Result<PatchNegatives, OodError> {
        let (mut negatives, dim) = (data.negatives()?, data.dim());
        negatives.truncate(self.count.saturating_mul(dim));
        Ok(PatchNegatives {
            negatives: Bank::new(negatives, dim),
        })
    }

    fn score(&self, _: &PatchNegatives, block: &Block<'_>) -> Vec<f32> {
        let softmaxes = block.softmax().iter().zip(block.local());
        softmaxes
            .map(|(s, l)| (s.probability() + l) as f32)
            .collect()
    }
}
