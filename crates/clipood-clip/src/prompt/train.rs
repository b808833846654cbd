//! The training loop over cached features: SGD with momentum and weight decay, resumable after every step.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use clipood_core::SplitMix64;
use serde::{Deserialize, Serialize};

use super::learner::PromptLearner;
use super::loss::{PromptLoss, StepLoss};
use super::schedule::Schedule;
use crate::error::{ClipError, Result};
use crate::kernels::ClipBackend;
use crate::text::TextTransformer;
use crate::weights::tensor_to_vec;

/// Cached features of the few-shot images: `views` crops per image, all rows normalised.
#[derive(Debug, Clone, Default)]
pub struct PromptData {
    /// `[images * views, dim]`, the views of one image in consecutive rows.
    pub global: Vec<f32>,
    /// `[images * views, patches, dim]`, empty when the loss needs none.
    pub local: Vec<f32>,
    /// One label per image, below the number of classes.
    pub labels: Vec<u32>,
    /// Views per image.
    pub views: usize,
    /// Patches per view.
    pub patches: usize,
    /// Width of a feature.
    pub dim: usize,
}

/// Loss, optimizer and schedule: all that decides a training beside the prompt's shape and the data. The serialised form can
/// be part of a fingerprint, as nothing else enters the numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainOptions {
    /// Loss, and with it the method.
    pub loss: PromptLoss,
    /// Factor on cosines before the softmax: the checkpoint's own, 100 for every released CLIP.
    pub logit_scale: f64,
    /// Passes over the images.
    pub epochs: usize,
    /// Learning rate at the start of the cosine schedule, which follows the warm-up epoch (see
    /// [`learning_rate`](super::learning_rate)).
    pub lr: f64,
    /// Constant learning rate of the first epoch.
    pub warmup_lr: f64,
    /// Momentum of SGD, in 0..1.
    pub momentum: f64,
    /// L2 penalty: this factor times the context is added to the gradient.
    pub weight_decay: f64,
    /// Images per step; a last short batch is dropped unless it is the only one.
    pub batch_size: usize,
    /// Epoch `e` takes view `e` of every image, modulo the number of views, instead of a random view.
    pub fresh_views: bool,
    /// Seed of the initial context, the order of the images and the choice of views.
    pub seed: u64,
}

impl TrainOptions {
    /// What the training loop needs.
    pub(crate) fn optimizer(&self) -> Optimizer {
        Optimizer {
            epochs: self.epochs,
            schedule: Schedule::Warmup {
                base: self.lr,
                warmup: self.warmup_lr,
            },
            momentum: self.momentum,
            weight_decay: self.weight_decay,
            batch_size: self.batch_size,
            fresh_views: self.fresh_views,
            seed: self.seed,
        }
    }
}

/// All that decides a training beside loss, prompt and data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Optimizer {
    /// Passes over the images.
    pub epochs: usize,
    /// Learning rates.
    pub schedule: Schedule,
    /// Momentum of SGD.
    pub momentum: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// Images per step.
    pub batch_size: usize,
    /// Whether each epoch has a view of its own.
    pub fresh_views: bool,
    /// Seed of the order of the images and the choice of views.
    pub seed: u64,
}

/// State of a training after a step: all that is needed to resume it with the same results. The order of the images and the
/// choice of views follow from the seed and the epoch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PromptState {
    /// Row-major `[rows, width]`.
    pub context: Vec<f32>,
    /// Momentum buffer of the same shape; empty before the first step.
    pub momentum: Vec<f32>,
    /// Completed epochs.
    pub epoch: usize,
    /// Completed steps.
    pub step: usize,
    /// Progress within the current epoch.
    pub partial: PartialEpoch,
}

/// The completed part of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PartialEpoch {
    /// Completed steps of the epoch.
    pub steps: usize,
    /// Sum of their losses.
    pub loss: f64,
    /// Views that the global features classified correctly.
    pub right: usize,
}

/// One epoch's entry in the training log.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochLog {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Steps completed by its end.
    pub step: usize,
    /// Mean loss of its steps.
    pub loss: f64,
    /// Share of its training views that the global features classified correctly, in 0..=1.
    pub accuracy: f64,
    /// The learning rate of its last step.
    pub lr: f64,
}

