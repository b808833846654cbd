//! Texts of no class: negative labels chosen from word lists, prompts for the unknown, imagined outliers; and noise images,
//! which show no class either.
//!
//! NegLabel (Jiang et al., ICLR 2024): the words of each list (nouns, adjectives) are put into its template, and the words
//! that are farthest from the classes are kept. As in the authors' code, all lists are compared with one and the same set of
//! class texts, those of the zero-shot prompt (`prompt.templates`), whatever the template of the list. CSP (Chen et al.,
//! NeurIPS 2024) adds a list of adjectives in templates of superclasses ("a photo of a {} creature"), and leaves out words
//! that are too near to a class: `exclude_above`. InterNeg and TINS compare the words with shots: [`TextSet::InterModal`].

use std::collections::BTreeMap;

use clipood_core::{FingerprintBuilder, NegativeLabelsSection, NegativeRule};
use clipood_ood::{DetectorSpec, Negatives};
use clipood_store::Unit;

use crate::class_templates::{CLASS_TEMPLATES, own_class_templates, with_class_templates};
use crate::columns::{ScoreColumn, reads_learned};
use crate::error::{PipelineError, Result};
use crate::experiment::{Experiment, RESULTS_VERSION};
use crate::places::{Features, Places};
use crate::plan::Plan;
use crate::prompts::file::{PromptSet, read_prompt};
use crate::prompts::key::{PromptKey, prompt_keys};
use crate::prompts::trainers::{PlannedPrompt, shot_images};

/// Stage in the ledger of prompts.
pub const NEGATIVE: &str = "negative";

/// Texts or images of no class that are made together: one unit each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TextSet {
    /// Labels by the rule `quantile`, then the prompts for the unknown.
    Plain,
    /// Labels by the rule `inter_modal`, chosen with these shots.
    InterModal {
        /// Images per class.
        shots: usize,
        /// Seed of their split.
        seed: u64,
    },
    /// Names of imagined outliers.
    Imagined,
    /// All words of the lists.
    Words,
    /// Noise images.
    Noise,
}

impl TextSet {
    /// Its name in fingerprints and for `explain`.
    pub fn name(&self) -> String {
        match self {
            TextSet::Plain => "texts".to_string(),
            TextSet::InterModal { shots, seed } => format!("inter-modal-{shots}shot-seed{seed}"),
            TextSet::Imagined => "imagined".to_string(),
            TextSet::Words => "words".to_string(),
            TextSet::Noise => "noise".to_string(),
        }
    }

    /// The sets that a detector reads under a prompt set.
    ///
    /// # Errors
    /// [`PipelineError::Usage`] if inter-modal labels are needed and the recipe has no shots.
    fn of(experiment: &Experiment, spec: &DetectorSpec, key: &PromptKey) -> Result<Vec<Self>> {
        let recipe = &experiment.recipe;
        let rule = recipe.negative_labels.as_ref().map(|section| section.rule);
        let inter_modal = || -> Result<Self> {
            let largest = recipe.shots.iter().copied().max();
            // Zero-shot prompts have no shots of their own.
            let shots = key.shots.or(largest);
            let seed = key.seed.or_else(|| recipe.seeds.first().copied());
            match (shots, seed) {
                (Some(shots), Some(seed)) => Ok(TextSet::InterModal { shots, seed }),
                _ => Err(PipelineError::Usage(format!(
                    "recipe `{}`: inter-modal negative labels are chosen with shots; give `shots` and `seeds`",
                    recipe.name
                ))),
            }
        };
        let needs = spec.needs();
        let mut sets = Vec::new();
        match needs.negatives {
            // These come with the prompt set.
            None | Some(Negatives::Learned) => {}
            Some(Negatives::Unknown) => sets.push(TextSet::Plain),
            Some(Negatives::Mined) => match rule.unwrap_or_default() {
                NegativeRule::Quantile => sets.push(TextSet::Plain),
                NegativeRule::InterModal => sets.push(inter_modal()?),
                NegativeRule::Learned => {}
            },
            Some(Negatives::InterModal) => sets.push(inter_modal()?),
            Some(Negatives::Imagined) => sets.push(TextSet::Imagined),
            Some(Negatives::Words) => sets.push(TextSet::Words),
        }
        if needs.noise {
            sets.push(TextSet::Noise);
        }
        Ok(sets)
    }
}

