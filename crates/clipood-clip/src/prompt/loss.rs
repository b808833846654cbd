//! The losses of CoOp, LoCoOp and SCT on cached, normalised image features.

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

/// The term on patches that do not show the image's class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PatchLoss {
    /// Weight of the term.
    pub lambda: f64,
    /// A patch is left out when its image's label is among its K most likely classes.
    pub top_k: usize,
}

/// Which loss a method trains with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PromptLoss {
    /// Cross entropy.
    Coop,
    /// Cross entropy and the entropy of irrelevant patches.
    Locoop(PatchLoss),
    /// LoCoOp with both terms weighted by how sure the model is of the label.
    Sct(PatchLoss),
}

impl PromptLoss {
    /// Whether patch features are needed.
    pub fn uses_patches(&self) -> bool {
        !matches!(self, Self::Coop)
    }
}

/// Loss of one batch and what a log wants to know of it.
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
    /// label. No patch selected: the term is 0.
    pub fn step<B: Backend>(
        &self,
        text: Tensor<B, 2>,
        global: Tensor<B, 2>,
        local: Option<Tensor<B, 3>>,
        labels: Tensor<B, 1, Int>,
        scale: f64,
    ) -> StepLoss<B> {
        let batch = global.dims()[0];
        let logits = global.matmul(text.clone().transpose()) * scale;
        let index = labels.clone().reshape([batch, 1]);
        let log_p = log_softmax(logits.clone(), 1).gather(1, index);
        let loss = match (self, local) {
            (Self::Locoop(patch), Some(local)) => {
                let ones = log_p.ones_like();
                -log_p.mean() + patch_term(patch, text * scale, local, labels, ones)
            }
            (Self::Sct(patch), Some(local)) => {
                let p = log_p.clone().exp();
                let id = -(log_p * (-p.clone() + 1.000_000_1)).mean();
                id + patch_term(patch, text * scale, local, labels, p + 1e-7)
            }
            _ => -log_p.mean(),
        };
        StepLoss { loss, logits }
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
