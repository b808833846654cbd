//! Trained contexts: CoOp, LoCoOp and SCT, which differ only in their loss.

use clipood_clip::model::{PromptTask, PromptTrainer};
use clipood_clip::prompt::{PatchLoss, PromptData, PromptLoss, PromptOptions, TrainOptions};
use clipood_core::{ClassToken, Method, Recipe, TrainSection};
use serde::{Serialize, Serializer};

use super::resumable::train_resumably;
use super::work::Work;
use crate::error::{PipelineError, Result};
use crate::prompts::file::PromptSet;
use crate::prompts::key::PromptKey;

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
            // The positive prompts of NegPrompt are CoOp's.
            Method::Coop | Method::Negprompt | Method::Dpcoop => PromptLoss::Coop,
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
        let options = self.train_options(work.model.logit_scale());
        let task = PromptTask {
            names: work.classes,
            prompt: &self.prompt_options(),
            data,
            train: &options,
        };
        let trained = train_resumably(work, self.epochs, |resume, after| {
            trainer.train(&task, resume, after)
        })?;
        Ok(PromptSet {
            fingerprint: work.unit.fingerprint.clone(),
            classes: work.classes.to_vec(),
            text: trained.text,
            state: Some(trained.state),
            probe: None,
            negatives: None,
        })
    }
}

/// The shape of the contexts of a recipe.
pub fn prompt_options(recipe: &Recipe) -> PromptOptions {
    let prompt = &recipe.prompt;
    PromptOptions {
        n_ctx: prompt.n_ctx,
        ctx_init: prompt.ctx_init.clone(),
        class_token: prompt.class_token,
        class_specific: prompt.class_specific,
    }
}
