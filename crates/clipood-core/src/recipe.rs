//! Recipes: what to compute. They contain no paths to data and nothing about machines.

mod check;
mod sections;
mod templates;
mod training;

use serde::{Deserialize, Serialize};

use crate::document::parse;
use crate::error::CoreError;
use crate::method::Method;

pub use sections::{
    DataSection, DualPatternSection, EngineSection, MetricsSection, NegativeLabelsSection,
    NegativeRule, Overlap, PublishedSection, Resize, SelectSection, StreamsSection,
    SubsampleClasses, WordListSection,
};
pub(crate) use templates::NAMES as TEMPLATE_SETS;
pub use templates::TemplateSet;
pub use training::{
    ClassToken, LinearProbeSection, LocoopSection, NegpromptSection, PromptSection, TrainSection,
};

/// A recipe, `pipelines/*.toml`, with every default filled in.
///
/// Its serialised form is stored in `run.json` and enters fingerprints, so a new key needs a default that is not serialised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the recipe, the start of the run directory's name: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The model: `demo` for the embedded one, a folder, a weight file, or a hub name.
    pub model: String,
    /// The methods to run, each once.
    pub methods: Vec<Method>,
    /// Training images per class, each number once; may be empty if no method trains.
    #[serde(default)]
    pub shots: Vec<usize>,
    /// Seeds of the few-shot split and of the training, each once; may be empty if no method trains.
    #[serde(default)]
    pub seeds: Vec<u64>,
    /// Detectors, each as `[alias=]kind[:key=value]...`; parsed by `clipood-ood`.
    pub detectors: Vec<String>,
    /// Which datasets.
    pub data: DataSection,
    /// The text side.
    #[serde(default)]
    pub prompt: PromptSection,
    /// Prompt training.
    #[serde(default)]
    pub train: TrainSection,
    /// LoCoOp's and SCT's patch term.
    #[serde(default)]
    pub locoop: LocoopSection,
    /// The linear probe; absent: its defaults.
    // Not serialised if absent, so that the fingerprints of older recipes do not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linear_probe: Option<LinearProbeSection>,
    /// The negative prompts of NegPrompt; absent: its defaults.
    // Not serialised if absent, so that the fingerprints of older recipes do not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negprompt: Option<NegpromptSection>,
    /// The fused score of the dual-pattern methods.
    #[serde(default)]
    pub dual_pattern: DualPatternSection,
    /// Detector parameters that are selected from a list of values.
    #[serde(default)]
    pub select: Vec<SelectSection>,
    /// Negative labels: texts that describe none of the classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_labels: Option<NegativeLabelsSection>,
    /// The streams of detectors that learn from test images; absent: the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<StreamsSection>,
    /// The size of units of work, and the tolerated fraction of unreadable images.
    #[serde(default)]
    pub engine: EngineSection,
    /// Metrics and their confidence intervals.
    #[serde(default)]
    pub metrics: MetricsSection,
    /// Figures from papers, which the report shows beside the measured ones. They determine no result.
    // So they are in no fingerprint and not serialised.
    #[serde(default, skip_serializing)]
    pub published: Vec<PublishedSection>,
}

/// Values from the command line that replace those of a recipe.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// Replaces [`Recipe::model`].
    pub model: Option<String>,
    /// Replaces [`Recipe::methods`].
    pub methods: Option<Vec<Method>>,
    /// Replaces [`Recipe::shots`].
    pub shots: Option<Vec<usize>>,
    /// Replaces [`Recipe::seeds`].
    pub seeds: Option<Vec<u64>>,
    /// Replaces [`Recipe::detectors`].
    pub detectors: Option<Vec<String>>,
    /// Sets [`TrainSection::allow_fewer`] if true.
    pub allow_fewer: bool,
}

impl Recipe {
    /// Reads and checks a recipe; `origin` (the path of the file) names it in errors.
    ///
    /// # Errors
    /// The first mistake, with its line: TOML that does not parse, an unknown or a missing key, a value of the wrong
    /// type, or one that [`Recipe::validate`] rejects.
    pub fn parse(toml: &str, origin: &str) -> Result<Recipe, CoreError> {
        parse(toml, origin, Recipe::check)
    }

    /// Number of crops per training image whose features are needed: [`TrainSection::views`] or, if that is 0, the largest
    /// number of epochs of any method; 0 if no method trains a prompt.
    pub fn training_views(&self) -> usize {
        if !self.methods.iter().any(|method| method.trains_prompt()) {
            return 0;
        }
        match self.train.views {
            0 => {
                let epochs = self
                    .methods
                    .iter()
                    .map(|method| self.train.epochs_for(*method));
                epochs.max().unwrap_or(0)
            }
            views => views,
        }
    }

    /// Replaces the values that are present in `overrides`. Call [`Recipe::validate`] afterwards.
    pub fn apply_overrides(&mut self, overrides: &Overrides) {
        fn replace<T: Clone>(target: &mut T, value: &Option<T>) {
            if let Some(value) = value {
                target.clone_from(value);
            }
        }
        replace(&mut self.model, &overrides.model);
        replace(&mut self.methods, &overrides.methods);
        replace(&mut self.shots, &overrides.shots);
        replace(&mut self.seeds, &overrides.seeds);
        replace(&mut self.detectors, &overrides.detectors);
        self.train.allow_fewer |= overrides.allow_fewer;
    }

    /// Checks ranges, duplicates and dependencies between values, for a recipe that was read from JSON or changed in memory.
    ///
    /// # Errors
    /// [`CoreError::Value`] for the first mistake, naming the key, what was found and what is allowed.
    pub fn validate(&self) -> Result<(), CoreError> {
        self.check()
            .map_err(|problem| problem.outside_a_file(&format!("recipe `{}`", self.name)))
    }
}
