//! The sections of a recipe and their defaults.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TemplateSet;
use crate::document::Problem;
use crate::{CoreError, Method};

/// `[data]`: which datasets, by the names of their manifests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// The in-distribution dataset.
    pub id: String,
    /// The out-of-distribution datasets, at least one.
    pub ood: Vec<String>,
    /// Which of the in-distribution classes take part.
    #[serde(default)]
    pub subsample_classes: SubsampleClasses,
    /// Out-of-distribution datasets that hyperparameters may be chosen on; they share no image with `ood`.
    #[serde(default)]
    pub validation_ood: Vec<String>,
    /// In-distribution images a class that hyperparameters may be chosen on, set apart from the training images before
    /// any shot is drawn; only used with `validation_ood`.
    #[serde(default = "default_validation_per_class")]
    pub validation_per_class: usize,
    /// Groups of OOD datasets, such as `near` and `far`, that get an average of their own.
    #[serde(default)]
    pub groups: BTreeMap<String, Vec<String>>,
}

fn default_validation_per_class() -> usize {
    8
}

/// Which in-distribution classes take part (CoOp's base-to-new protocol).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubsampleClasses {
    /// Every class.
    #[default]
    All,
    /// The first half of the classes in sorted order, rounded up.
    Base,
    /// The classes that are not base.
    New,
}

/// `[prompt]`: the text side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptSection {
    /// Hand-written templates, of the zero-shot method: a named set, or a list of texts with one `{}` each.
    pub templates: TemplateSet,
    /// Context vectors of a trained prompt, 1 to 73: 77 tokens less start, end, full stop and one for the name.
    pub n_ctx: usize,
    /// Words whose token embeddings start the context; the number of their tokens then replaces `n_ctx`. Absent: random,
    /// N(0, 0.02).
    pub ctx_init: Option<String>,
    /// Where the class name stands.
    pub class_token: ClassToken,
    /// One context for each class (CoOp's CSC) instead of one for all.
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

/// Where the class name stands among the context vectors (CoOp, section 3.2).
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

/// `[train]`: SGD over the shots, as CoOp has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSection {
    /// Passes over the shots; absent: the default of each method.
    pub epochs: Option<usize>,
    /// Learning rate at the start of the cosine schedule, above 0.
    pub lr: f64,
    /// Momentum without Nesterov's correction, from 0 to below 1.
    pub momentum: f64,
    /// L2 term added to the gradient, at least 0.
    pub weight_decay: f64,
    /// Learning rate of the first epoch, at least 0.
    pub warmup_lr: f64,
    /// Images in a step, at least 1.
    pub batch_size: usize,
    /// Pre-drawn random crops of each training image, of which every step draws one. 0: as many as there are epochs, so
    /// that every epoch sees a crop that no other has seen, as the reference codes do; features are kept for all of them.
    pub views: usize,
    /// Smallest and largest share of an image's area that a crop shows, above 0 to 1 (Dassl's `INPUT.RRCROP_SCALE`).
    pub crop_scale: [f64; 2],
    /// Train a class on fewer images than shots if it has no more, instead of refusing.
    pub allow_fewer: bool,
}

impl TrainSection {
    /// The epochs that `method` trains: its own default unless the recipe says otherwise; 0 if it trains no prompt.
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
    /// Weight of the term, at least 0.
    pub lambda: f64,
    /// A patch belongs to the term if the image's label is not among its so many likeliest classes. Absent: a fifth of
    /// the classes, which is the paper's 200 for 1,000.
    pub top_k: Option<usize>,
}

impl LocoopSection {
    /// `top_k` for so many classes: the recipe's, or a fifth of them (rounded down, at least 1).
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

/// `[linear_probe]`: logistic regression on the shots' image features, as the CLIP paper evaluates them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinearProbeSection {
    /// Inverse of the strength of the L2 term, above 0, as scikit-learn's `C`. The default is that of the example in
    /// OpenAI's repository.
    pub c: f64,
    /// Largest number of L-BFGS steps, at least 1.
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

/// `[dual_pattern]`: the fused score of `dpcoop`, `dplocoop` and `dpsct`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DualPatternSection {
    /// Weight of the scaled divergence in the `fixed` rows, -1 to 0. The default, -0.5, is the middle of the range that
    /// the dual-pattern repository sweeps: chosen before any figure was seen.
    pub beta: f64,
}

impl Default for DualPatternSection {
    fn default() -> Self {
        DualPatternSection { beta: -0.5 }
    }
}

/// `[[select]]`: a detector's parameter that is chosen among values, on validation data and, beside it and marked, on the
/// test sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectSection {
    /// The detector, as it stands in `detectors`: its rows there are the `fixed` ones.
    pub detector: String,
    /// Name of the parameter, such as `t` of `mcm`.
    pub parameter: String,
    /// Values to choose among, each once.
    pub values: Vec<f64>,
}

/// `[negative_labels]`: texts of no class, for the detectors `neglabel` and `unknown_prompt`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NegativeLabelsSection {
    /// Word lists, each mined apart, as NegLabel does with nouns and adjectives.
    pub lists: Vec<WordListSection>,
    /// A word is as near to the classes as this quantile of its cosines to them.
    pub quantile: f64,
    /// Share of each list, the farthest words, that is kept.
    pub keep: f64,
    /// Words with a larger cosine to a class are left out beforehand (CSP has 0.95). Absent: none are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_above: Option<f64>,
    /// Prompts for the unknown, of which `unknown_prompt` takes the first `count`.
    pub unknown: Vec<String>,
}

impl Default for NegativeLabelsSection {
    fn default() -> Self {
        NegativeLabelsSection {
            lists: Vec::new(),
            quantile: 0.95,
            keep: 0.15,
            exclude_above: None,
            unknown: vec!["a photo of an unknown object".to_string()],
        }
    }
}

/// A list of words and the text that each is put into.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WordListSection {
    /// Name of the list: `NAME.txt` in the folder `words` beside that of the dataset manifests, or a file of WordNet there
    /// by its own name, such as `data.noun`.
    pub words: String,
    /// `{}` stands for the word; the class names are compared in the same template.
    #[serde(default = "default_word_template")]
    pub template: String,
}

fn default_word_template() -> String {
    "a photo of a {}".to_string()
}

/// `[engine]`: how the work is cut and what it tolerates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSection {
    /// Size that the parts of a shard aim at, in bytes.
    pub shard_bytes: u64,
    /// Share of a dataset's images, 0 to 1, that may be unreadable before the run fails.
    pub max_quarantine_fraction: f64,
    /// A training leaves a checkpoint after so many steps, at least 1, and at the end of an epoch if the last one is a
    /// second old.
    pub checkpoint_steps: usize,
}

impl Default for EngineSection {
    fn default() -> Self {
        EngineSection {
            shard_bytes: 64 << 20,
            max_quarantine_fraction: 0.01,
            checkpoint_steps: 100,
        }
    }
}

/// `[metrics]`: metrics and their intervals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSection {
    /// Resamples of the 95% bootstrap intervals; 0 computes none.
    pub bootstrap: usize,
    /// Seed of the resamples.
    pub bootstrap_seed: u64,
}

impl Default for MetricsSection {
    fn default() -> Self {
        MetricsSection {
            bootstrap: 1000,
            bootstrap_seed: 0,
        }
    }
}
