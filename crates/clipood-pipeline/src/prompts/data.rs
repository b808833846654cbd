//! Training data of a prompt set: the cached views of its few-shot images.

use clipood_clip::prompt::PromptData;
use clipood_data::FewShotSplit;

use crate::error::{PipelineError, Result};
use crate::extract::{EVAL_VIEW, FeatureIndex};
use crate::features::{normalise_rows, read_features};
use crate::job::Job;
use crate::plan::Plan;

/// Loads and normalises the training views of the first `shots` images of every class of `split`; `local` asks for
/// patches too. Images in quarantine are left out and named in the progress.
///
/// # Errors
/// Features that cannot be read, or a class that has lost all its images.
pub fn prompt_data(
    job: &Job,
    plan: &Plan,
    index: &FeatureIndex,
    seed: u64,
    shots: usize,
    local: bool,
) -> Result<PromptData> {
    let config = &job.model.config;
    let (dim, patches) = (config.embed_dim, config.image.positions());
    let views = job.recipe.training_views();
    let split = &plan.splits[&seed];
    let wanted = labels_of(plan, split, shots);
    let mut data = PromptData {
        views,
        patches: if local { patches } else { 0 },
        dim,
        ..PromptData::default()
    };
    for (first_rank, unit) in &index.train[&seed] {
        if *first_rank >= shots {
            continue;
        }
        let block = read_features(job, &index.units[*unit], local)?;
        let mut row = 0;
        while row < block.keys.len() {
            // The rows of an image stand together: the evaluation view, then its crops.
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
    }
    name_losses(job, plan, seed, shots, &data.labels)?;
    normalise_rows(&mut data.global, dim);
    normalise_rows(&mut data.local, dim);
    Ok(data)
}

/// Says which classes have lost some of their first `shots` images to quarantine; `labels` are those of the images that are
/// there.
///
/// # Errors
/// A class that has lost all of them.
pub fn name_losses(job: &Job, plan: &Plan, seed: u64, shots: usize, labels: &[u32]) -> Result<()> {
    let wanted = labels_of(plan, &plan.splits[&seed], shots);
    for (label, name) in plan.classes.iter().enumerate() {
        let count = labels.iter().filter(|l| **l as usize == label).count();
        let planned = wanted.values().filter(|l| **l as usize == label).count();
        if count == 0 {
            return Err(PipelineError::Usage(format!(
                "class `{name}` has no readable training image"
            )));
        }
        if count < planned {
            job.reporting.say(&format!(
                "class `{name}` trains on {count} images instead of {planned}: the others are in quarantine"
            ));
        }
    }
    Ok(())
}

/// Label of each of the first `shots` images of every class.
pub fn labels_of<'a>(
    plan: &Plan,
    split: &'a FewShotSplit,
    shots: usize,
) -> std::collections::BTreeMap<&'a str, u32> {
    split
        .classes
        .iter()
        .flat_map(|(name, keys)| {
            let label = plan.classes.iter().position(|c| c == name);
            keys.iter()
                .take(shots)
                .filter_map(move |key| Some((key.as_str(), label? as u32)))
        })
        .collect()
}

/// Evaluation views of the first `shots` images of every class, `[n, D]` before normalisation, and their labels: what
/// detectors and linear probes are fitted on.
///
/// # Errors
/// Features that cannot be read.
pub fn shot_features(
    job: &Job,
    plan: &Plan,
    index: &FeatureIndex,
    seed: u64,
    shots: usize,
) -> Result<(Vec<f32>, Vec<u32>)> {
    let dim = job.model.config.embed_dim;
    let wanted = labels_of(plan, &plan.splits[&seed], shots);
    let (mut features, mut labels) = (Vec::new(), Vec::new());
    for (first_rank, unit) in &index.train[&seed] {
        if *first_rank >= shots {
            continue;
        }
        let block = read_features(job, &index.units[*unit], false)?;
        for (row, (key, view)) in block.keys.iter().zip(&block.views).enumerate() {
            if let (EVAL_VIEW, Some(label)) = (*view, wanted.get(key.as_str())) {
                features.extend_from_slice(&block.global[row * dim..(row + 1) * dim]);
                labels.push(*label);
            }
        }
    }
    Ok((features, labels))
}
