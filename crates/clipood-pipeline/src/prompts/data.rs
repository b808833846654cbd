//! Training data of a prompt set: the cached features of its few-shot images.

use std::collections::BTreeMap;

use clipood_clip::prompt::PromptData;

use super::key::PromptKey;
use crate::error::{PipelineError, Result};
use crate::extract::EVAL_VIEW;
use crate::features::{FeatureBlock, normalise_rows, read_features};
use crate::job::Job;
use crate::plan::Plan;
use crate::planned::Planned;

/// Calls `each` with the features of every unit that contains shots of `key`; with `local` also the patch features.
///
/// # Errors
/// Features that cannot be read, the errors of `each`.
pub fn for_shot_blocks(
    job: &Job,
    planned: &Planned,
    key: &PromptKey,
    local: bool,
    mut each: impl FnMut(FeatureBlock) -> Result<()>,
) -> Result<()> {
    let (shots, seed) = key.shots_and_seed()?;
    for unit in planned.features.shot_units(seed, shots) {
        each(read_features(job, unit, local)?)?;
    }
    Ok(())
}

/// Loads and normalises the training views of the shots of `key`; with `local` also the patch features. Images in
/// quarantine are left out and counted in the progress.
///
/// # Errors
/// Features that cannot be read, or a class that has lost all its images.
pub fn prompt_data(
    job: &Job,
    planned: &Planned,
    key: &PromptKey,
    local: bool,
) -> Result<PromptData> {
    let (dim, patches) = (job.experiment.dim(), job.experiment.patches());
    let views = job.experiment.recipe.training_views();
    let wanted = labels_of(&planned.plan, key)?;
    let mut data = PromptData {
        views,
        patches: if local { patches } else { 0 },
        dim,
        ..PromptData::default()
    };
    for_shot_blocks(job, planned, key, local, |block| {
        let mut row = 0;
        while row < block.keys.len() {
            // The rows of an image are consecutive: the evaluation view, then its crops.
            let mut end = row + 1;
            while end < block.keys.len() && block.keys[end] == block.keys[row] {
                end += 1;
            }
            if let Some(label) = wanted.get(block.keys[row].as_str()) {
                let crops: Vec<usize> = (row..end)
                    .filter(|r| block.views[*r] != EVAL_VIEW)
                    .collect();
                if crops.len() != views {
                    return Err(PipelineError::Inconsistent(format!(
                        "{}: {} training views in the store, the recipe has {views}",
                        block.keys[row],
                        crops.len()
                    )));
                }
                for r in crops {
                    data.global
                        .extend_from_slice(&block.global[r * dim..(r + 1) * dim]);
                    if local {
                        let size = patches * dim;
                        data.local
                            .extend_from_slice(&block.local[r * size..(r + 1) * size]);
                    }
                }
                data.labels.push(*label);
            }
            row = end;
        }
        Ok(())
    })?;
    name_losses(job, planned, key, &data.labels)?;
    normalise_rows(&mut data.global, dim);
    normalise_rows(&mut data.local, dim);
    Ok(data)
}

/// Reports the classes that have lost shots to quarantine; `labels` are those of the remaining images.
///
/// # Errors
/// A class that has lost all of them.
pub fn name_losses(job: &Job, planned: &Planned, key: &PromptKey, labels: &[u32]) -> Result<()> {
    let wanted = labels_of(&planned.plan, key)?;
    for (label, name) in planned.plan.classes.iter().enumerate() {
        let count = labels.iter().filter(|l| **l as usize == label).count();
        let planned = wanted.values().filter(|l| **l as usize == label).count();
        if count == 0 {
            return Err(PipelineError::Usage(format!(
                "class `{name}` has no readable training image"
            )));
        }
        if count < planned {
            job.worker.reporting.say(&format!(
                "class `{name}` trains on {count} images instead of {planned}: the others are in quarantine"
            ));
        }
    }
    Ok(())
}

/// Label of each of the shots of `key`, by image key.
///
/// # Errors
/// A key without shots, which cannot come from a recipe.
pub fn labels_of<'a>(plan: &'a Plan, key: &PromptKey) -> Result<BTreeMap<&'a str, u32>> {
    let (shots, seed) = key.shots_and_seed()?;
    let train = plan.id().train.iter();
    let label_of: BTreeMap<&str, u32> = train
        .filter_map(|image| Some((image.key.as_str(), image.label?)))
        .collect();
    let classes = plan.split(seed)?.classes.iter();
    let drawn = classes.flat_map(|class| class.keys.iter().take(shots));
    let labelled = drawn.filter_map(|key| label_of.get_key_value(key.as_str()));
    Ok(labelled.map(|(key, label)| (*key, *label)).collect())
}

/// Features of the evaluation views of the shots of `key`, `[n, D]` before normalisation, and their labels, for fitting
/// detectors and linear probes.
///
/// # Errors
/// Features that cannot be read.
pub fn shot_features(
    job: &Job,
    planned: &Planned,
    key: &PromptKey,
) -> Result<(Vec<f32>, Vec<u32>)> {
    let dim = job.experiment.dim();
    let wanted = labels_of(&planned.plan, key)?;
    let (mut features, mut labels) = (Vec::new(), Vec::new());
    for_shot_blocks(job, planned, key, false, |block| {
        for (row, (key, view)) in block.keys.iter().zip(&block.views).enumerate() {
            if let (EVAL_VIEW, Some(label)) = (*view, wanted.get(key.as_str())) {
                features.extend_from_slice(&block.global[row * dim..(row + 1) * dim]);
                labels.push(*label);
            }
        }
        Ok(())
    })?;
    Ok((features, labels))
}
