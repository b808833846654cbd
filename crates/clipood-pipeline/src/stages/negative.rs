//! Stage `negative`: texts and images of no class and their features, if a detector needs them. One unit per set.

use std::collections::BTreeSet;

use bytes::Bytes;
use clipood_clip::model::TextEncoder;
use clipood_core::{Method, NegativeLabelsSection, WordListSection};
use clipood_ood::{Matrix, mine_inter_modal_labels, mine_negative_labels};
use clipood_store::{Part, Unit};

use super::claims::share_units;
use super::{ExplainedUnit, Stage};
use crate::error::{PipelineError, Result};
use crate::features::normalise_rows;
use crate::inputs::recorded;
use crate::job::Job;
use crate::negative::{NEGATIVE, PlannedNegatives, TextSet};
use crate::noise::{names, noise_features};
use crate::places::Shelf;
use crate::planned::Planned;
use crate::progress::StageProgress;
use crate::prompts::data::shot_features;
use crate::prompts::file::{PromptSet, prompt_footer, prompt_path};
use crate::prompts::key::PromptKey;

/// Texts that are encoded between two checks for an interruption.
const CHUNK: usize = 1024;

/// See the head of this file.
pub static STAGE: Stage = Stage {
    name: NEGATIVE,
    needs: &["plan", "extract"],
    uses_devices: true,
    ledgers: |_| &[(Shelf::Prompts, NEGATIVE)],
    units: |_, planned| Ok(planned.negatives.iter().map(|n| n.unit.clone()).collect()),
    explained: |_, planned| {
        let units = planned.negatives.iter().map(|negatives| ExplainedUnit {
            name: negatives.set.name(),
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
    let ledger = &job.places.prompts;
    let mut open = Vec::new();
    for negatives in &planned.negatives {
        let (unit, path) = (&negatives.unit, prompt_path(&negatives.unit));
        let stands = ledger.is_done(NEGATIVE, unit)?
            || ledger
                .recover_part(NEGATIVE, unit, &path, &prompt_footer)?
                .is_some();
        if !stands {
            open.push(negatives);
        }
    }
    if open.is_empty() {
        return Ok(());
    }
    let words = &job.experiment.manifests.words;
    let total: usize = words.iter().map(|list| list.words.len()).sum();
    let mut maker = Maker {
        job,
        planned,
        encoder: job.experiment.model.text_encoder(job.worker.device())?,
        progress: job.worker.progress(NEGATIVE, "words", total as u64),
        encoded: Vec::new(),
    };
    let units: Vec<Unit> = open
        .iter()
        .map(|negatives| negatives.unit.clone())
        .collect();
    share_units(job, ledger, NEGATIVE, &units, |place| {
        let negatives = open[place];
        let part = Part {
            path: prompt_path(&negatives.unit),
            bytes: Bytes::from(maker.make(negatives)?.to_bytes()?),
            extra: recorded(&negatives.inputs),
        };
        ledger.commit_part(NEGATIVE, &negatives.unit, part, &prompt_footer)?;
        Ok(())
    })?;
    maker.progress.finish();
    Ok(())
}

/// Texts with their features `[texts, D]`.
#[derive(Debug, Clone, Default)]
struct Texts {
    texts: Vec<String>,
    features: Vec<f32>,
}

impl Texts {
    /// Adds some rows of another.
    fn take(&mut self, other: &Texts, rows: impl IntoIterator<Item = usize>) {
        let dim = other.features.len() / other.texts.len().max(1);
        for row in rows {
            self.texts.push(other.texts[row].clone());
            let features = &other.features[row * dim..(row + 1) * dim];
            self.features.extend_from_slice(features);
        }
    }

    fn matrix<'a>(&'a self, name: &'a str, dim: usize) -> Result<Matrix<'a>> {
        Ok(Matrix::new(name, &self.features, self.texts.len(), dim)?)
    }
}

/// Makes sets, and keeps the words of a list that it has encoded for the next set.
struct Maker<'a> {
    job: &'a Job,
    planned: &'a Planned,
    encoder: TextEncoder,
    progress: StageProgress,
    /// Lists with their words that are no class.
    encoded: Vec<(WordListSection, Texts)>,
}

impl Maker<'_> {
    fn make(&mut self, negatives: &PlannedNegatives) -> Result<PromptSet> {
        let section = &negatives.section;
        let Texts { texts, features } = match &negatives.set {
            TextSet::Plain => self.plain(section)?,
            TextSet::InterModal { shots, seed } => self.inter_modal(section, *shots, *seed)?,
            TextSet::Imagined => self.whole(&section.imagined)?,
            TextSet::Words => self.whole(&section.lists)?,
            TextSet::Noise => {
                let mut features = noise_features(self.job)?;
                normalise_rows(&mut features, self.job.experiment.dim());
                Texts {
                    texts: names(),
                    features,
                }
            }
        };
        Ok(PromptSet {
            fingerprint: negatives.unit.fingerprint.clone(),
            classes: texts,
            text: features,
            state: None,
            probe: None,
            negatives: None,
        })
    }

    /// Features of the class texts, `[classes, D]`, in some templates.
    fn class_texts(&self, templates: &[&str]) -> Result<Vec<f32>> {
        Ok(self
            .encoder
            .classes(&self.planned.plan.classes, templates)?)
    }

    /// The words of a list that are no class, as texts.
    fn words(&mut self, list: &WordListSection) -> Result<Texts> {
        if let Some((_, texts)) = self.encoded.iter().find(|(known, _)| known == list) {
            return Ok(texts.clone());
        }
        let words = &self.job.experiment.manifests.words;
        let Some(words) = words.iter().find(|words| words.name == list.words) else {
            let problem = format!("word list `{}` was not read", list.words);
            return Err(PipelineError::Inconsistent(problem));
        };
        let classes = self.planned.plan.classes.iter();
        let own: BTreeSet<String> = classes.map(|class| class.to_lowercase()).collect();
        let words = words.words.iter();
        let texts: Vec<String> = words
            .filter(|word| !own.contains(&word.to_lowercase()))
            .map(|word| list.text(word))
            .collect();
        let mut features = Vec::with_capacity(texts.len() * self.job.experiment.dim());
        for chunk in texts.chunks(CHUNK) {
            self.job.worker.interrupt.check()?;
            features.extend(self.encoder.classes(chunk, &["{}"])?);
            self.progress.add(chunk.len() as u64);
        }
        let all = Texts { texts, features };
        self.encoded.push((list.clone(), all.clone()));
        Ok(all)
    }

    /// All words of some lists.
    fn whole(&mut self, lists: &[WordListSection]) -> Result<Texts> {
        let mut all = Texts::default();
        for list in lists {
            let words = self.words(list)?;
            all.take(&words, 0..words.texts.len());
        }
        if all.texts.is_empty() {
            let lists: Vec<&str> = lists.iter().map(|list| list.words.as_str()).collect();
            return Err(PipelineError::Usage(format!(
                "word lists `{}`: every word is a class; give other words",
                lists.join("`, `")
            )));
        }
        Ok(all)
    }

    /// The words that are farthest from the classes, then the prompts for the unknown.
    fn plain(&mut self, section: &NegativeLabelsSection) -> Result<Texts> {
        let dim = self.job.experiment.dim();
        let classes = self.planned.plan.classes.len();
        let templates = self.job.experiment.recipe.prompt.templates.templates();
        let class_texts = match section.lists.is_empty() {
            true => Vec::new(),
            false => self.class_texts(&templates)?,
        };
        let mut all = Texts::default();
        for list in &section.lists {
            let candidates = self.far_words(list, section, &class_texts)?;
            let text = Matrix::new("class texts", &class_texts, classes, dim)?;
            let matrix = candidates.matrix("words", dim)?;
            let kept = mine_negative_labels(&text, &matrix, section.quantile, section.keep)?;
            if kept.is_empty() {
                return Err(PipelineError::Usage(format!(
                    "word list `{}`: a share of {} of {} words keeps none; raise negative_labels.keep or give more words",
                    list.words,
                    section.keep,
                    candidates.texts.len()
                )));
            }
            all.take(&candidates, kept.into_iter().map(|row| row as usize));
        }
        let unknown = self.encoder.classes(&section.unknown, &["{}"])?;
        all.features.extend(unknown);
        all.texts.extend(section.unknown.iter().cloned());
        Ok(all)
    }

    /// The words of a list without those that are too near to a class.
    fn far_words(
        &mut self,
        list: &WordListSection,
        section: &NegativeLabelsSection,
        class_texts: &[f32],
    ) -> Result<Texts> {
        let words = self.words(list)?;
        Ok(match section.exclude_above {
            None => words,
            Some(limit) => far_enough(&words, class_texts, self.job.experiment.dim(), limit),
        })
    }

    /// The words that are farther from the shots of every class than the class text is, of each list in proportion.
    fn inter_modal(
        &mut self,
        section: &NegativeLabelsSection,
        shots: usize,
        seed: u64,
    ) -> Result<Texts> {
        let dim = self.job.experiment.dim();
        let key = PromptKey {
            // Any method that learns from shots: only they are read.
            method: Method::Coop,
            shots: Some(shots),
            seed: Some(seed),
        };
        let (features, labels) = shot_features(self.job, self.planned, &key)?;
        let class_texts = self.class_texts(&[section.inter_modal_template()])?;
        let classes = self.planned.plan.classes.len();
        let text = Matrix::new("class texts", &class_texts, classes, dim)?;
        let images = Matrix::new("shots", &features, labels.len(), dim)?;
        let mut lists = Vec::new();
        for list in &section.lists {
            let words = self.far_words(list, section, &class_texts)?;
            let kept =
                mine_inter_modal_labels(&text, &images, &labels, &words.matrix("words", dim)?)?;
            lists.push((words, kept));
        }
        let found: Vec<usize> = lists.iter().map(|(_, kept)| kept.len()).collect();
        if found.iter().sum::<usize>() == 0 {
            return Err(PipelineError::Usage(
                "inter-modal negative labels: no word is farther from the shots of every class than the class text; give more \
                 words, or rule = \"quantile\""
                    .to_string(),
            ));
        }
        let mut all = Texts::default();
        for ((words, kept), share) in lists
            .iter()
            .zip(shares(&found, section.inter_modal_count()))
        {
            let first = kept.iter().take(share);
            all.take(words, first.map(|(row, _)| *row as usize));
        }
        Ok(all)
    }
}

/// How many of the words found in each list to take, in proportion, `count` together if there are as many.
fn shares(found: &[usize], count: usize) -> Vec<usize> {
    let total: usize = found.iter().sum();
    let count = count.min(total);
    let mut shares: Vec<usize> = found
        .iter()
        .map(|found| (*found as u128 * count as u128 / (total as u128).max(1)) as usize)
        .collect();
    // Rounded down; what is left goes to the first lists that have more.
    let mut left = count - shares.iter().sum::<usize>();
    for (share, found) in shares.iter_mut().zip(found) {
        let more = left.min(found - *share).min(1);
        *share += more;
        left -= more;
    }
    shares
}

/// The words whose cosine to every class is at most `limit`.
fn far_enough(words: &Texts, classes: &[f32], dim: usize, limit: f64) -> Texts {
    let near = |word: &[f32]| {
        classes.chunks_exact(dim).any(|class| {
            let cosine: f32 = word.iter().zip(class).map(|(a, b)| a * b).sum();
            f64::from(cosine) > limit
        })
    };
    let rows = words.features.chunks_exact(dim).enumerate();
    let far = rows.filter(|(_, row)| !near(row)).map(|(place, _)| place);
    let mut kept = Texts::default();
    kept.take(words, far);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_left_out() {
        let list = Texts {
            texts: vec!["near".to_string(), "far".to_string()],
            features: vec![1.0, 0.0, 0.0, 1.0],
        };
        let kept = far_enough(&list, &[1.0, 0.0], 2, 0.95);
        assert_eq!(kept.texts, ["far"]);
        assert_eq!(kept.features, [0.0, 1.0]);
    }

    #[test]
    fn lists_share_the_count_in_proportion() {
        assert_eq!(shares(&[30, 10], 20), [15, 5]);
        assert_eq!(shares(&[3, 3, 3], 5), [2, 2, 1]);
        assert_eq!(shares(&[3, 0], 2000), [3, 0]);
        assert_eq!(shares(&[0, 0], 5), [0, 0]);
    }
}