impl PromptData {
    pub(crate) fn check(&self, uses_patches: bool) -> Result<()> {
        let rows = self.labels.len() * self.views;
        let wrong = |what, expected, found| {
            Err(ClipError::Input {
                what,
                expected,
                found,
            })
        };
        if rows == 0 {
            return Err(ClipError::Training("no training images".into()));
        }
        if self.global.len() != rows * self.dim {
            return wrong(
                "global training features",
                rows * self.dim,
                self.global.len(),
            );
        }
        if uses_patches && self.local.len() != rows * self.patches * self.dim {
            return wrong(
                "local training features",
                rows * self.patches * self.dim,
                self.local.len(),
            );
        }
        Ok(())
    }
}

/// One SGD step on the context, in the form of PyTorch's `SGD` without Nesterov momentum.
pub fn sgd(state: &mut PromptState, gradient: &[f32], lr: f64, momentum: f64, decay: f64) {
    let first = state.momentum.is_empty();
    if first {
        state.momentum = vec![0.0; gradient.len()];
    }
    for ((value, buffer), g) in state
        .context
        .iter_mut()
        .zip(&mut state.momentum)
        .zip(gradient)
    {
        let g = g + decay as f32 * *value;
        *buffer = if first {
            g
        } else {
            momentum as f32 * *buffer + g
        };
        *value -= lr as f32 * *buffer;
    }
}

/// What stays the same over all steps of one training.
#[derive(Debug, Clone, Copy)]
pub struct Training<'a, B: Backend> {
    /// The text tower. It must be frozen (`no_grad`), or gradients of the whole tower are computed in vain.
    pub text: &'a TextTransformer<B>,
    /// The prompts of the class list.
    pub learner: &'a PromptLearner<B>,
    /// Image features of the shots.
    pub data: &'a PromptData,
    /// Loss, optimizer and schedule.
    pub options: &'a TrainOptions,
}

/// One step: from the context, the rows of a batch and their labels to loss and gradient.
pub(crate) type StepOf<'a> = dyn FnMut(&[f32], &[usize], &[i32]) -> Result<BatchStep> + 'a;

/// Trains the context of `context_values` values from `state` to the last epoch. `step` is given the context, the rows of
/// the data that make a batch, and their labels. `after` is called after every step with the state, and at the end of an
/// epoch with its log; it stops the training by returning false, and a later call can resume from the state it was given.
///
/// # Errors
/// A context of the wrong size, a label beyond the classes, or a loss that is not finite (the step is named; the last state that
/// `after` was given is valid). The caller has checked the data.
pub(crate) fn train_prompt(
    data: &PromptData,
    options: &Optimizer,
    context_values: usize,
    mut state: PromptState,
    step: &mut StepOf<'_>,
    mut after: impl FnMut(Option<&EpochLog>, &PromptState) -> bool,
) -> Result<PromptState> {
    if state.context.len() != context_values {
        return Err(ClipError::Input {
            what: "context values",
            expected: context_values,
            found: state.context.len(),
        });
    }
    let images = data.labels.len();
    let batch = options.batch_size.min(images).max(1);
    while state.epoch < options.epochs {
        let epoch = state.epoch;
        let mut lr = 0.0;
        let mut rng = SplitMix64::keyed(options.seed, "prompt epoch", epoch as u64);
        let mut order: Vec<usize> = (0..images).collect();
        rng.shuffle(&mut order);
        let steps = images / batch;
        for (number, chosen) in order.chunks_exact(batch).enumerate() {
            let picked: Vec<usize> = chosen
                .iter()
                .map(|image| {
                    let view = match options.fresh_views {
                        true => epoch % data.views,
                        false => rng.below(data.views as u64) as usize,
                    };
                    image * data.views + view
                })
                .collect();
            // Done before an interruption; the random draws above must be repeated to keep the sequence.
            if number < state.partial.steps {
                continue;
            }
            let labels: Vec<i32> = chosen.iter().map(|i| data.labels[*i] as i32).collect();
            let step = step(&state.context, &picked, &labels)?;
            if !step.loss.is_finite() {
                return Err(ClipError::Training(format!(
                    "the loss of step {} (epoch {epoch}) is {}",
                    state.step, step.loss
                )));
            }
            lr = options.schedule.rate((epoch, options.epochs), state.step);
            sgd(
                &mut state,
                &step.gradient,
                lr,
                options.momentum,
                options.weight_decay,
            );
            if let Some(value) = state.context.iter().find(|value| !value.is_finite()) {
                return Err(ClipError::Training(format!(
                    "after the loss of step {} (epoch {epoch}), {}, the context holds {value}: lower the learning rate",
                    state.step, step.loss
                )));
            }
            state.step += 1;
            state.partial.loss += f64::from(step.loss);
            state.partial.right += step.right;
            state.partial.steps += 1;
            if number + 1 < steps && !after(None, &state) {
                return Ok(state);
            }
        }
        let done = std::mem::take(&mut state.partial);
        state.epoch += 1;
        let log = EpochLog {
            epoch,
            step: state.step,
            loss: done.loss / done.steps as f64,
            accuracy: done.right as f64 / (done.steps * batch) as f64,
            lr,
        };
        if !after(Some(&log), &state) {
            break;
        }
    }
    Ok(state)
}

