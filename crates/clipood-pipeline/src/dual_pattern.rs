//! Training statistics of the dual-pattern score: the ranges of its two components over the training crops of the
//! shots.
//!
//! The crops are used instead of the evaluation views, because the class patterns are means over the evaluation views:
//! with one shot per class, every evaluation view would equal its pattern and its divergence would be zero.

use clipood_ood::{
    DualPatternScaling, FittedDetector, LocalFeatures, Matrix, ScoreInputs, score_all,
};

use crate::error::Result;
use crate::extract::EVAL_VIEW;
use crate::job::Job;
use crate::planned::Planned;
use crate::prompts::data::{for_shot_blocks, labels_of};
use crate::prompts::trainers::PlannedPrompt;

/// File metadata of a dual-pattern prompt set's score parts: the ranges over its training crops, as JSON.
pub const TRAIN_RANGES: &str = "clipood.dual_pattern_train_ranges";

/// Scores the training crops of the shots, one part of the store after the other, with the base score and the
/// divergence of a prompt set whose text features are `text`, and returns their ranges.
///
/// # Errors
/// Features that cannot be read; a divergence that is the same for all crops.
pub fn train_ranges(
    job: &Job,
    planned: &Planned,
    prompt: &PlannedPrompt,
    text: &Matrix<'_>,
    halves: &[FittedDetector; 2],
) -> Result<DualPatternScaling> {
    let (dim, patches) = (job.experiment.dim(), job.experiment.patches());
    let local = halves.iter().any(|half| half.spec().needs().patches);
    let wanted = labels_of(&planned.plan, &prompt.key)?;
    let (mut base, mut neg_min_kl) = (Vec::new(), Vec::new());
    for_shot_blocks(job, planned, &prompt.key, local, |block| {
        let rows: Vec<usize> = (0..block.keys.len())
            .filter(|row| block.views[*row] != EVAL_VIEW)
            .filter(|row| wanted.contains_key(block.keys[*row].as_str()))
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        let pick = |values: &[f32], size: usize| -> Vec<f32> {
            let rows = rows.iter();
            rows.flat_map(|row| values[row * size..(row + 1) * size].iter().copied())
                .collect()
        };
        let global = pick(&block.global, dim);
        let local = local.then(|| pick(&block.local, patches * dim));
        let inputs = ScoreInputs {
            global: Matrix::new("training crops", &global, rows.len(), dim)?,
            local: match &local {
                Some(local) => Some(LocalFeatures::new(
                    "patches of training crops",
                    local,
                    rows.len(),
                    patches,
                    dim,
                )?),
                None => None,
            },
        };
        let mut columns = score_all(halves, text, &inputs)?.columns.into_iter();
        base.extend(columns.next().unwrap_or_default());
        neg_min_kl.extend(columns.next().unwrap_or_default());
        Ok(())
    })?;
    Ok(DualPatternScaling::calibrated(&base, &neg_min_kl)?)
}
