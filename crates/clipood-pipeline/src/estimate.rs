//! How much work a planned run has left, counted from its plan.

use serde::Serialize;

use crate::error::Result;
use crate::extract::{GLOBAL, ledger_unit};
use crate::job::Job;
use crate::places::Shelf;
use crate::planned::Planned;
use crate::prompts::trainers::Trainer;
use crate::stages::STAGES;

/// The work of a run, and what is left of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// Images of all sets, each once.
    pub images: usize,
    /// Views of images to encode, each a pass of the image tower.
    pub views: usize,
    /// Those that are not in the store yet.
    pub open_views: usize,
    /// Bytes of the features of all views in the store, before compression.
    pub feature_bytes: u64,
    /// Steps of all prompt trainings.
    pub steps: usize,
    /// Those of the trainings that are not in the store yet.
    pub open_steps: usize,
    /// Rows of all score tables: images to score times prompt sets.
    pub scores: usize,
    /// Views of the largest unit of the extraction.
    pub largest_unit: usize,
    /// Rows of the largest unit of the scoring.
    pub largest_shard: usize,
    /// For each stage its name, its units and those that are not done.
    pub stages: Vec<(&'static str, usize, usize)>,
}

/// Counts the work of a run.
///
/// # Errors
/// Commits that cannot be read.
pub fn estimate(job: &Job, planned: &Planned) -> Result<Estimate> {
    let experiment = &job.experiment;
    let mut found = Estimate::default();
    let done = job.places.features.ledger.committed(GLOBAL)?;
    for unit in &planned.features.units {
        let views = unit.images * unit.views.len();
        found.views += views;
        found.largest_unit = found.largest_unit.max(views);
        if !done.contains(&ledger_unit(job, unit))? {
            found.open_views += views;
        }
    }
    let patches = match planned.patches {
        true => experiment.patches(),
        false => 0,
    };
    // As the size of a shard counts them: f32 for the image, f16 for each patch.
    let view = experiment.dim() * (4 + 2 * patches);
    found.feature_bytes = found.views as u64 * view as u64;
    let trained = job.places.ledger(Shelf::Prompts).committed("train")?;
    for prompt in planned.trained_prompts() {
        let (epochs, batch_size) = match &prompt.trainer {
            Trainer::Context(training) => (training.epochs, training.train.batch_size),
            // A step passes the tower once for each negative prompt of a class.
            Trainer::Negative(training) => {
                (training.epochs * training.negatives, training.batch_size)
            }
            Trainer::HandWritten(_) | Trainer::LinearProbe(_) => continue,
        };
        let shots = prompt.key.shots.unwrap_or_default() * planned.plan.classes.len();
        // A last short batch is dropped, unless it is the only one.
        let steps = epochs * (shots / batch_size.max(1)).max(1);
        found.steps += steps;
        if !trained.contains(&prompt.unit)? {
            found.open_steps += steps;
        }
    }
    for dataset in &planned.plan.datasets {
        found.images += dataset.images();
    }
    for shard in planned.shards() {
        let rows = shard.features.images * planned.prompts.len();
        found.scores += rows;
        found.largest_shard = found.largest_shard.max(rows);
    }
    for stage in STAGES {
        let counts = stage.count(job, planned)?;
        let open = counts.units - counts.done;
        found.stages.push((stage.name, counts.units, open));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CLASSES, OOD, PER_CLASS, World};

    #[test]
    fn the_counts_follow_from_plan_and_recipe() {
        let world = World::new();
        let job = world.job(0, 1);
        let planned = Planned::make(&job).unwrap();
        let found = estimate(&job, &planned).unwrap();
        let scored = CLASSES.len() * PER_CLASS + 2 * OOD;
        // Two shots of each class, their evaluation view and two crops.
        let trained = CLASSES.len() * 2 * 3;
        assert_eq!(found.images, scored);
        assert_eq!(found.views, scored + trained);
        assert_eq!(found.open_views, found.views);
        assert_eq!(found.scores, 3 * scored);
        // Six shots are one short batch; two epochs of one method.
        assert_eq!((found.steps, found.open_steps), (2, 2));
        let (_, units, open) = found.stages[1];
        assert_eq!((units, open), (planned.features.units.len(), units));
        assert!(found.largest_unit <= found.views && found.largest_shard <= found.scores);

        crate::run(&job).unwrap();
        let after = estimate(&job, &planned).unwrap();
        assert_eq!((after.open_views, after.open_steps), (0, 0));
        assert_eq!((after.views, after.steps), (found.views, found.steps));
        assert!(after.stages.iter().all(|(_, _, open)| *open == 0));
    }
}