/// Loss, gradient of the context and correct classifications of one batch.
#[derive(Debug, Clone)]
pub struct BatchStep {
    /// Loss before the step.
    pub loss: f32,
    /// Gradient of the context, `[rows, width]`.
    pub gradient: Vec<f32>,
    /// Rows whose global feature is closest to the text of its label.
    pub right: usize,
}

/// Forward and backward pass with `context`, row-major `[rows, width]`, over the rows `picked` of the data, whose labels are
/// `labels`.
///
/// # Errors
/// A label beyond the classes, or a context of the wrong size.
pub fn batch_step<B: AutodiffBackend + ClipBackend>(
    training: &Training<'_, B>,
    context: &[f32],
    picked: &[usize],
    labels: &[i32],
) -> Result<BatchStep> {
    let Training {
        text,
        learner,
        data,
        options,
    } = *training;
    let device = &text.device();
    let n = picked.len();
    let rows = learner.context_rows();
    let context = Tensor::<B, 2>::from_data(
        TensorData::new(context.to_vec(), [rows, text.width()]),
        device,
    )
    .require_grad();
    let features = learner.text_features(text, context.clone())?;
    let label_tensor = label_tensor(labels, features.dims()[0], device)?;
    let global = Tensor::from_data(
        TensorData::new(rows_of(&data.global, picked, data.dim), [n, data.dim]),
        device,
    );
    let local = options.loss.uses_patches().then(|| {
        let size = data.patches * data.dim;
        Tensor::from_data(
            TensorData::new(
                rows_of(&data.local, picked, size),
                [n, data.patches, data.dim],
            ),
            device,
        )
    });
    let step = options
        .loss
        .step(features, global, local, label_tensor, options.logit_scale)?;
    finish_step(step, &context, labels)
}

/// The labels of a batch on the device.
///
/// # Errors
/// A label beyond the classes.
pub(crate) fn label_tensor<B: Backend>(
    labels: &[i32],
    classes: usize,
    device: &B::Device,
) -> Result<Tensor<B, 1, Int>> {
    if let Some(label) = labels.iter().find(|l| **l < 0 || **l as usize >= classes) {
        return Err(ClipError::Training(format!(
            "label {label} is outside the {classes} classes"
        )));
    }
    let data = TensorData::new(labels.to_vec(), [labels.len()]);
    Ok(Tensor::from_data(data, device))
}

/// The backward pass to the context, and how many rows were classified as `labels` say.
///
/// # Errors
/// A loss that does not depend on the context.
pub(crate) fn finish_step<B: AutodiffBackend>(
    step: StepLoss<B>,
    context: &Tensor<B, 2>,
    labels: &[i32],
) -> Result<BatchStep> {
    let [_, classes] = step.logits.dims();
    let loss = tensor_to_vec(step.loss.clone())[0];
    let logits = tensor_to_vec(step.logits);
    let right = logits
        .chunks_exact(classes)
        .zip(labels)
        .filter(|(row, label)| argmax(row) == **label as usize)
        .count();
    let grads = step.loss.backward();
    let gradient = context
        .grad(&grads)
        .map(tensor_to_vec)
        .ok_or_else(|| ClipError::Training("the loss does not depend on the context".into()))?;
    Ok(BatchStep {
        loss,
        gradient,
        right,
    })
}

pub(crate) fn rows_of(values: &[f32], picked: &[usize], size: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(picked.len() * size);
    for row in picked {
        out.extend_from_slice(&values[row * size..(row + 1) * size]);
    }
    out
}

fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in row.iter().enumerate() {
        if *v > row[best] {
            best = i;
        }
    }
    best
}
