//! Stage `negative`: texts of no class and their features, if a detector needs them. One unit.

use std::collections::BTreeSet;

use bytes::Bytes;
use clipood_clip::model::TextEncoder;
use clipood_core::{NegativeLabelsSection, WordListSection};
use clipood_ood::{Matrix, mine_negative_labels};
use clipood_store::Part;

use super::claims::share_units;
use super::{ExplainedUnit, Stage};
use crate::error::{PipelineError, Result};
use crate::inputs::recorded;
use crate::job::Job;
use crate::negative::{NEGATIVE, PlannedNegatives};
use crate::places::Shelf;
use crate::planned::Planned;
use crate::progress::StageProgress;
use crate::prompts::file::{PromptSet, prompt_footer, prompt_path};

/// Texts that are encoded between two checks for an interruption.
const CHUNK: usize = 1024;

/// See the head of this file.
pub static STAGE: Stage = Stage {
    name: NEGATIVE,
    needs: &["plan"],
    uses_devices: true,
    ledgers: |_| &[(Shelf::Prompts, NEGATIVE)],
    units: |_, planned| Ok(planned.negatives.iter().map(|n| n.unit.clone()).collect()),
    explained: |_, planned| {
        let units = planned.negatives.iter().map(|negatives| ExplainedUnit {
            name: "texts".to_string(),
            shelf: Shelf::Prompts,
            stage: NEGATIVE,
            unit: negatives.unit.clone(),
            inputs: negatives.inputs.clone(),
            prompt: None,
        });
        Ok(units.collect())
    },
    run,
    serves: None,
};

fn run(job: &Job, planned: &Planned) -> Result<()> {
    let Some(negatives) = &planned.negatives else {
        return Ok(());
    };
    let ledger = &job.places.prompts;
    let (unit, path) = (&negatives.unit, prompt_path(&negatives.unit));
    if ledger.is_done(NEGATIVE, unit)?
        || ledger
            .recover_part(NEGATIVE, unit, &path, &prompt_footer)?
            .is_some()
    {
        return Ok(());
    }
    let units = std::slice::from_ref(unit);
    share_units(job, ledger, NEGATIVE, units, |_| {
        let part = Part {
            path: path.clone(),
            bytes: Bytes::from(make(job, planned, negatives)?.to_bytes()?),
            extra: recorded(&negatives.inputs),
        };
        ledger.commit_part(NEGATIVE, unit, part, &prompt_footer)?;
        Ok(())
    })
}

/// The mined labels, then the prompts for the unknown.
fn make(job: &Job, planned: &Planned, negatives: &PlannedNegatives) -> Result<PromptSet> {
    let encoder = job.experiment.model.text_encoder(job.worker.device())?;
    let section = &negatives.section;
    let words = &job.experiment.manifests.words;
    let total: usize = words.iter().map(|list| list.words.len()).sum();
    let classes = &planned.plan.classes;
    let class_texts = match section.lists.is_empty() {
        true => Vec::new(),
        false => {
            let templates = job.experiment.recipe.prompt.templates.templates();
            encoder.classes(classes, &templates)?
        }
    };
    let mut mining = Mining {
        job,
        classes,
        class_texts,
        encoder: &encoder,
        section,
        progress: job.worker.progress(NEGATIVE, "words", total as u64),
        texts: Vec::new(),
        features: Vec::new(),
    };
    for list in &section.lists {
        mining.add(list)?;
    }
    mining.progress.finish();
    let (mut texts, mut features) = (mining.texts, mining.features);
    features.extend(encoder.classes(&section.unknown, &["{}"])?);
    texts.extend(section.unknown.iter().cloned());
    Ok(PromptSet {
        fingerprint: negatives.unit.fingerprint.clone(),
        classes: texts,
        text: features,
        state: None,
        probe: None,
    })
}

/// The state of mining the word lists, one after the other.
struct Mining<'a> {
    job: &'a Job,
    classes: &'a [String],
    /// Their features, `[classes, D]`, which the words of all lists are compared with.
    class_texts: Vec<f32>,
    encoder: &'a TextEncoder,
    section: &'a NegativeLabelsSection,
    progress: StageProgress,
    texts: Vec<String>,
    features: Vec<f32>,
}

impl Mining<'_> {
    /// Adds the words of a list that are farthest from the classes.
    fn add(&mut self, list: &WordListSection) -> Result<()> {
        let (experiment, section) = (&self.job.experiment, self.section);
        let dim = experiment.dim();
        let words = &experiment.manifests.words;
        let Some(words) = words.iter().find(|words| words.name == list.words) else {
            let problem = format!("word list `{}` was not read", list.words);
            return Err(PipelineError::Inconsistent(problem));
        };
        let template = [list.template.as_str()];
        let own: BTreeSet<String> = self.classes.iter().map(|c| c.to_lowercase()).collect();
        let words: Vec<String> = (words.words.iter())
            .filter(|word| !own.contains(&word.to_lowercase()))
            .cloned()
            .collect();
        let mut candidates = Vec::with_capacity(words.len() * dim);
        for chunk in words.chunks(CHUNK) {
            self.job.worker.interrupt.check()?;
            candidates.extend(self.encoder.classes(chunk, &template)?);
            self.progress.add(chunk.len() as u64);
        }
        let (words, candidates) = match section.exclude_above {
            None => (words, candidates),
            Some(limit) => far_enough(words, &candidates, &self.class_texts, dim, limit),
        };
        let text = Matrix::new("class texts", &self.class_texts, self.classes.len(), dim)?;
        let matrix = Matrix::new("words", &candidates, words.len(), dim)?;
        let kept = mine_negative_labels(&text, &matrix, section.quantile, section.keep)?;
        if kept.is_empty() {
            return Err(PipelineError::Usage(format!(
                "word list `{}`: a share of {} of {} words keeps none; raise negative_labels.keep or give more words",
                list.words,
                section.keep,
                words.len()
            )));
        }
        for row in kept {
            let row = row as usize;
            self.texts.push(list.template.replace("{}", &words[row]));
            let features = &candidates[row * dim..(row + 1) * dim];
            self.features.extend_from_slice(features);
        }
        Ok(())
    }
}

/// The words whose cosine to every class is at most `limit`.
fn far_enough(
    words: Vec<String>,
    candidates: &[f32],
    classes: &[f32],
    dim: usize,
    limit: f64,
) -> (Vec<String>, Vec<f32>) {
    let near = |word: &[f32]| {
        classes.chunks_exact(dim).any(|class| {
            let cosine: f32 = word.iter().zip(class).map(|(a, b)| a * b).sum();
            f64::from(cosine) > limit
        })
    };
    let pairs = words.into_iter().zip(candidates.chunks_exact(dim));
    let (words, rows): (Vec<String>, Vec<&[f32]>) = pairs.filter(|(_, row)| !near(row)).unzip();
    (words, rows.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_left_out() {
        let list = vec!["near".to_string(), "far".to_string()];
        let (words, rows) = far_enough(list, &[1.0, 0.0, 0.0, 1.0], &[1.0, 0.0], 2, 0.95);
        assert_eq!((words, rows), (vec!["far".to_string()], vec![0.0, 1.0]));
    }
}
