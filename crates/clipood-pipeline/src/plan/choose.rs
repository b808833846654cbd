//! Choosing classes, validation images and few-shot splits from the in-distribution dataset.

use std::collections::{BTreeMap, HashMap, HashSet};

use clipood_core::equal_names;
use clipood_data::{DataError, FewShotSplit, ImageRecord, few_shot_split, subsample_classes};

use super::file_shots::FileShots;
use super::list::{Draws, Listed};
use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::manifests::largest_shots;
use crate::negative::chooses_with_shots;

/// Seed of the draw of validation images: one set for all seeds, so that hyperparameters of all prompt sets are chosen
/// on the same images.
const VALIDATION_SEED: u64 = u64::MAX;

/// What is drawn from the in-distribution dataset.
pub(super) struct Chosen {
    /// Names of the classes.
    pub classes: Vec<String>,
    /// From the label of a class in the dataset to its place in `classes`.
    pub labels: HashMap<u32, u32>,
    pub splits: BTreeMap<u64, FewShotSplit>,
    /// Keys of the training images that are used for validation.
    pub held_out: HashSet<String>,
}

/// The draws that [`choose`] may do.
///
/// # Errors
/// A split file that cannot be read; detectors that need what the recipe does not give.
pub(super) fn draws(job: &Job) -> Result<Draws> {
    let recipe = &job.experiment.recipe;
    let shots = needed_shots(job)?;
    let mut draws = Draws {
        seeds: Vec::new(),
        images: shots.unwrap_or(0),
        files: FileShots::read(job, shots)?,
    };
    if draws.files.is_some() {
        // Those of other seeds cannot be used for validation either.
        draws.images *= recipe.seeds.len();
    } else if draws.images > 0 {
        draws.seeds.extend(&recipe.seeds);
    }
    if job.experiment.manifests.validates() {
        draws.seeds.push(VALIDATION_SEED);
        // Validation images cannot be shots.
        draws.images += recipe.data.validation_per_class;
    }
    Ok(draws)
}

/// The largest number of shots that a method trains with, or that texts of no class are chosen with.
fn needed_shots(job: &Job) -> Result<Option<usize>> {
    let recipe = &job.experiment.recipe;
    let trained = largest_shots(recipe);
    match trained.is_none() && chooses_with_shots(&job.experiment)? {
        true => Ok(recipe.shots.iter().copied().max()),
        false => Ok(trained),
    }
}

/// Class names, the validation images, and the few-shot splits that the recipe's methods need.
///
/// # Errors
/// Fewer than two classes, no training images although some are needed, a class with too few of them.
pub(super) fn choose(job: &Job, listed: &Listed, files: Option<&FileShots>) -> Result<Chosen> {
    let all: Vec<(&u32, &String)> = listed.classes.iter().collect();
    let taken = subsample_classes(&all, job.experiment.recipe.data.subsample_classes);
    let classes: Vec<String> = taken.iter().map(|(_, name)| name.to_string()).collect();
    let labels: HashMap<u32, u32> = taken.iter().map(|(label, _)| **label).zip(0..).collect();
    if classes.len() < 2 {
        return Err(PipelineError::Usage(format!(
            "dataset `{}` has {} classes, at least two are needed",
            job.experiment.manifests.id.name,
            classes.len()
        )));
    }
    if let Some(note) = equal_names(&classes) {
        let dataset = &job.experiment.manifests.id.name;
        job.worker.reporting.say(&format!("{dataset}: {note}"));
    }
    let largest = needed_shots(job)?;
    let has_validation = labels
        .keys()
        .any(|label| listed.val_classes.contains(label));
    let holds_out = job.experiment.manifests.validates() && !has_validation;
    let is_chosen = |record: &&ImageRecord| {
        record
            .label
            .is_some_and(|label| labels.contains_key(&label))
    };
    let mut train: Vec<ImageRecord> = listed.train.iter().filter(is_chosen).cloned().collect();
    if train.is_empty() && (holds_out || largest.is_some()) {
        let purpose = match largest {
            Some(shots) => format!("trains with {shots} shots"),
            None => "validates".to_string(),
        };
        return Err(PipelineError::Usage(format!(
            "dataset `{}` has no training images, but the recipe {purpose}; give its manifest a train split or a train_fraction",
            job.experiment.manifests.id.name
        )));
    }
    let few_shot = |train: &[ImageRecord], images: usize, seed: u64| {
        let allow_fewer = job.experiment.recipe.train.allow_fewer;
        few_shot_split(
            &job.experiment.manifests.id.name,
            train,
            images,
            seed,
            allow_fewer,
        )
    };
    let mut splits = BTreeMap::new();
    if let (Some(shots), Some(files)) = (largest, files) {
        let dataset = &job.experiment.manifests.id.name;
        let wanted = (shots, job.experiment.recipe.train.allow_fewer);
        for seed in &job.experiment.recipe.seeds {
            let is_chosen = |label| labels.contains_key(&label);
            let split = files.split(dataset, &listed.train, *seed, wanted, is_chosen)?;
            if let Some(class) = without_shots(&split, &classes) {
                return Err(PipelineError::from(DataError::TooFewShots {
                    dataset: dataset.clone(),
                    class: class.clone(),
                    found: 0,
                    wanted: shots,
                }));
            }
            splits.insert(*seed, split);
        }
        let named: HashSet<&str> = splits.values().flat_map(FewShotSplit::keys).collect();
        train.retain(|record| !named.contains(record.image_key.as_str()));
    }
    let mut held_out = HashSet::new();
    if holds_out {
        let images = job.experiment.recipe.data.validation_per_class;
        let drawn = few_shot(&train, images, VALIDATION_SEED)?;
        held_out.extend(drawn.keys().map(String::from));
        train.retain(|record| !held_out.contains(&record.image_key));
    }
    if let (Some(shots), None) = (largest, files) {
        for seed in &job.experiment.recipe.seeds {
            splits.insert(*seed, few_shot(&train, shots, *seed)?);
        }
    }
    Ok(Chosen {
        classes,
        labels,
        splits,
        held_out,
    })
}

/// A class that has no shot in the split, if there are fewer of its name there than among all.
fn without_shots<'a>(split: &FewShotSplit, classes: &'a [String]) -> Option<&'a String> {
    let mut left: Vec<&str> = split
        .classes
        .iter()
        .map(|class| class.name.as_str())
        .collect();
    classes.iter().find(|class| {
        let found = left.iter().position(|name| name == class);
        found.map(|at| left.swap_remove(at)).is_none()
    })
}
