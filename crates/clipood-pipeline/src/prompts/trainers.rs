//! Trainers of prompt sets: one file each, with a specification that enters the fingerprint and controls the training.
//!
//! # How to add a trainer
//! Add a variant of [`Method`] in `clipood-core/src/method.rs` (the compiler then reports every match that needs an
//! arm), a file here with a serialisable specification and its `make`, a variant of [`Trainer`] and its arms in this
//! file. A trainer that differs from CoOp by its loss alone needs no file here, only a variant of `PromptLoss` in
//! `clipood-clip/src/prompt/loss.rs` and its arm in [`context`].
//!
//! Everything that can change the result must be a field of the specification: it enters the fingerprint because it is
//! serialised, and the training because `make` reads nothing else from the recipe.

pub mod context;
pub mod hand_written;
pub mod linear_probe;
pub mod negative;
pub mod resumable;
pub mod work;

use std::collections::BTreeMap;

use clipood_core::{FingerprintBuilder, Method};
use clipood_store::Unit;

use self::context::ContextTraining;
use self::hand_written::HandWritten;
use self::linear_probe::ProbeFit;
use self::negative::NegativeTraining;
use super::key::PromptKey;
use crate::error::Result;
use crate::experiment::{Experiment, RESULTS_VERSION};
use crate::places::Features;
use crate::plan::Plan;

/// A trainer of a prompt set, with everything that determines its result besides model, classes and images.
#[derive(Debug, Clone, PartialEq)]
pub enum Trainer {
    /// Templates, filled with the class names.
    HandWritten(HandWritten),
    /// Context vectors, trained.
    Context(ContextTraining),
    /// Negative contexts, trained beside those of another prompt set.
    Negative(NegativeTraining),
    /// A linear classifier of image features, instead of texts.
    LinearProbe(ProbeFit),
}

impl Trainer {
    /// The trainer of a prompt set.
    ///
    /// # Errors
    /// A recipe whose patch term does not fit the number of classes.
    fn of(experiment: &Experiment, plan: &Plan, key: &PromptKey) -> Result<Self> {
        let recipe = &experiment.recipe;
        match key.method {
            Method::ZeroShot => Ok(Self::HandWritten(HandWritten::of(recipe))),
            Method::LinearProbe => Ok(Self::LinearProbe(ProbeFit::of(recipe))),
            Method::Negprompt => Ok(Self::Negative(NegativeTraining::of(recipe, key)?)),
            Method::Coop
            | Method::Locoop
            | Method::Sct
            | Method::Dpcoop
            | Method::Dplocoop
            | Method::Dpsct => {
                let training = ContextTraining::of(recipe, plan.classes.len(), key)?;
                Ok(Self::Context(training))
            }
        }
    }

    fn fingerprint(&self, builder: FingerprintBuilder) -> FingerprintBuilder {
        match self {
            Self::HandWritten(spec) => builder.fields(spec),
            Self::Context(spec) => builder.fields(spec),
            Self::Negative(spec) => builder.fields(spec),
            Self::LinearProbe(spec) => builder.fields(spec),
        }
    }

    /// Whether a context is trained, which needs the text tower with gradients.
    pub fn trains_context(&self) -> bool {
        match self {
            Self::Context(_) | Self::Negative(_) => true,
            Self::HandWritten(_) | Self::LinearProbe(_) => false,
        }
    }

    /// Number of epochs for the progress display; 1 for trainers without epochs.
    pub fn epochs(&self) -> usize {
        match self {
            Self::Context(training) => training.epochs.max(1),
            Self::Negative(training) => training.epochs.max(1),
            Self::HandWritten(_) | Self::LinearProbe(_) => 1,
        }
    }
}

/// A prompt set that a run needs, before it is computed.
#[derive(Debug, Clone)]
pub struct PlannedPrompt {
    /// Which one it is.
    pub key: PromptKey,
    /// Its trainer.
    pub trainer: Trainer,
    /// The prompt set that it starts from and keeps, which is made before it where the store does not have it.
    pub base: Option<Box<PlannedPrompt>>,
    /// Its unit. A prompt set is identified by its inputs, so that other runs, recipes and detectors find it again. Two
    /// keys may share one unit, as a dual-pattern method and the method that it builds on do.
    pub unit: Unit,
    /// What the unit's fingerprint is made from.
    pub inputs: BTreeMap<String, String>,
    /// Fingerprints of the sets of texts that detectors of single images read under this prompt set, by name; without the
    /// plain set, which fingerprints name by its inputs.
    pub text_sets: BTreeMap<String, String>,
    /// Fingerprints of the sets that detectors of streams read under it.
    pub stream_sets: BTreeMap<String, String>,
    /// Fingerprints of the other prompt sets whose classifiers detectors join with this one, by name.
    pub members: BTreeMap<String, String>,
}

impl PlannedPrompt {
    /// Plans the prompt set called `key`.
    ///
    /// # Errors
    /// A recipe whose patch term does not fit the number of classes.
    pub fn new(
        experiment: &Experiment,
        features: &Features,
        plan: &Plan,
        key: PromptKey,
    ) -> Result<Self> {
        let trainer = Trainer::of(experiment, plan, &key)?;
        let base = match key.method.builds_on() {
            None => None,
            Some(method) => {
                let key = PromptKey {
                    method,
                    ..key.clone()
                };
                Some(Box::new(Self::new(experiment, features, plan, key)?))
            }
        };
        let mut builder = FingerprintBuilder::new("prompt")
            .field("results", &RESULTS_VERSION)
            .field("model", &experiment.model.hash)
            .field("backend", &experiment.numerics.backend)
            .field("method", &key.method.trainer())
            .field("classes", &plan.classes);
        builder = experiment.numerics.with_kernels(builder);
        if let (Some(shots), Some(seed)) = (key.shots, key.seed) {
            builder = builder
                .field("features", &features.fingerprint)
                .field("images", &shot_images(plan, shots, seed)?);
        }
        if let Some(base) = &base {
            builder = builder.field("base", &base.unit.fingerprint);
        }
        let builder = trainer.fingerprint(builder);
        let inputs = builder.inputs().clone();
        Ok(Self {
            unit: prompt_unit(builder.finish()?.to_string()),
            key,
            trainer,
            base,
            inputs,
            text_sets: BTreeMap::new(),
            stream_sets: BTreeMap::new(),
            members: BTreeMap::new(),
        })
    }
}

/// Class, key and content hash of the first `shots` images of every class of a split.
///
/// # Errors
/// A seed that the plan has no split for.
pub fn shot_images(plan: &Plan, shots: usize, seed: u64) -> Result<Vec<(&str, &str, &str)>> {
    let content: BTreeMap<&str, &str> = plan
        .id()
        .train
        .iter()
        .map(|image| (image.key.as_str(), image.content_hash.as_str()))
        .collect();
    let split = plan.split(seed)?;
    let keys = split.classes.iter().flat_map(|class| {
        let first = class.keys.iter().take(shots);
        first.map(move |key| (class.name.as_str(), key.as_str()))
    });
    Ok(keys
        .map(|(class, key)| (class, key, content.get(key).copied().unwrap_or_default()))
        .collect())
}

/// The unit of the prompt set of a fingerprint.
pub fn prompt_unit(fingerprint: String) -> Unit {
    Unit {
        key: fingerprint.chars().take(24).collect(),
        fingerprint,
    }
}
