//! NegPrompt: negative prompts of every class, trained beside the frozen prompts of a CoOp training of the same shots and seed.
//!
//! Li et al., "Learning Transferable Negative Prompts for Out-of-Distribution Detection", CVPR 2024. Losses and schedule are those
//! of the authors' code; `docs/TRAINING.md` names what differs.

use clipood_clip::model::{NegativeTask, PromptTrainer};
use clipood_clip::prompt::{CosineWaves, NegativeLoss, NegativeOptions, PromptData, PromptOptions};
use clipood_core::Recipe;
use serde::Serialize;

use super::context::prompt_options;
use super::resumable::train_resumably;
use super::work::Work;
use crate::error::{PipelineError, Result};
use crate::prompts::file::{NegativePrompts, PromptSet};
use crate::prompts::key::PromptKey;

/// Everything that determines negative prompts besides model, classes, images and the positive prompt set, whose shape they have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NegativeTraining {
    /// Seed of the noise, the order of the images and the choice of views.
    pub seed: u64,
    /// Negative prompts per class.
    pub negatives: usize,
    /// Weights of the terms on texts.
    pub loss: NegativeLoss,
    /// Passes over the shots.
    pub epochs: usize,
    /// Learning rates.
    pub rates: CosineWaves,
    /// Images per step.
    pub batch_size: usize,
    /// Crops per image, of which a step draws one; 0: one per epoch.
    pub views: usize,
    /// Smallest and largest share of the image that a crop covers.
    pub crop_scale: [f64; 2],
    /// Shape of the contexts; the fingerprint has it in that of the positive prompt set.
    #[serde(skip)]
    prompt: PromptOptions,
}

impl NegativeTraining {
    /// The specification of the prompt set `key` in a recipe.
    ///
    /// # Errors
    /// A key without shots.
    pub fn of(recipe: &Recipe, key: &PromptKey) -> Result<Self> {
        let (_, seed) = key.shots_and_seed()?;
        let section = recipe.negprompt.unwrap_or_default();
        Ok(Self {
            seed,
            negatives: section.negatives,
            loss: NegativeLoss {
                distance: section.distance_weight,
                diversity: section.diversity_weight,
            },
            epochs: section.epochs,
            rates: CosineWaves {
                base: section.lr,
                fall: section.lr_fall,
            },
            batch_size: section.batch_size,
            views: recipe.train.views,
            crop_scale: recipe.train.crop_scale,
            prompt: prompt_options(recipe),
        })
    }

    /// The options of the training loop; `logit_scale` is that of the model's checkpoint.
    fn options(&self, logit_scale: f64) -> NegativeOptions {
        NegativeOptions {
            per_class: self.negatives,
            loss: self.loss,
            logit_scale,
            epochs: self.epochs,
            rates: self.rates,
            batch_size: self.batch_size,
            fresh_views: self.views == 0,
            seed: self.seed,
        }
    }

    /// Trains the negative contexts beside those of `positive`, from the last checkpoint if there is one, and writes the log.
    ///
    /// # Errors
    /// An interruption (after writing a checkpoint), a positive prompt set without a context, a loss that is not finite, a store
    /// that cannot be written.
    pub fn make(
        &self,
        work: &Work<'_>,
        trainer: &PromptTrainer,
        data: &PromptData,
        positive: PromptSet,
    ) -> Result<PromptSet> {
        let state = positive.state.as_ref().ok_or_else(|| {
            let problem = format!("{}: its positive prompt set has no context", work.name);
            PipelineError::Inconsistent(problem)
        })?;
        let options = self.options(work.model.logit_scale());
        let task = NegativeTask {
            names: work.classes,
            prompt: &self.prompt,
            positive_context: &state.context,
            positive_text: &positive.text,
            data,
            train: &options,
        };
        let trained = train_resumably(work, self.epochs, |resume, after| {
            trainer.train_negatives(&task, resume, after)
        })?;
        Ok(PromptSet {
            fingerprint: work.unit.fingerprint.clone(),
            negatives: Some(NegativePrompts {
                per_class: self.negatives,
                text: trained.text,
                context: trained.state.context,
            }),
            ..positive
        })
    }
}

#[cfg(test)]
mod tests {
    use clipood_core::Method;

    use super::*;

    #[test]
    fn the_fingerprint_has_every_number_of_the_section() {
        let recipe = |more: &str| {
            let text = format!(
                "name = \"r\"\nmodel = \"demo\"\nmethods = [\"negprompt\"]\nshots = [1]\nseeds = [1]\n\
                 detectors = [\"mcm\"]\n[data]\nid = \"a\"\nood = [\"b\"]\n{more}"
            );
            Recipe::parse(&text, "r.toml").unwrap()
        };
        let key = PromptKey {
            method: Method::Negprompt,
            shots: Some(1),
            seed: Some(1),
        };
        let json = |more: &str| {
            let spec = NegativeTraining::of(&recipe(more), &key).unwrap();
            serde_json::to_string(&spec).unwrap()
        };
        let default = json("");
        for line in [
            "negatives = 3",
            "distance_weight = 0.2",
            "diversity_weight = 0.2",
            "epochs = 2",
            "lr = 0.2",
            "lr_fall = 9",
            "batch_size = 9",
        ] {
            assert_ne!(json(&format!("[negprompt]\n{line}\n")), default, "{line}");
        }
        assert_ne!(json("[train]\nviews = 3\n"), default);
        assert_eq!(json("[negprompt]\n"), default);
        // What decides the positive prompts is in the fingerprint of their own set.
        assert_eq!(json("[train]\nlr = 0.5\n"), default);
    }
}
