//! Prompt learning on NVIDIA GPUs by the kernels of `clipood-cuda`; order of images, optimizer and state are those of the CPU.

use clipood_cuda::CudaError;
use clipood_cuda::card::Card;
use clipood_cuda::on_gpu::OnGpu;
use clipood_cuda::precision::Precision;
use clipood_cuda::prompt::{Batch, Loss, LossKind, PromptPlan, PromptStep, PromptTokens};

use super::gpu_text::text_sizes;
use super::gpu_tower::precision;
use super::prompt_trainer::{PromptTask, TrainedPrompt};
use super::text_encoder::repeat_equal;
use super::{Dtype, Model};
use crate::device::cuda;
use crate::error::{ClipError, Result};
use crate::prompt::{
    BatchStep, EpochLog, PromptData, PromptLayout, PromptLoss, PromptState, train_prompt,
};
use crate::tokenizer::Tokenizer;

/// Share of the free memory that the features of all images may take; the rest is for the tower.
const RESIDENT_SHARE: u64 = 2;

/// A model whose prompts are trained on a GPU.
pub(super) struct GpuPrompts {
    model: Model,
    index: usize,
    precision: Precision,
}

/// A training with what the steps need.
struct Steps<'a> {
    step: PromptStep<OnGpu>,
    data: &'a PromptData,
    resident: bool,
    patches: bool,
}

impl GpuPrompts {
    pub fn new(model: &Model, index: usize, dtype: Dtype) -> Self {
        Self {
            model: model.clone(),
            index,
            precision: precision(dtype),
        }
    }

    /// [`PromptTrainer::train`](super::PromptTrainer::train); the outer error is of the kernels, and then nothing was trained
    /// that could not be trained again by other means.
    pub fn train(
        &self,
        tokenizer: &Tokenizer,
        task: &PromptTask<'_>,
        resume: Option<PromptState>,
        after: impl FnMut(Option<&EpochLog>, &PromptState) -> bool,
    ) -> std::result::Result<Result<TrainedPrompt>, CudaError> {
        let text = &self.model.config.text;
        let layout = match PromptLayout::new(tokenizer, text.context, task.names, task.prompt) {
            Ok(layout) => layout,
            Err(error) => return Ok(Err(error)),
        };
        if let Err(error) = task.data.check(task.train.loss.uses_patches()) {
            return Ok(Err(error));
        }
        let classes = task.names.len();
        if let Some(label) = task.data.labels.iter().find(|l| **l as usize >= classes) {
            let problem = format!("label {label} is outside the {classes} classes");
            return Ok(Err(ClipError::Training(problem)));
        }
        let steps = self.steps(&layout, task)?;
        Ok(self.run(steps, (tokenizer, &layout), task, resume, after))
    }

    fn run(
        &self,
        mut steps: Steps<'_>,
        (tokenizer, layout): (&Tokenizer, &PromptLayout),
        task: &PromptTask<'_>,
        resume: Option<PromptState>,
        after: impl FnMut(Option<&EpochLog>, &PromptState) -> bool,
    ) -> Result<TrainedPrompt> {
        let width = self.model.config.text.width;
        let state = match resume {
            Some(state) => state,
            None => {
                let (prompt, seed) = (task.prompt, task.train.seed);
                let embed = |ids: &[u32]| self.embed(ids);
                PromptState {
                    context: layout.initial_context((tokenizer, width), prompt, seed, embed)?,
                    ..PromptState::default()
                }
            }
        };
        let rows = layout.context_rows();
        let mut step =
            |context: &[f32], picked: &[usize], labels: &[i32]| steps.run(context, picked, labels);
        let optimizer = task.train.optimizer();
        let state = train_prompt(task.data, &optimizer, rows * width, state, &mut step, after)?;
        let mut text = steps.step.features(&state.context)?;
        if !task.prompt.class_specific {
            repeat_equal(task.names, self.model.config.embed_dim, &mut text);
        }
        Ok(TrainedPrompt {
            state,
            context_rows: rows,
            text,
        })
    }

