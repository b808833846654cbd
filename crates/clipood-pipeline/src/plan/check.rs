//! What can be refused before any image is encoded: a recipe that does not fit the data, and too many unreadable images.

use std::collections::HashSet;

use clipood_ood::{FitSizes, Negatives, check_fit};

use super::choose::Chosen;
use crate::error::{PipelineError, Result};
use crate::experiment::Experiment;
use crate::job::Job;
use crate::negative::negative_section;
use crate::prompts::key::{PromptKey, prompt_keys};
use crate::prompts::trainers::context::ContextTraining;
use crate::quarantine::{allowed_images, over_limit};

/// Images of one set that extraction will certainly put into quarantine.
#[derive(Default)]
pub(super) struct Unread {
    keys: HashSet<String>,
    /// The first of them, with what is wrong with it.
    first: Option<String>,
}

impl Unread {
    pub fn add(&mut self, key: String, problem: String) {
        self.keys.insert(key);
        self.first.get_or_insert(problem);
    }
}

/// Checks a set of `planned` images against the limit of the recipe for unreadable ones.
///
/// # Errors
/// [`PipelineError::Quarantine`].
pub(super) fn check_limit(job: &Job, dataset: &str, unread: &Unread, planned: usize) -> Result<()> {
    let fraction = job.experiment.recipe.engine.max_quarantine_fraction;
    let found = unread.keys.len();
    if found <= allowed_images(fraction, planned) {
        return Ok(());
    }
    let example = unread.first.clone().unwrap_or_default();
    Err(over_limit(dataset, found, planned, fraction, example))
}

/// Checks that no class has lost all its shots.
///
/// # Errors
/// [`PipelineError::Usage`] with the class, the number of shots and the seed.
pub(super) fn check_shots(experiment: &Experiment, chosen: &Chosen, unread: &Unread) -> Result<()> {
    if unread.keys.is_empty() {
        return Ok(());
    }
    for key in prompt_keys(&experiment.recipe) {
        let Some((shots, split)) = shots_of(&key, chosen) else {
            continue;
        };
        for clipood_data::ClassShots { name, keys } in &split.classes {
            if keys.iter().take(shots).all(|key| unread.keys.contains(key)) {
                return Err(PipelineError::Usage(format!(
                    "{}: class `{name}` has no readable training image among its {shots} shots; the first is {}",
                    key.name(),
                    keys.first().map_or("", String::as_str)
                )));
            }
        }
    }
    Ok(())
}

fn shots_of<'a>(
    key: &PromptKey,
    chosen: &'a Chosen,
) -> Option<(usize, &'a clipood_data::FewShotSplit)> {
    let (shots, seed) = (key.shots?, key.seed?);
    Some((shots, chosen.splits.get(&seed)?))
}

/// Checks what the recipe asks for against the number of classes and of shots: the patch terms of the trainings, the
/// detectors, the word lists.
///
/// # Errors
/// [`PipelineError::Usage`] with the detector or key.
pub(super) fn check_recipe(experiment: &Experiment, chosen: &Chosen) -> Result<()> {
    let recipe = &experiment.recipe;
    let unknown = negative_section(experiment)?.map(|section| section.unknown.len());
    for key in prompt_keys(recipe) {
        if key.method.trains_prompt() {
            ContextTraining::of(recipe, chosen.classes.len(), &key)?;
        }
        let per_class = shots_of(&key, chosen).map(|(shots, split)| {
            let classes = split.classes.iter();
            classes
                .map(|class| class.keys.len().min(shots))
                .collect::<Vec<_>>()
        });
        for column in &experiment.columns {
            let Some(spec) = column.spec(key.method)? else {
                continue;
            };
            let needs = spec.needs();
            // Without shots a detector that needs some stays empty.
            if needs.shots && per_class.is_none() {
                continue;
            }
            let sizes = FitSizes {
                width: experiment.dim(),
                shots: per_class.as_ref().map(|classes| classes.iter().sum()),
                largest_class: per_class.as_ref().and_then(|c| c.iter().max().copied()),
                unknown_texts: unknown.filter(|_| needs.negatives == Some(Negatives::Unknown)),
            };
            check_fit(&spec, &sizes).map_err(|error| {
                PipelineError::Usage(format!("{}, {}: {error}", key.name(), column.name))
            })?;
        }
    }
    Ok(())
}