/// The sets that the detectors of `columns` read under the prompt set `key`, in order, each once.
///
/// # Errors
/// As [`negative_section`].
pub fn sets_of<'a>(
    experiment: &Experiment,
    columns: impl IntoIterator<Item = &'a ScoreColumn>,
    key: &PromptKey,
) -> Result<Vec<TextSet>> {
    let mut sets = Vec::new();
    for column in columns {
        if let Some(spec) = column.spec(key.method)? {
            sets.extend(TextSet::of(experiment, &spec, key)?);
        }
    }
    sets.sort();
    sets.dedup();
    Ok(sets)
}

/// Whether the detectors of a recipe need inter-modal labels, and so shots even if no method learns from shots.
///
/// # Errors
/// As [`negative_section`].
pub fn chooses_with_shots(experiment: &Experiment) -> Result<bool> {
    for key in prompt_keys(&experiment.recipe) {
        let sets = sets_of(experiment, experiment.all_columns(), &key)?;
        if sets
            .iter()
            .any(|set| matches!(set, TextSet::InterModal { .. }))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One set that a run needs, before it is computed.
#[derive(Debug, Clone)]
pub struct PlannedNegatives {
    /// Which one.
    pub set: TextSet,
    /// What it is made from.
    pub section: NegativeLabelsSection,
    /// Its unit.
    pub unit: Unit,
    /// What the unit's fingerprint is made from.
    pub inputs: BTreeMap<String, String>,
}

impl PlannedNegatives {
    /// The sets that the detectors of a recipe need, each once.
    ///
    /// # Errors
    /// As [`negative_section`].
    pub fn all(experiment: &Experiment, features: &Features, plan: &Plan) -> Result<Vec<Self>> {
        let Some(section) = negative_section(experiment)? else {
            return Ok(Vec::new());
        };
        let mut sets = Vec::new();
        for key in prompt_keys(&experiment.recipe) {
            sets.extend(sets_of(experiment, experiment.all_columns(), &key)?);
        }
        sets.sort();
        sets.dedup();
        let planned = sets
            .into_iter()
            .map(|set| Self::new(experiment, (features, plan), section.clone(), set));
        planned.collect()
    }

    fn new(
        experiment: &Experiment,
        (features, plan): (&Features, &Plan),
        section: NegativeLabelsSection,
        set: TextSet,
    ) -> Result<Self> {
        let words = &experiment.manifests.words;
        let mut builder = FingerprintBuilder::new(NEGATIVE)
            .field("results", &RESULTS_VERSION)
            .field("model", &experiment.model.hash)
            .field("backend", &experiment.numerics.backend);
        if set != TextSet::Plain {
            builder = builder.field("set", &set.name());
        }
        builder = match &set {
            TextSet::Plain => {
                builder = builder
                    .field("section", &section)
                    .field("words", words)
                    .field("classes", &plan.classes);
                builder = experiment.numerics.with_kernels(builder);
                match own_class_templates(&experiment.recipe) {
                    Some(templates) => builder.field(CLASS_TEMPLATES, &templates),
                    None => builder,
                }
            }
            TextSet::InterModal { shots, seed } => builder
                .field("lists", &section.lists)
                .field("exclude_above", &section.exclude_above)
                .field("count", &section.inter_modal_count())
                .field("class_template", &section.inter_modal_template())
                .field("words", words)
                .field("classes", &plan.classes)
                .field("features", &features.fingerprint)
                .field("images", &shot_images(plan, *shots, *seed)?),
            TextSet::Imagined => builder
                .field("lists", &section.imagined)
                .field("words", words)
                .field("classes", &plan.classes),
            TextSet::Words => builder
                .field("lists", &section.lists)
                .field("words", words)
                .field("classes", &plan.classes),
            TextSet::Noise => builder
                .field("features", &features.fingerprint)
                .field("noise", &crate::noise::VERSION),
        };
        if set != TextSet::Plain {
            builder = experiment.numerics.with_kernels(builder);
        }
        let inputs = builder.inputs().clone();
        let fingerprint = builder.finish()?.to_string();
        Ok(Self {
            set,
            section,
            unit: Unit {
                key: fingerprint[..24].to_string(),
                fingerprint,
            },
            inputs,
        })
    }
}

/// The section `[negative_labels]` of a recipe whose detectors need texts of no class, or its defaults.
///
/// # Errors
/// A detector that uses words, without a list of them.
pub fn negative_section(experiment: &Experiment) -> Result<Option<NegativeLabelsSection>> {
    let recipe = &experiment.recipe;
    let own = || recipe.negative_labels.clone().unwrap_or_default();
    let section = own();
    let mut wanted = false;
    for column in experiment.all_columns() {
        for method in &recipe.methods {
            let Some(spec) = column.spec(*method)? else {
                continue;
            };
            let lacks = |what: &str, key: &str| {
                PipelineError::Usage(format!(
                    "recipe `{}`: detector `{}` needs {what}: [[negative_labels.{key}]] with words = \"NAME\"",
                    recipe.name, column.name
                ))
            };
            match spec.needs().negatives {
                Some(_) if reads_learned(&spec, section.rule) => {}
                Some(Negatives::Mined | Negatives::InterModal | Negatives::Words)
                    if section.lists.is_empty() =>
                {
                    return Err(lacks("words", "lists"));
                }
                Some(Negatives::Imagined) if section.imagined.is_empty() => {
                    return Err(lacks("names of imagined outliers", "imagined"));
                }
                Some(_) => wanted = true,
                None => wanted |= spec.needs().noise,
            }
        }
    }
    Ok(wanted.then(own))
}

/// Adds the inputs of the texts of no class to the fingerprint of a unit of a prompt set that uses them; adds nothing if no
/// detector does. The classes that the words are compared with are covered by the prompt set, which is in every such
/// fingerprint.
///
/// # Errors
/// As [`negative_section`].
pub fn with_negatives(
    experiment: &Experiment,
    prompt: &PlannedPrompt,
    builder: FingerprintBuilder,
) -> Result<FingerprintBuilder> {
    let mut plain = false;
    for key in prompt_keys(&experiment.recipe) {
        let sets = sets_of(experiment, &experiment.columns, &key)?;
        plain |= sets.contains(&TextSet::Plain);
    }
    let mut builder = builder;
    if plain && let Some(section) = negative_section(experiment)? {
        builder = builder
            .field("negative_labels", &section)
            .field("words", &experiment.manifests.words);
        builder = with_class_templates(&experiment.recipe, &experiment.columns, builder)?;
    }
    if !prompt.text_sets.is_empty() {
        builder = builder.field("negative_sets", &prompt.text_sets);
    }
    if !prompt.members.is_empty() {
        builder = builder.field("members", &prompt.members);
    }
    Ok(builder)
}

/// Normalised features of what is of no class, by set, each `[rows, D]`.
#[derive(Debug, Clone, Default)]
pub struct NegativeTexts {
    sets: BTreeMap<TextSet, Vec<f32>>,
    /// Values of the prompts for the unknown at the end of [`TextSet::Plain`].
    unknown: usize,
}

impl NegativeTexts {
    /// Reads what stage `negative` has made; empty if nothing is planned.
    ///
    /// # Errors
    /// A file that is missing or damaged.
    pub fn read(places: &Places, planned: &[PlannedNegatives], dim: usize) -> Result<Self> {
        let mut all = Self::default();
        for planned in planned {
            let PromptSet { text, .. } = read_prompt(&places.prompts, NEGATIVE, &planned.unit)?;
            if planned.set == TextSet::Plain {
                all.unknown = (planned.section.unknown.len() * dim).min(text.len());
            }
            all.sets.insert(planned.set.clone(), text);
        }
        Ok(all)
    }

    /// The texts that a detector of a prompt set reads, if any: those that were made for it, or the prompt set's own.
    ///
    /// # Errors
    /// As [`negative_section`].
    pub fn of<'a>(
        &'a self,
        experiment: &Experiment,
        spec: &DetectorSpec,
        (key, prompts): (&PromptKey, &'a PromptSet),
    ) -> Result<Option<&'a [f32]>> {
        let Some(negatives) = spec.needs().negatives else {
            return Ok(None);
        };
        let section = experiment.recipe.negative_labels.as_ref();
        if reads_learned(spec, section.map(|s| s.rule).unwrap_or_default()) {
            return Ok(prompts.negatives.as_ref().map(|own| own.text.as_slice()));
        }
        let sets = TextSet::of(experiment, spec, key)?;
        let found = sets.iter().find(|set| **set != TextSet::Noise);
        let Some((set, texts)) = found.and_then(|set| self.sets.get_key_value(set)) else {
            return Ok(None);
        };
        if *set != TextSet::Plain {
            return Ok(Some(texts));
        }
        let (labels, unknown) = texts.split_at(texts.len() - self.unknown);
        Ok(Some(match negatives {
            Negatives::Unknown => unknown,
            Negatives::Mined
            | Negatives::InterModal
            | Negatives::Imagined
            | Negatives::Words
            | Negatives::Learned => labels,
        }))
    }

    /// Features of the noise images, if there are any.
    pub fn noise(&self) -> Option<&[f32]> {
        self.sets.get(&TextSet::Noise).map(Vec::as_slice)
    }
}
