//! Texts of no class: negative labels mined from word lists (NegLabel), and prompts for the unknown.
//!
//! Jiang et al., ICLR 2024: the words of each list (nouns, adjectives) are put into its template, and the words that
//! are farthest from the classes are kept. As in the authors' code, all lists are compared with one and the same set of
//! class texts, those of the zero-shot prompt (`prompt.templates`), whatever the template of the list. CSP (Chen et al.,
//! NeurIPS 2024) adds a list of adjectives in templates of superclasses ("a photo of a {} creature"), and leaves out words
//! that are too near to a class: `exclude_above`.

use std::collections::BTreeMap;

use clipood_core::{FingerprintBuilder, NegativeLabelsSection};
use clipood_ood::{DetectorSpec, Negatives};
use clipood_store::Unit;

use crate::class_templates::{CLASS_TEMPLATES, own_class_templates, with_class_templates};
use crate::error::{PipelineError, Result};
use crate::experiment::{Experiment, RESULTS_VERSION};
use crate::places::Places;
use crate::plan::Plan;
use crate::prompts::file::{PromptSet, read_prompt};

/// Stage in the ledger of prompts.
pub const NEGATIVE: &str = "negative";

/// The texts of no class that a run needs, before they are computed.
#[derive(Debug, Clone)]
pub struct PlannedNegatives {
    /// What they are made from.
    pub section: NegativeLabelsSection,
    /// Their unit.
    pub unit: Unit,
    /// What the unit's fingerprint is made from.
    pub inputs: BTreeMap<String, String>,
}

impl PlannedNegatives {
    /// The texts that the detectors of a recipe need; `None` if none does.
    ///
    /// # Errors
    /// As [`negative_section`].
    pub fn of(experiment: &Experiment, plan: &Plan) -> Result<Option<Self>> {
        let Some(section) = negative_section(experiment)? else {
            return Ok(None);
        };
        let mut builder = FingerprintBuilder::new(NEGATIVE)
            .field("results", &RESULTS_VERSION)
            .field("model", &experiment.model.hash)
            .field("backend", &experiment.numerics.backend)
            .field("section", &section)
            .field("words", &experiment.manifests.words)
            .field("classes", &plan.classes);
        builder = experiment.numerics.with_kernels(builder);
        if let Some(templates) = own_class_templates(&experiment.recipe) {
            builder = builder.field(CLASS_TEMPLATES, &templates);
        }
        let inputs = builder.inputs().clone();
        let fingerprint = builder.finish()?.to_string();
        Ok(Some(Self {
            section,
            unit: Unit {
                key: fingerprint[..24].to_string(),
                fingerprint,
            },
            inputs,
        }))
    }
}

/// The section `[negative_labels]` of a recipe whose detectors need texts of no class, or its defaults.
///
/// # Errors
/// A detector that uses mined labels, without a word list to mine them from.
pub fn negative_section(experiment: &Experiment) -> Result<Option<NegativeLabelsSection>> {
    let recipe = &experiment.recipe;
    let mut wanted = false;
    for column in &experiment.columns {
        for method in &recipe.methods {
            let spec = column.spec(*method)?;
            match spec.and_then(|spec| spec.needs().negatives) {
                Some(Negatives::Mined) if experiment.manifests.words.is_empty() => {
                    return Err(PipelineError::Usage(format!(
                        "recipe `{}`: detector `{}` needs words: [[negative_labels.lists]] with words = \"NAME\"",
                        recipe.name, column.name
                    )));
                }
                Some(Negatives::Mined | Negatives::Unknown) => wanted = true,
                None => {}
            }
        }
    }
    let own = || recipe.negative_labels.clone().unwrap_or_default();
    Ok(wanted.then(own))
}

/// Adds the inputs of the texts of no class to the fingerprint of a unit that uses them; adds nothing if no detector
/// does. The classes that the words are compared with are covered by the prompt set, which is in every such
/// fingerprint.
///
/// # Errors
/// As [`negative_section`].
pub fn with_negatives(
    experiment: &Experiment,
    builder: FingerprintBuilder,
) -> Result<FingerprintBuilder> {
    Ok(match negative_section(experiment)? {
        None => builder,
        Some(section) => {
            let builder = builder
                .field("negative_labels", &section)
                .field("words", &experiment.manifests.words);
            with_class_templates(&experiment.recipe, &experiment.columns, builder)?
        }
    })
}

/// Normalised features of texts of no class, each `[texts, D]`.
#[derive(Debug, Clone, Default)]
pub struct NegativeTexts {
    /// Mined labels, the farthest first.
    pub labels: Vec<f32>,
    /// Prompts for the unknown.
    pub unknown: Vec<f32>,
}

impl NegativeTexts {
    /// Reads the texts that stage `negative` has made; empty if none are planned.
    ///
    /// # Errors
    /// A file that is missing or damaged.
    pub fn read(places: &Places, planned: Option<&PlannedNegatives>, dim: usize) -> Result<Self> {
        let Some(planned) = planned else {
            return Ok(Self::default());
        };
        let PromptSet { text, .. } = read_prompt(&places.prompts, NEGATIVE, &planned.unit)?;
        let mut labels = text;
        let unknown = planned.section.unknown.len() * dim;
        let unknown = labels.split_off(labels.len().saturating_sub(unknown));
        Ok(Self { labels, unknown })
    }

    /// The texts that a detector is fitted on, if any.
    pub fn of(&self, spec: &DetectorSpec) -> Option<&[f32]> {
        match spec.needs().negatives? {
            Negatives::Mined => Some(&self.labels),
            Negatives::Unknown => Some(&self.unknown),
        }
    }
}
