//! NegPrompt: prompts that say what a class is not (Li et al., "Learning Transferable Negative Prompts for Out-of-Distribution
//! Detection", CVPR 2024), learned beside frozen positive prompts from in-distribution images alone.
//!
//! The terms and weights are those of `train_nega_clip` and its third stage in the authors' code (mala-lab/NegPrompt). Where it
//! differs from what its names say, the arithmetic counts: see [`NegativeLoss::step`].

use burn::tensor::activation::log_sigmoid;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use clipood_core::SplitMix64;
use serde::{Deserialize, Serialize};

use super::learner::PromptLearner;
use super::loss::StepLoss;
use super::schedule::{CosineWaves, Schedule};
use super::train::{BatchStep, Optimizer, PromptData, finish_step, label_tensor, rows_of};
use crate::error::{ClipError, Result};
use crate::kernels::ClipBackend;
use crate::text::TextTransformer;

/// Bound of the uniform noise on the copies of the positive context that the negative ones start from.
const NOISE: f64 = 1e-5;

/// Weights of the two terms beside the one on images, which has weight 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NegativeLoss {
    /// Of the distance between the negatives of a class and its positive.
    pub distance: f64,
    /// Of the diversity of the negatives of a class.
    pub diversity: f64,
}

impl NegativeLoss {
    /// The loss of one batch. `positive` `[classes, D]` and `negative` `[per class, classes, D]` are text features, `global`
    /// `[batch, D]` image features, all normalised; `labels` `[batch]`, `scale` is the factor on cosines. The logits of the
    /// result are those of the positives.
    ///
    /// With `x = scale * cosine` of an image and each of the `K = classes * (1 + per class)` texts, and `y` 1 for the positive
    /// **and the negatives** of its label, 0 for all others:
    ///
    /// - images: mean over images and texts of `-(y log sigmoid(x) + (1 - y) log sigmoid(-x))`. As cosines of CLIP are positive
    ///   and multiplied by 100, this pushes the negatives away from the images of all other classes, and hardly pulls at all;
    /// - distance: minus the mean over classes and negatives of `1 - cosine` to the positive of the class;
    /// - diversity: mean over classes of the length of the mean negative, minus 1. (The authors' code multiplies lengths where a
    ///   product of directions would be expected; the negatives have length 1, so this is left.)
    pub fn step<B: Backend>(
        &self,
        positive: Tensor<B, 2>,
        negative: Tensor<B, 3>,
        global: Tensor<B, 2>,
        labels: Tensor<B, 1, Int>,
        scale: f64,
    ) -> StepLoss<B> {
        let [batch, _] = global.dims();
        let [per_class, classes, dim] = negative.dims();
        let index = labels.reshape([batch, 1]);
        let logits = global.clone().matmul(positive.clone().transpose()) * scale;
        let texts = negative.clone().reshape([per_class * classes, dim]);
        let others = global.matmul(texts.transpose()) * scale;
        // -(y log s(x) + (1 - y) log s(-x)) = -log s(-x) - y x, as log s(x) - log s(-x) = x.
        let background = -log_sigmoid(-logits.clone()).sum() - log_sigmoid(-others.clone()).sum();
        let own = logits.clone().gather(1, index.clone()).sum();
        let label = index.reshape([batch, 1, 1]).expand([batch, per_class, 1]);
        let others = others.reshape([batch, per_class, classes]);
        let own = own + others.gather(2, label).sum();
        let count = (batch * classes * (1 + per_class)) as f64;
        let images = (background - own) / count;

        let cosines = (negative.clone() * positive.unsqueeze::<3>()).sum_dim(2);
        let distance = cosines.mean() - 1.0;

        let mean = negative.mean_dim(0);
        let lengths = (mean.clone() * mean).sum_dim(2).sqrt();
        let diversity = lengths.mean() - 1.0;

        StepLoss {
            loss: images + distance * self.distance + diversity * self.diversity,
            logits,
        }
    }
}

/// Loss, optimizer and schedule of negative prompts: SGD without momentum and without weight decay. The serialised form can be
/// part of a fingerprint, as nothing else enters the numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NegativeOptions {
    /// Negative prompts per class, at least 1.
    pub per_class: usize,
    /// The loss.
    pub loss: NegativeLoss,
    /// Factor on cosines: the checkpoint's own.
    pub logit_scale: f64,
    /// Passes over the images.
    pub epochs: usize,
    /// Learning rates.
    pub rates: CosineWaves,
    /// Images per step; a last short batch is dropped unless it is the only one.
    pub batch_size: usize,
    /// Epoch `e` takes view `e` of every image, modulo the number of views, instead of a random view.
    pub fresh_views: bool,
    /// Seed of the noise, the order of the images and the choice of views.
    pub seed: u64,
}

