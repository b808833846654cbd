//! The sections of a recipe that say how prompts and probes are trained.

use serde::{Deserialize, Serialize};

use super::templates::TemplateSet;
use crate::document::Problem;
use crate::error::CoreError;
use crate::method::Method;

/// `[prompt]`: the text side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptSection {
    /// Templates of the zero-shot method: a named set, or a list of texts with one `{}` each.
    pub templates: TemplateSet,
    /// Number of context vectors of a trained prompt, 1 to 73: 77 tokens minus start, end, full stop and one for the name.
    pub n_ctx: usize,
    /// Words whose token embeddings initialise the context; the number of their tokens then replaces `n_ctx`. Absent: random
    /// initialisation from a normal distribution with standard deviation 0.02.
    pub ctx_init: Option<String>,
    /// Position of the class name.
    pub class_token: ClassToken,
    /// One context per class (CoOp's CSC) instead of one for all classes.
    pub class_specific: bool,
}

impl Default for PromptSection {
    fn default() -> Self {
        PromptSection {
            templates: TemplateSet::Simple,
            n_ctx: 16,
            ctx_init: None,
            class_token: ClassToken::End,
            class_specific: false,
        }
    }
}

/// Position of the class name among the context vectors (CoOp, Zhou et al. 2022, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassToken {
    /// After all of them.
    End,
    /// After the first half of them.
    Middle,
    /// Before all of them.
    Front,
}

/// `[train]`: SGD over the shots, with the defaults of CoOp.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSection {
    /// Passes over the shots, 1 to 1000000; absent: the default of each method.
    pub epochs: Option<usize>,
    /// Learning rate at the start of the cosine schedule, above 0.
    pub lr: f64,
    /// Momentum (not Nesterov), at least 0 and below 1.
    pub momentum: f64,
    /// Coefficient of the L2 penalty added to the gradient, at least 0.
    pub weight_decay: f64,
    /// Learning rate of the first epoch, at least 0.
    pub warmup_lr: f64,
    /// Images per step, 1 to 1000000.
    pub batch_size: usize,
    /// Random crops per training image whose features are computed in advance, 0 to 10000; every step draws one of them. 0: one
    /// per epoch, each used once, like the reference implementations; the features of all of them are kept.
    pub views: usize,
    /// Smallest and largest fraction of the image area that a crop covers, above 0 and at most 1 (Dassl's
    /// `INPUT.RRCROP_SCALE`).
    pub crop_scale: [f64; 2],
    /// Train on all images of a class that has fewer than the number of shots, instead of failing.
    pub allow_fewer: bool,
}

impl TrainSection {
    /// The number of epochs of `method`: that of the recipe, or else the default of the method; 0 if it trains no prompt.
    pub fn epochs_for(&self, method: Method) -> usize {
        match self.epochs {
            Some(epochs) if method.trains_prompt() => epochs,
            _ => method.default_epochs(),
        }
    }
}

impl Default for TrainSection {
    fn default() -> Self {
        TrainSection {
            epochs: None,
            lr: 0.002,
            momentum: 0.9,
            weight_decay: 5e-4,
            warmup_lr: 1e-5,
            batch_size: 32,
            views: 8,
            crop_scale: [0.08, 1.0],
            allow_fewer: false,
        }
    }
}

/// `[locoop]`: the patch term of LoCoOp and SCT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocoopSection {
    /// Weight of the patch term in the loss, at least 0.
    pub lambda: f64,
    /// A patch counts as background if the label of the image is not among its `top_k` most likely classes. Absent: a fifth of
    /// the number of classes, which gives the 200 of the paper for 1,000 classes.
    pub top_k: Option<usize>,
}

impl LocoopSection {
    /// `top_k` for this number of classes: that of the recipe, or else a fifth of the classes (rounded down, at least 1).
    ///
    /// # Errors
    /// [`CoreError::Value`] if it is not below the number of classes: then no patch would ever be selected.
    pub fn top_k_for(&self, classes: usize) -> Result<usize, CoreError> {
        let top_k = self.top_k.unwrap_or((classes / 5).max(1));
        if top_k >= classes {
            let text = format!("found {top_k}, allowed: below the number of classes, {classes}");
            return Err(Problem::new("locoop.top_k", text).outside_a_file("recipe"));
        }
        Ok(top_k)
    }
}

impl Default for LocoopSection {
    fn default() -> Self {
        LocoopSection {
            lambda: 0.25,
            top_k: None,
        }
    }
}

/// `[linear_probe]`: logistic regression on the image features of the shots, as in the CLIP paper: features are neither
/// normalised nor standardised, so that `c` depends on their scale.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinearProbeSection {
    /// Inverse of the strength of the L2 penalty, above 0, as `C` in scikit-learn. The default, 0.316, is that of the
    /// example in OpenAI's repository; scikit-learn's is 1.
    pub c: f64,
    /// Largest number of L-BFGS steps, 1 to 1000000; scikit-learn stops after 100 by default.
    pub max_iter: usize,
}

impl Default for LinearProbeSection {
    fn default() -> Self {
        LinearProbeSection {
            c: 0.316,
            max_iter: 1000,
        }
    }
}

/// `[negprompt]`: the negative prompts of method `negprompt`, with the defaults of its authors' scripts. Its positive prompts are
/// those of `coop`, from `[prompt]` and `[train]`; the negative ones have the same shape and see the same crops.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NegpromptSection {
    /// Negative prompts per class, 1 to 1000.
    pub negatives: usize,
    /// Weight of the distance between the negatives of a class and its positive, at least 0.
    pub distance_weight: f64,
    /// Weight of the diversity of the negatives of a class, at least 0.
    pub diversity_weight: f64,
    /// Passes over the shots, 1 to 1000000.
    pub epochs: usize,
    /// Largest learning rate, above 0. SGD without momentum and weight decay.
    pub lr: f64,
    /// Steps (and ends of epochs) in which the learning rate falls from `lr` to 0 along a cosine, 1 to 1000000; then it rises
    /// again in as many, and so on.
    pub lr_fall: usize,
    /// Images per step, 1 to 1000000.
    pub batch_size: usize,
}

impl Default for NegpromptSection {
    fn default() -> Self {
        NegpromptSection {
            negatives: 2,
            distance_weight: 0.1,
            diversity_weight: 0.05,
            epochs: 15,
            lr: 0.1,
            lr_fall: 50,
            batch_size: 64,
        }
    }
}
