//! Trained contexts: CoOp, LoCoOp and SCT, which differ only in their loss.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clipood_clip::model::{PromptTask, PromptTrainer};
use clipood_clip::prompt::{
    EpochLog, PatchLoss, PromptData, PromptLoss, PromptOptions, TrainOptions,
};
use clipood_core::{ClassToken, Method, Recipe, TrainSection};
use serde::{Serialize, Serializer};

use super::work::Work;
use crate::error::{PipelineError, Result};
use crate::prompts::checkpoint::{read_checkpoint, write_checkpoint};
use crate::prompts::file::PromptSet;
use crate::prompts::key::PromptKey;
use crate::tables::{FileMeta, TrainLogRow, write_train_log};

/// Time between two checkpoints of a training.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// Everything that determines a trained context besides model, classes and images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContextTraining {
    /// Seed of the initial context, the order of the images and the choice of views.
    pub seed: u64,
    /// Number of context vectors.
    pub n_ctx: usize,
    /// Words that the context starts from.
    pub ctx_init: Option<String>,
    /// Where the class name stands.
    pub class_token: ClassToken,
    /// One context per class.
    pub class_specific: bool,
    /// Optimizer, schedule and views.
    pub train: TrainSection,
    /// Passes over the shots.
    pub epochs: usize,
    /// The loss. Its parameters enter the fingerprint here; its name is there already, as `method`.
    #[serde(flatten, serialize_with = "loss_parameters")]
    loss: PromptLoss,
}

/// Serialises the parameters of a loss without its name.
fn loss_parameters<S: Serializer>(
    loss: &PromptLoss,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    loss.patch().serialize(serializer)
}

impl ContextTraining {
    /// The specification of the prompt set `key` in a recipe, for `classes` classes.
    ///
    /// # Errors
    /// A patch term that does not fit the number of classes; a method that trains no context.
    pub fn of(recipe: &Recipe, classes: usize, key: &PromptKey) -> Result<Self> {
        let (_, seed) = key.shots_and_seed()?;
        let patch = || -> Result<PatchLoss> {
            Ok(PatchLoss {
                lambda: recipe.locoop.lambda,
                top_k: recipe.locoop.top_k_for(classes)?,
            })
        };
        let loss = match key.method {
            Method::Coop | Method::Dpcoop => PromptLoss::Coop,
            Method::Locoop | Method::Dplocoop => PromptLoss::Locoop(patch()?),
            Method::Sct | Method::Dpsct => PromptLoss::Sct(patch()?),
            Method::ZeroShot | Method::LinearProbe => {
                let problem = format!("method `{}` trains no context", key.method);
                return Err(PipelineError::Inconsistent(problem));
            }
        };
        Ok(Self {
            seed,
            n_ctx: recipe.prompt.n_ctx,
            ctx_init: recipe.prompt.ctx_init.clone(),
            class_token: recipe.prompt.class_token,
            class_specific: recipe.prompt.class_specific,
            train: recipe.train.clone(),
            epochs: recipe.train.epochs_for(key.method),
            loss,
        })
    }

    /// Whether the loss reads patch features.
    pub fn uses_patches(&self) -> bool {
        self.loss.uses_patches()
    }

    /// K of the patch term, if the loss has one: a patch is extracted if its image's label is not among its K most likely
    /// classes.
    pub fn top_k(&self) -> Option<usize> {
        self.loss.patch().map(|patch| patch.top_k)
    }

    fn prompt_options(&self) -> PromptOptions {
        PromptOptions {
            n_ctx: self.n_ctx,
            ctx_init: self.ctx_init.clone(),
            class_token: self.class_token,
            class_specific: self.class_specific,
        }
    }

    /// The options of the training loop; `logit_scale` is that of the model's checkpoint.
    fn train_options(&self, logit_scale: f64) -> TrainOptions {
        TrainOptions {
            loss: self.loss,
            logit_scale,
            epochs: self.epochs,
            lr: self.train.lr,
            warmup_lr: self.train.warmup_lr,
            momentum: self.train.momentum,
            weight_decay: self.train.weight_decay,
            batch_size: self.train.batch_size,
            fresh_views: self.train.views == 0,
            seed: self.seed,
        }
    }

    /// Trains the context on cached views, from its last checkpoint if there is one, and writes its log.
    ///
    /// # Errors
    /// An interruption (after writing a checkpoint), a loss that is not finite, a store that cannot be written.
    pub fn make(
        &self,
        work: &Work<'_>,
        trainer: &PromptTrainer,
        data: &PromptData,
    ) -> Result<PromptSet> {
        let (store, unit) = (work.store, work.unit);
        let options = self.train_options(work.model.logit_scale());
        let (resume, mut log) = read_checkpoint(store, unit, |text| work.note(text))?;
        if let Some(state) = &resume {
            work.note(&format!("going on after step {}", state.step));
            work.add(state.epoch as u64);
        }
        let mut saved = Instant::now();
        let mut saved_step = resume.as_ref().map_or(0, |state| state.step);
        let mut failure = None;
        let task = PromptTask {
            names: work.classes,
            prompt: &self.prompt_options(),
            data,
            train: &options,
        };
        let trained = trainer.train(&task, resume, |epoch, state| {
            if let Some(epoch) = epoch {
                log.push(log_row(epoch));
                work.add(1);
            }
            let stop = work.interrupt.is_set();
            let steps = state.step - saved_step >= work.checkpoint_steps;
            if stop || steps || (epoch.is_some() && saved.elapsed() >= CHECKPOINT_EVERY) {
                (saved, saved_step) = (Instant::now(), state.step);
                if let Err(error) = write_checkpoint(store, unit, state, &log) {
                    failure = Some(error);
                    return false;
                }
            }
            !stop
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        if trained.state.epoch < options.epochs {
            return Err(PipelineError::Interrupted);
        }
        if let Some(last) = log.last() {
            work.note(&format!(
                "loss {:.3}, training accuracy {:.1}% after {} steps",
                last.loss,
                100.0 * last.accuracy,
                last.step
            ));
        }
        let meta = FileMeta {
            fingerprint: unit.fingerprint.clone(),
            recipe: work.recipe.to_string(),
            ..FileMeta::default()
        };
        let path = format!("{}/train_log.parquet", unit.fingerprint);
        store.put(&path, Bytes::from(write_train_log(&log, &meta)?))?;
        Ok(PromptSet {
            fingerprint: unit.fingerprint.clone(),
            classes: work.classes.to_vec(),
            text: trained.text,
            state: Some(trained.state),
            probe: None,
        })
    }
}

fn log_row(epoch: &EpochLog) -> TrainLogRow {
    TrainLogRow {
        epoch: epoch.epoch as u64,
        step: epoch.step as u64,
        loss: epoch.loss,
        accuracy: epoch.accuracy,
        lr: epoch.lr,
    }
}
