//! Recipes: what to compute. No paths to data, no cluster names.

mod check;
mod sections;
mod templates;

use serde::{Deserialize, Serialize};

use crate::document::parse;
use crate::{CoreError, Method, Place, canonical_json};

pub use sections::{
    ClassToken, DataSection, DualPatternSection, EngineSection, LinearProbeSection, LocoopSection,
    MetricsSection, NegativeLabelsSection, PromptSection, SelectSection, SubsampleClasses,
    TrainSection, WordListSection,
};
pub use templates::TemplateSet;

/// A recipe, `pipelines/*.toml`, with every default filled in.
///
/// As JSON ([`Recipe::to_json`]) it is what `run.json` stores and what enters fingerprints.
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
    /// Detectors, each as `[alias=]kind[:key=value]...`; the detectors' crate reads them.
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
    /// The linear probe; absent: its defaults. Recipes without the section keep the fingerprints they always had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linear_probe: Option<LinearProbeSection>,
    /// The fused score of the dual-pattern methods.
    #[serde(default)]
    pub dual_pattern: DualPatternSection,
    /// Parameters of detectors that are chosen among values.
    #[serde(default)]
    pub select: Vec<SelectSection>,
    /// Texts of no class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_labels: Option<NegativeLabelsSection>,
    /// How the work is cut and what it tolerates.
    #[serde(default)]
    pub engine: EngineSection,
    /// Metrics and their intervals.
    #[serde(default)]
    pub metrics: MetricsSection,
}

/// Values that replace a recipe's, from the command line.
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
    /// Sets [`TrainSection::allow_fewer`]; false leaves it as it is.
    pub allow_fewer: bool,
}

impl Recipe {
    /// Reads and checks a recipe; `origin` (the file's path) names it in errors.
    ///
    /// # Errors
    /// The first mistake, with its line: TOML that does not parse, an unknown or a missing key, a value of the wrong
    /// type, or one that [`Recipe::validate`] refuses.
    pub fn parse(toml: &str, origin: &str) -> Result<Recipe, CoreError> {
        parse(toml, origin, Recipe::check)
    }

    /// Crops of each training image whose features are needed: [`TrainSection::views`], or for 0 the epochs of the method
    /// that has most; none if no method trains a prompt.
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

    /// Replaces what `overrides` names. Call [`Recipe::validate`] afterwards.
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

    /// Checks ranges, duplicates and what depends on each other, for a recipe that was built or overridden in memory.
    ///
    /// # Errors
    /// [`CoreError::Value`] for the first mistake, naming the key, what was found and what is allowed.
    pub fn validate(&self) -> Result<(), CoreError> {
        self.check()
            .map_err(|problem| problem.outside_a_file(&format!("recipe `{}`", self.name)))
    }

    /// The recipe as [`canonical_json`].
    ///
    /// # Errors
    /// None for a recipe that [`Recipe::validate`] accepts, whose numbers are all finite.
    pub fn to_json(&self) -> Result<String, CoreError> {
        canonical_json(self)
    }

    /// Reads and checks a recipe that [`Recipe::to_json`] wrote; `origin` names it in errors.
    ///
    /// # Errors
    /// As [`Recipe::parse`]; an unknown, missing or mistyped key is a [`CoreError::Syntax`] with the line.
    pub fn from_json(json: &str, origin: &str) -> Result<Recipe, CoreError> {
        let recipe: Recipe = serde_json::from_str(json).map_err(|error| CoreError::Syntax {
            place: Place {
                origin: origin.to_string(),
                line: Some(error.line()),
            },
            message: error.to_string(),
        })?;
        recipe
            .check()
            .map_err(|problem| problem.outside_a_file(origin))?;
        Ok(recipe)
    }
}
