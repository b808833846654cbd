//! The scores of one prompt set as the figures of a report need them. Read shard by shard: of an image, four bytes of score
//! and eight of classes are kept, and the names of a few images.

use std::collections::BTreeMap;

use super::bounds::MISTAKES;
use crate::error::Result;
use crate::job::Job;
use crate::plan::Purpose;
use crate::planned::Planned;
use crate::prompts::trainers::PlannedPrompt;
use crate::stages::score::{SCORE, part_path, score_unit};
use crate::tables::{ScoreRow, Scores, read_scores};

/// The scores of a prompt set under one detector.
#[derive(Debug, Clone, Default)]
pub struct PromptScores {
    /// Name of the prompt set.
    pub prompt: String,
    /// Name of the detector.
    pub detector: String,
    /// The in-distribution images.
    pub id: SetScores,
    /// The OOD sets, in the recipe's order.
    pub ood: Vec<SetScores>,
}

/// The scores of one dataset.
#[derive(Debug, Clone, Default)]
pub struct SetScores {
    /// Name of the dataset.
    pub name: String,
    /// Scores, higher = more in-distribution.
    pub scores: Vec<f32>,
    /// Predicted classes, one per score.
    pub preds: Vec<i32>,
    /// Number of images with each pair of label and predicted class; empty out of distribution.
    pub confusion: BTreeMap<(i32, i32), u64>,
    /// Of ID images the most probable wrong predictions, of OOD images those with the highest scores; the worst first.
    pub mistakes: Vec<Mistake>,
}

/// An image that was taken for what it is not.
#[derive(Debug, Clone, PartialEq)]
pub struct Mistake {
    /// `dataset/split/relative/path`.
    pub image_key: String,
    /// The part of the plan that lists it.
    pub part: String,
    /// Its class, or the name of its folder or dataset.
    pub truth: String,
    /// What it was taken for.
    pub prediction: String,
    /// Number of that class.
    pub pred: i32,
    /// Probability of the prediction.
    pub prob: f32,
    /// Its score under the detector.
    pub score: f32,
    /// What the mistakes are sorted by.
    badness: f32,
}

impl SetScores {
    /// Adds the rows of one part; `column` holds the scores.
    fn add(&mut self, scores: &Scores, column: &[f32], part: &str) {
        for (row, score) in scores.rows.iter().zip(column) {
            self.scores.push(*score);
            self.preds.push(row.pred);
            if let (true, Some(label)) = (row.is_id, row.label) {
                *self.confusion.entry((label, row.pred)).or_default() += 1;
            }
            let badness = match row.is_id {
                true => row
                    .label
                    .filter(|label| *label != row.pred)
                    .map(|_| row.prob),
                false => Some(*score),
            };
            if let Some(badness) = badness {
                self.note(badness, row, *score, part);
            }
        }
    }

    /// Keeps the image if it is among the worst.
    fn note(&mut self, badness: f32, row: &ScoreRow, score: f32, part: &str) {
        let place = self.mistakes.partition_point(|m| m.badness >= badness);
        if place >= MISTAKES {
            return;
        }
        let truth = row.class_name.clone().unwrap_or_else(|| self.name.clone());
        let mistake = Mistake {
            image_key: row.image_key.clone(),
            part: part.to_string(),
            truth,
            prediction: row.pred_name.clone(),
            pred: row.pred,
            prob: row.prob,
            score,
            badness,
        };
        self.mistakes.insert(place, mistake);
        self.mistakes.truncate(MISTAKES);
    }
}

/// Reads the test scores of `prompt` under `detector`; `None` if the detector is not defined for it.
///
/// # Errors
/// A part that is missing or damaged.
pub fn prompt_scores(
    job: &Job,
    planned: &Planned,
    prompt: &PlannedPrompt,
    detector: &str,
) -> Result<Option<PromptScores>> {
    let mut all = PromptScores {
        prompt: prompt.key.name(),
        detector: detector.to_string(),
        ..PromptScores::default()
    };
    let mut sets: Vec<(bool, SetScores)> = Vec::new();
    for shard in planned.shards_for(Purpose::Test) {
        let path = part_path(&prompt.key, &shard);
        let unit = score_unit(job, prompt, &shard)?;
        let bytes = job.places.run.ledger().read_part(SCORE, &unit, &path)?;
        let scores = read_scores(bytes, &path)?;
        let found = scores.detectors.iter().find(|d| d.detector == detector);
        let Some(column) = found.and_then(|d| d.values.as_deref()) else {
            return Ok(None);
        };
        let name = &shard.dataset.name;
        if sets.last().is_none_or(|(_, set)| set.name != *name) {
            let set = SetScores {
                name: name.clone(),
                ..SetScores::default()
            };
            sets.push((shard.dataset.is_id(), set));
        }
        let part = shard
            .dataset
            .shards
            .get(shard.number)
            .map_or("", |s| s.part.as_str());
        if let Some((_, set)) = sets.last_mut() {
            set.add(&scores, column, part);
        }
    }
    for (is_id, set) in sets {
        match is_id {
            true => all.id = set,
            false => all.ood.push(set),
        }
    }
    Ok(Some(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_mistakes_are_kept_in_order() {
        let row = |key: usize, label: i32, pred: i32, prob: f32| ScoreRow {
            image_key: key.to_string(),
            is_id: true,
            label: Some(label),
            pred,
            prob,
            ..ScoreRow::default()
        };
        let mut rows: Vec<ScoreRow> = (0..100)
            .map(|n| row(n, 0, 1, (n * 37 % 100) as f32 / 100.0))
            .collect();
        rows.push(row(100, 1, 1, 1.0));
        let column = vec![0.5; rows.len()];
        let scores = Scores {
            rows,
            detectors: Vec::new(),
        };
        let mut set = SetScores::default();
        set.add(&scores, &column, "part");
        assert_eq!(set.mistakes.len(), MISTAKES);
        assert_eq!(set.mistakes[0].prob, 0.99);
        assert!(
            set.mistakes
                .windows(2)
                .all(|pair| pair[0].prob >= pair[1].prob)
        );
        // The right prediction is none.
        assert!(set.mistakes.iter().all(|m| m.image_key != "100"));
        assert_eq!((set.confusion[&(0, 1)], set.confusion[&(1, 1)]), (100, 1));
    }
}