impl NegativeOptions {
    /// What the training loop needs.
    pub(crate) fn optimizer(&self) -> Optimizer {
        Optimizer {
            epochs: self.epochs,
            schedule: Schedule::Waves(self.rates),
            momentum: 0.0,
            weight_decay: 0.0,
            batch_size: self.batch_size,
            fresh_views: self.fresh_views,
            seed: self.seed,
        }
    }

    /// The contexts before the first step, one after the other: copies of the `positive` one with a little noise, without which
    /// they would stay equal.
    pub(crate) fn initial_contexts(&self, positive: &[f32]) -> Vec<f32> {
        let mut rng = SplitMix64::keyed(self.seed, "negative contexts", 0);
        let copies = std::iter::repeat_n(positive, self.per_class).flatten();
        copies
            .map(|value| value + (NOISE * (2.0 * rng.unit() - 1.0)) as f32)
            .collect()
    }
}

/// What stays the same over all steps of one training of negatives.
#[derive(Debug, Clone, Copy)]
pub struct NegativeTraining<'a, B: Backend> {
    /// The text tower. It must be frozen (`no_grad`), or gradients of the whole tower are computed in vain.
    pub text: &'a TextTransformer<B>,
    /// The prompts of the class list, which positive and negative contexts share.
    pub learner: &'a PromptLearner<B>,
    /// Normalised text features of the positive prompts `[classes, D]`.
    pub positive: &'a [f32],
    /// Image features of the shots.
    pub data: &'a PromptData,
    /// Loss, optimizer and schedule.
    pub options: &'a NegativeOptions,
}

/// Normalised text features `[per class, classes, D]` of the negative contexts, which lie one after the other in `contexts`
/// `[per class * rows, width]`.
///
/// # Errors
/// Contexts of the wrong size.
pub(crate) fn negative_features<B: ClipBackend>(
    (text, learner): (&TextTransformer<B>, &PromptLearner<B>),
    per_class: usize,
    contexts: Tensor<B, 2>,
) -> Result<Tensor<B, 3>> {
    let rows = learner.context_rows();
    let [found, _] = contexts.dims();
    if per_class == 0 || found != per_class * rows {
        return Err(ClipError::Input {
            what: "vectors of negative contexts, of one negative prompt or more",
            expected: per_class.max(1) * rows,
            found,
        });
    }
    let features = (0..per_class)
        .map(|number| {
            let own = contexts.clone().narrow(0, number * rows, rows);
            Ok(learner.text_features(text, own)?.unsqueeze::<3>())
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(features, 0))
}

/// Forward and backward pass with the negative `contexts`, row-major `[per class * rows, width]`, over the rows `picked` of the
/// data, whose labels are `labels`. As right counts what the positives classify correctly.
///
/// # Errors
/// A label beyond the classes, contexts or positive features of the wrong size.
pub fn negative_step<B: AutodiffBackend + ClipBackend>(
    training: &NegativeTraining<'_, B>,
    contexts: &[f32],
    picked: &[usize],
    labels: &[i32],
) -> Result<BatchStep> {
    let NegativeTraining {
        text,
        learner,
        positive,
        data,
        options,
    } = *training;
    let device = &text.device();
    let width = text.width();
    let shape = [contexts.len() / width, width];
    let contexts =
        Tensor::<B, 2>::from_data(TensorData::new(contexts.to_vec(), shape), device).require_grad();
    let per_class = options.per_class;
    let negative = negative_features((text, learner), per_class, contexts.clone())?;
    let [_, classes, dim] = negative.dims();
    if positive.len() != classes * dim {
        return Err(ClipError::Input {
            what: "values of positive text features",
            expected: classes * dim,
            found: positive.len(),
        });
    }
    let positive = TensorData::new(positive.to_vec(), [classes, dim]);
    let global = rows_of(&data.global, picked, data.dim);
    let global = TensorData::new(global, [picked.len(), data.dim]);
    let step = options.loss.step(
        Tensor::from_data(positive, device),
        negative,
        Tensor::from_data(global, device),
        label_tensor(labels, classes, device)?,
        options.logit_scale,
    );
    finish_step(step, &contexts, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(per_class: usize) -> NegativeOptions {
        NegativeOptions {
            per_class,
            loss: NegativeLoss {
                distance: 0.1,
                diversity: 0.05,
            },
            logit_scale: 100.0,
            epochs: 1,
            rates: CosineWaves {
                base: 0.1,
                fall: 50,
            },
            batch_size: 64,
            fresh_views: false,
            seed: 3,
        }
    }

    #[test]
    fn contexts_start_near_the_positive_one_and_apart() {
        let positive: Vec<f32> = (0..12).map(|i| i as f32 / 16.0).collect();
        let start = options(3).initial_contexts(&positive);
        assert_eq!(start.len(), 36);
        for copy in start.chunks_exact(12) {
            let near = copy
                .iter()
                .zip(&positive)
                .all(|(a, b)| (a - b).abs() < 2e-5);
            assert!(near, "{copy:?}");
        }
        assert_ne!(start[..12], start[12..24]);
        assert_eq!(start, options(3).initial_contexts(&positive));
    }
}
