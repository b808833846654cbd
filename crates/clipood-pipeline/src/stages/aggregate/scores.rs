//! Reading the scores of one prompt set, dataset by dataset.

use std::collections::BTreeMap;

use clipood_ood::metrics::Calibration;

use crate::dual_pattern::TRAIN_RANGES;
use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::plan::Purpose;
use crate::planned::Shard;
use crate::prompts::trainers::PlannedPrompt;
use crate::stages::score::{NOTES, SCORE, TOP5_HITS, part_path, score_unit};
use crate::tables::{DetectorScores, QuarantineRow, read_footer, read_score_values};

/// Bins of the expected calibration error.
const ECE_BINS: usize = 15;

/// All scores of one prompt set on one dataset.
pub struct DatasetScores {
    /// Name of the dataset.
    pub name: String,
    /// Scores of the images in key order, one column per detector.
    pub detectors: Vec<DetectorScores>,
    /// Accuracy and calibration of the in-distribution images; empty for other datasets.
    pub calibration: Calibration,
    /// Number of ID images whose label is among the five most likely classes.
    pub top5_hits: u64,
    /// Images without a score.
    pub quarantined: Vec<QuarantineRow>,
    /// Ranges of the dual-pattern score over the training crops, as JSON.
    pub train_ranges: Option<String>,
    /// Notes of detectors on their fit, by column.
    pub notes: BTreeMap<String, String>,
}

impl DatasetScores {
    /// Scores of the column `name`; `None` where it is not defined for the prompt set.
    pub fn column(&self, name: &str) -> Option<&[f32]> {
        let found = self.detectors.iter().find(|d| d.detector == name);
        found.and_then(|d| d.values.as_deref())
    }
}

/// The scores of a prompt set on the images of one purpose.
pub struct Scored {
    /// The in-distribution images.
    pub id: DatasetScores,
    /// The OOD sets, in the plan's order.
    pub ood: Vec<DatasetScores>,
}

/// Reads the scores of `prompt` on the datasets for `purpose`; `None` if there are none.
///
/// # Errors
/// A part that is missing or damaged, a dataset without any score.
pub fn read_scored(
    job: &Job,
    prompt: &PlannedPrompt,
    shards: &[Shard<'_>],
    purpose: Purpose,
) -> Result<Option<Scored>> {
    let mut datasets: Vec<(bool, &str)> = Vec::new();
    for shard in shards.iter().filter(|s| s.dataset.purpose == purpose) {
        let entry = (shard.dataset.is_id(), shard.dataset.name.as_str());
        if !datasets.contains(&entry) {
            datasets.push(entry);
        }
    }
    let (mut id, mut ood) = (None, Vec::new());
    for (is_id, name) in datasets {
        let own: Vec<&Shard<'_>> = shards
            .iter()
            .filter(|s| s.dataset.purpose == purpose && s.dataset.name == name)
            .collect();
        let scores = read_dataset(job, prompt, &own, name)?;
        match is_id {
            true => id = Some(scores),
            false => ood.push(scores),
        }
    }
    Ok(id.map(|id| Scored { id, ood }))
}

fn read_dataset(
    job: &Job,
    prompt: &PlannedPrompt,
    shards: &[&Shard<'_>],
    dataset: &str,
) -> Result<DatasetScores> {
    let mut all = DatasetScores {
        name: dataset.to_string(),
        detectors: Vec::new(),
        calibration: Calibration::new(ECE_BINS)?,
        top5_hits: 0,
        quarantined: Vec::new(),
        train_ranges: None,
        notes: BTreeMap::new(),
    };
    let mut images = 0;
    for shard in shards {
        let path = part_path(&prompt.key, shard);
        let unit = score_unit(job, prompt, shard)?;
        let bytes = job.places.run.ledger().read_part(SCORE, &unit, &path)?;
        let mut footer = read_footer(&bytes, &path)?;
        let hits = footer.meta.extra.get(TOP5_HITS);
        all.top5_hits += hits.and_then(|h| h.parse::<u64>().ok()).ok_or_else(|| {
            PipelineError::Inconsistent(format!("{path}: no `{TOP5_HITS}` in its metadata"))
        })?;
        all.train_ranges = footer.meta.extra.remove(TRAIN_RANGES);
        if let Some(json) = footer.meta.extra.remove(NOTES) {
            all.notes = serde_json::from_str(&json)
                .map_err(|e| PipelineError::Inconsistent(format!("{path}: {NOTES}: {e}")))?;
        }
        all.quarantined.extend(footer.meta.quarantined);
        let part = read_score_values(bytes, &path)?;
        if part.preds.is_empty() {
            continue;
        }
        if all.detectors.is_empty() {
            all.detectors = part.detectors;
            for whole in all.detectors.iter_mut().filter_map(|d| d.values.as_mut()) {
                whole.reserve_exact(shards[0].dataset.images().saturating_sub(whole.len()));
            }
        } else {
            for (whole, more) in all.detectors.iter_mut().zip(part.detectors) {
                match (&mut whole.values, more.values) {
                    (Some(values), Some(more)) => values.extend(more),
                    (None, None) => {}
                    _ => {
                        return Err(PipelineError::Inconsistent(format!(
                            "{path}: column `score_{}` is empty in some parts and not in others",
                            whole.detector
                        )));
                    }
                }
            }
        }
        images += part.preds.len();
        // The accuracy is that of the in-distribution images.
        if shard.dataset.is_id() {
            for ((label, class), probability) in part.labels.iter().zip(part.preds).zip(part.probs)
            {
                let label = label.ok_or_else(|| {
                    PipelineError::Inconsistent(format!("{path}: an image without label"))
                })?;
                all.calibration.add(class as u32, probability, label as u32);
            }
        }
    }
    if images == 0 {
        return Err(PipelineError::Inconsistent(format!(
            "{dataset}: no image of it could be scored ({} in quarantine)",
            all.quarantined.len()
        )));
    }
    Ok(all)
}
