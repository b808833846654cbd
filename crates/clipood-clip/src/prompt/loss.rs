//! The losses of CoOp, LoCoOp and SCT on cached, normalised image features.

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{ClipError, Result};

/// The term on patches that do not show the image's class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchLoss {
    /// Weight of the term relative to the cross entropy.
    pub lambda: f64,
    /// A patch is left out of the term when its image's label is among its K most likely classes.
    pub top_k: usize,
}

/// The loss a method trains with. Serialised as `"coop"`, `{"locoop": {...}}` or `{"sct": {...}}`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptLoss {
    /// Cross entropy (CoOp, Zhou et al. 2022).
    Coop,
    /// Cross entropy and the negative entropy of irrelevant patches (LoCoOp, Miyai et al. 2023).
    Locoop(PatchLoss),
    /// LoCoOp with both terms weighted by the predicted probability of the label (SCT, Yu et al. 2024).
    Sct(PatchLoss),
}

impl PromptLoss {
    /// The term on patches, if the loss has one.
    pub fn patch(&self) -> Option<&PatchLoss> {
        match self {
            Self::Coop => None,
            Self::Locoop(patch) | Self::Sct(patch) => Some(patch),
        }
    }

    /// Whether patch features are needed.
    pub fn uses_patches(&self) -> bool {
        self.patch().is_some()
    }
}

/// Loss of one batch, and the logits for the training accuracy.
#[derive(Debug, Clone)]
pub struct StepLoss<B: Backend> {
    /// `[1]`.
    pub loss: Tensor<B, 1>,
    /// Logits of the global features `[batch, classes]`.
    pub logits: Tensor<B, 2>,
}

impl PromptLoss {
    /// `text` `[classes, D]`, `global` `[batch, D]`, `local` `[batch, patches, D]` (all normalised), `labels` `[batch]`;
    /// `scale` is the factor on cosines.
    ///
    /// LoCoOp adds `lambda * mean over selected patches of sum p log(p + 1e-5)` (its `entropy_select_topk`); SCT weights
    /// the cross entropy by `1.0000001 - p_y` and each patch by `1e-7 + p_y`, p_y the image's own probability of its
    /// label. If no patch is selected, the term is 0. `local` is ignored by a loss without a patch term.
    ///
    /// # Errors
    /// `local` is missing, and the loss has a patch term.
    pub fn step<B: Backend>(
        &self,
        text: Tensor<B, 2>,
        global: Tensor<B, 2>,
        local: Option<Tensor<B, 3>>,
        labels: Tensor<B, 1, Int>,
        scale: f64,
    ) -> Result<StepLoss<B>> {
        let batch = global.dims()[0];
        let logits = global.matmul(text.clone().transpose()) * scale;
        let index = labels.clone().reshape([batch, 1]);
        let log_p = log_softmax(logits.clone(), 1).gather(1, index);
        let patches = || {
            local.ok_or_else(|| {
                ClipError::Training(
                    "the loss has a patch term, and patch features are missing".into(),
                )
            })
        };
        let loss = match self {
            Self::Coop => -log_p.mean(),
            Self::Locoop(patch) => {
                let ones = log_p.ones_like();
                -log_p.mean() + patch_term(patch, text * scale, patches()?, labels, ones)
            }
            Self::Sct(patch) => {
                let p = log_p.clone().exp();
                let id = -(log_p * (-p.clone() + 1.000_000_1)).mean();
                id + patch_term(patch, text * scale, patches()?, labels, p + 1e-7)
            }
        };
        Ok(StepLoss { loss, logits })
    }
}

/// `lambda * mean over selected patches of w * sum p log(p + 1e-5)`; `weight` `[batch, 1]`, `text` already scaled.
fn patch_term<B: Backend>(
    options: &PatchLoss,
    text: Tensor<B, 2>,
    local: Tensor<B, 3>,
    labels: Tensor<B, 1, Int>,
    weight: Tensor<B, 2>,
) -> Tensor<B, 1> {
    let [batch, patches, dim] = local.dims();
    let classes = text.dims()[0];
    let logits = local
        .reshape([batch * patches, dim])
        .matmul(text.transpose());
    let index = labels
        .reshape([batch, 1])
        .expand([batch, patches])
        .reshape([batch * patches, 1]);
    // The label is in the top K exactly when fewer than K classes lie above it.
    let own = logits.clone().detach().gather(1, index);
    let above = logits
        .clone()
        .detach()
        .greater(own.expand([batch * patches, classes]))
        .float()
        .sum_dim(1);
    let selected = above
        .greater_equal_elem(options.top_k as f32)
        .float()
        .reshape([batch, patches]);
    let p = softmax(logits, 1);
    let entropy = (p.clone() * (p + 1e-5).log()).sum_dim(1);
    let entropy = entropy.reshape([batch, patches]) * weight;
    let count = selected.clone().sum().clamp_min(1.0);
    (entropy * selected).sum() / count * options.lambda
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::TensorData;

    use super::*;

    #[test]
    fn a_patch_term_without_patches_is_an_error() {
        let device = Default::default();
        let features = |rows: usize| {
            let values: Vec<f32> = (0..rows * 2).map(|i| i as f32 / 8.0).collect();
            Tensor::<Flex, 2>::from_data(TensorData::new(values, [rows, 2]), &device)
        };
        let step = |loss: PromptLoss| {
            let labels =
                Tensor::<Flex, 1, Int>::from_data(TensorData::new(vec![0, 1], [2]), &device);
            loss.step(features(3), features(2), None, labels, 10.0)
        };
        let patch = PatchLoss {
            lambda: 0.25,
            top_k: 1,
        };
        assert!(step(PromptLoss::Coop).is_ok());
        for loss in [PromptLoss::Locoop(patch), PromptLoss::Sct(patch)] {
            let error = step(loss).err().map(|error| error.to_string());
            assert!(error.is_some_and(|text| text.contains("patch features are missing")));
        }
    }

    #[test]
    fn losses_are_serialised_by_name() {
        let patch = PatchLoss {
            lambda: 0.25,
            top_k: 20,
        };
        for (loss, json) in [
            (PromptLoss::Coop, r#""coop""#),
            (
                PromptLoss::Locoop(patch),
                r#"{"locoop":{"lambda":0.25,"top_k":20}}"#,
            ),
            (
                PromptLoss::Sct(patch),
                r#"{"sct":{"lambda":0.25,"top_k":20}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&loss).unwrap(), json);
            assert_eq!(serde_json::from_str::<PromptLoss>(json).unwrap(), loss);
        }
    }
}