    fn steps<'a>(
        &self,
        layout: &PromptLayout,
        task: &PromptTask<'a>,
    ) -> std::result::Result<Steps<'a>, CudaError> {
        let gpu = cuda::opened(self.index)?;
        let fixed = self.embed(&layout.ids);
        let fixed = fixed.map_err(|error| CudaError::Unsupported(error.to_string()))?;
        let (data, train) = (task.data, task.train);
        let (loss, patches) = match train.loss {
            PromptLoss::Coop => (loss(LossKind::Coop, 0.0, 1), 0),
            PromptLoss::Locoop(p) => (loss(LossKind::Locoop, p.lambda, p.top_k), data.patches),
            PromptLoss::Sct(p) => (loss(LossKind::Sct, p.lambda, p.top_k), data.patches),
        };
        let local: &[f32] = if patches > 0 { &data.local } else { &[] };
        let bytes = 4 * (data.global.len() + local.len()) as u64;
        let free = gpu
            .description()
            .memory
            .saturating_sub(gpu.memory_in_use()?);
        let resident = bytes <= free / RESIDENT_SHARE;
        let weights = &self.model.weights;
        let parameters = |name: &str| weights.get(name).map(|tensor| &tensor.data[..]);
        let plan = PromptPlan::new(
            &clipood_cuda::prompt::PromptTask {
                parameters: &parameters,
                sizes: text_sizes(&self.model),
                precision: self.precision,
                tokens: PromptTokens {
                    fixed: &fixed,
                    index: &layout.index,
                    shared: layout.shared,
                    lengths: &layout.lengths,
                    contexts: layout.context_rows(),
                },
                loss,
                logit_scale: train.logit_scale as f32,
                images: train.batch_size.min(data.labels.len()).max(1),
                patches,
                resident: resident.then_some((data.global.as_slice(), local)),
            },
            &Card::of(&gpu)?,
        );
        let mut plan = plan?;
        let program = plan.program().clone();
        let device = OnGpu::new(&gpu, &program, plan.space())?;
        Ok(Steps {
            step: PromptStep::new(plan, device)?,
            data,
            resident,
            patches: patches > 0,
        })
    }

    /// Embeddings of token ids `[ids, width]`.
    fn embed(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let (table, width) = self.model.token_embedding()?;
        let mut found = Vec::with_capacity(ids.len() * width);
        for id in ids {
            let at = *id as usize * width;
            let row = table.get(at..at + width).ok_or_else(|| {
                ClipError::Text(format!(
                    "token id {id} is outside the vocabulary of {}",
                    table.len() / width
                ))
            })?;
            found.extend_from_slice(row);
        }
        Ok(found)
    }
}

impl Steps<'_> {
    fn run(&mut self, context: &[f32], picked: &[usize], labels: &[i32]) -> Result<BatchStep> {
        let (data, dim) = (self.data, self.data.dim);
        let found = if self.resident {
            let rows: Vec<i32> = picked.iter().map(|row| *row as i32).collect();
            self.step.run(context, Batch::Rows(&rows), labels)?
        } else {
            let rows = |values: &[f32], size: usize| -> Vec<f32> {
                let row = |row: &usize| &values[row * size..(row + 1) * size];
                picked.iter().flat_map(row).copied().collect()
            };
            let global = rows(&data.global, dim);
            let local = match self.patches {
                true => rows(&data.local, data.patches * dim),
                false => Vec::new(),
            };
            let batch = Batch::Features(&global, &local);
            self.step.run(context, batch, labels)?
        };
        let finite = found.gradient.iter().all(|value| value.is_finite());
        if !finite && found.loss.is_finite() && self.step.may_overflow() {
            return Err(ClipError::Training(
                "the gradient of a step leaves the range of f16: train with --dtype f32".into(),
            ));
        }
        Ok(BatchStep {
            loss: found.loss,
            gradient: found.gradient,
            right: found.right,
        })
    }
}

fn loss(kind: LossKind, lambda: f64, top_k: usize) -> Loss {
    Loss {
        kind,
        lambda: lambda as f32,
        top_k,
    }
}
