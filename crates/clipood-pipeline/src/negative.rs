//! Texts of no class: negative labels mined from word lists (NegLabel), and prompts for the unknown.
//!
//! Jiang et al., ICLR 2024: each list (nouns, adjectives) is filled into its template, and the words that are farthest from
//! the classes are kept. What CSP (Chen et al., NeurIPS 2024) does beyond that is a list of adjectives in templates of
//! superclasses ("a photo of a {} creature"), and words too near to a class left out: `exclude_above`.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use clipood_core::{FingerprintBuilder, NegativeLabelsSection, Recipe, nearest};
use clipood_ood::{DetectorSpec, Matrix, Negatives, mine_negative_labels};
use clipood_store::{Part, Unit};
use serde::{Deserialize, Serialize};

use crate::error::{PipelineError, Result};
use crate::job::{Job, RESULTS_VERSION};
use crate::plan::Plan;
use crate::prompts::{PromptSet, prompt_footer};

/// Stage in the ledger of prompts.
const STAGE: &str = "negative";
/// Texts encoded between two looks at the interrupt.
const CHUNK: usize = 1024;

/// A list of words as it was read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WordList {
    /// Its name in the recipe.
    pub name: String,
    /// In the order of the file, each once.
    pub words: Vec<String>,
}

/// Features of texts that are of no class, each `[texts, D]`, normalised.
#[derive(Debug, Clone, Default)]
pub struct NegativeTexts {
    /// Mined labels, the farthest first.
    pub labels: Vec<f32>,
    /// Prompts for the unknown.
    pub unknown: Vec<f32>,
}

impl NegativeTexts {
    /// The texts that a detector is fitted on, if it takes any.
    pub fn of(&self, spec: &DetectorSpec) -> Option<&[f32]> {
        match spec.needs().negatives? {
            Negatives::Mined => Some(&self.labels),
            Negatives::Unknown => Some(&self.unknown),
        }
    }
}

/// The word lists of a recipe, from `folder`: `NAME.txt` with one word a line, or a file of WordNet (`data.noun`,
/// `data.adj`) by its own name.
///
/// # Errors
/// A list that is not there or holds nothing.
pub fn read_word_lists(recipe: &Recipe, folder: &Path) -> Result<Vec<WordList>> {
    let Some(section) = &recipe.negative_labels else {
        return Ok(Vec::new());
    };
    let mut lists: Vec<WordList> = Vec::new();
    for list in &section.lists {
        let name = &list.words;
        if lists.iter().any(|other| other.name == *name) {
            continue;
        }
        let own = folder.join(format!("{name}.txt"));
        let path = if own.is_file() {
            own
        } else {
            folder.join(name)
        };
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let names: Vec<String> = names
                .filter_map(|entry| entry.file_name().into_string().ok())
                .map(|file| {
                    file.strip_suffix(".txt")
                        .map_or(file.clone(), str::to_owned)
                })
                .collect();
            let close = nearest(name, names.iter().map(String::as_str));
            let hint = close.map_or(String::new(), |close| format!("; did you mean `{close}`?"));
            PipelineError::Usage(format!(
                "word list `{name}`: cannot read {}.txt or {}: {error}{hint}",
                folder.join(name).display(),
                path.display()
            ))
        })?;
        let words = words(&text);
        if words.is_empty() {
            let problem = format!("word list `{name}`: {} holds no word", path.display());
            return Err(PipelineError::Usage(problem));
        }
        lists.push(WordList {
            name: name.clone(),
            words,
        });
    }
    Ok(lists)
}

/// One word a line, or the synonyms of WordNet's data files, each once, `_` read as a space.
fn words(text: &str) -> Vec<String> {
    // WordNet's licence is indented by two spaces and numbered.
    let wordnet = text.starts_with("  1 ");
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    let mut add = |word: &str| {
        // Adjectives carry their syntax: `galore(ip)`.
        let word = word.split('(').next().unwrap_or_default();
        let word = word.replace('_', " ").trim().to_string();
        if !word.is_empty() && seen.insert(word.to_lowercase()) {
            all.push(word);
        }
    };
    for line in text.lines() {
        if !wordnet {
            if !line.starts_with('#') {
                add(line);
            }
        } else if !line.starts_with("  ") {
            // offset, file, part of speech, count in hexadecimal digits, then word and sense in turns
            let mut fields = line.split(' ').skip(3);
            let count = fields
                .next()
                .and_then(|n| usize::from_str_radix(n, 16).ok());
            for word in fields.step_by(2).take(count.unwrap_or(0)) {
                add(word);
            }
        }
    }
    all
}

/// The section of a recipe whose detectors ask for texts of no class: its own, or the defaults.
///
/// # Errors
/// `neglabel` without a word list.
pub fn section(job: &Job) -> Result<Option<NegativeLabelsSection>> {
    let mut wanted = false;
    for column in &job.columns {
        for method in &job.recipe.methods {
            match column
                .spec(*method)?
                .and_then(|spec| spec.needs().negatives)
            {
                Some(Negatives::Mined) if job.words.is_empty() => {
                    return Err(PipelineError::Usage(format!(
                        "recipe `{}`: detector `{}` needs words: [[negative_labels.lists]] with words = \"NAME\"",
                        job.recipe.name, column.name
                    )));
                }
                Some(Negatives::Mined | Negatives::Unknown) => wanted = true,
                None => {}
            }
        }
    }
    let own = || job.recipe.negative_labels.clone().unwrap_or_default();
    Ok(wanted.then(own))
}

/// The unit of a run's texts of no class, if a detector asks for them.
///
/// # Errors
/// As [`section`].
pub fn negative_unit(job: &Job, plan: &Plan) -> Result<Option<Unit>> {
    let Some(section) = section(job)? else {
        return Ok(None);
    };
    let fingerprint = FingerprintBuilder::new(STAGE)
        .field("results", &RESULTS_VERSION)
        .field("model", &job.model.hash)
        .field("backend", &job.devices.backend())
        .field("section", &section)
        .field("words", &job.words)
        .field("classes", &plan.classes)
        .finish()?
        .to_string();
    Ok(Some(Unit {
        key: fingerprint[..24].to_string(),
        fingerprint,
    }))
}

/// The texts' features, from the store or made and kept there.
///
/// # Errors
/// As [`section`]; an interruption, a word list of which nothing is left, a store that cannot be written.
pub fn negative_texts(job: &Job, plan: &Plan) -> Result<NegativeTexts> {
    let (Some(unit), Some(section)) = (negative_unit(job, plan)?, section(job)?) else {
        return Ok(NegativeTexts::default());
    };
    let path = format!("{}/prompt.safetensors", unit.fingerprint);
    let store = job.prompts.store();
    let set = match store.get(&path)? {
        Some(bytes) => PromptSet::from_bytes(&bytes, &store.display(&path))?,
        None => {
            let (texts, features) = make(job, plan, &section)?;
            let set = PromptSet {
                fingerprint: unit.fingerprint.clone(),
                classes: texts,
                text: features,
                state: None,
                probe: None,
            };
            let part = Part {
                path,
                bytes: Bytes::from(set.to_bytes()?),
                extra: Default::default(),
            };
            job.prompts
                .commit_part(STAGE, &unit, part, &prompt_footer)?;
            set
        }
    };
    let dim = job.model.config.embed_dim;
    let mut labels = set.text;
    let unknown = labels.split_off(labels.len().saturating_sub(section.unknown.len() * dim));
    Ok(NegativeTexts { labels, unknown })
}

/// Texts and features: the mined labels, then the prompts for the unknown.
fn make(
    job: &Job,
    plan: &Plan,
    section: &NegativeLabelsSection,
) -> Result<(Vec<String>, Vec<f32>)> {
    let dim = job.model.config.embed_dim;
    let encoder = job.model.text_encoder(job.device)?;
    let total: usize = job.words.iter().map(|list| list.words.len()).sum();
    let mut progress = job.stage(STAGE, "words", total as u64);
    let (mut texts, mut features) = (Vec::new(), Vec::new());
    for list in &section.lists {
        let Some(words) = job.words.iter().find(|words| words.name == list.words) else {
            let problem = format!("word list `{}` was not read", list.words);
            return Err(PipelineError::Inconsistent(problem));
        };
        let template = [list.template.as_str()];
        let own: BTreeSet<String> = plan.classes.iter().map(|c| c.to_lowercase()).collect();
        let words: Vec<String> = (words.words.iter())
            .filter(|word| !own.contains(&word.to_lowercase()))
            .cloned()
            .collect();
        let classes = encoder.classes(&plan.classes, &template)?;
        let mut candidates = Vec::with_capacity(words.len() * dim);
        for chunk in words.chunks(CHUNK) {
            job.interrupt.check()?;
            candidates.extend(encoder.classes(chunk, &template)?);
            progress.add(chunk.len() as u64);
        }
        let (words, candidates) = match section.exclude_above {
            None => (words, candidates),
            Some(limit) => far_enough(words, &candidates, &classes, dim, limit),
        };
        let text = Matrix::new("class texts", &classes, plan.classes.len(), dim)?;
        let matrix = Matrix::new("words", &candidates, words.len(), dim)?;
        let kept = mine_negative_labels(&text, &matrix, section.quantile, section.keep)?;
        if kept.is_empty() {
            return Err(PipelineError::Usage(format!(
                "word list `{}`: the share {} of {} words is none; raise negative_labels.keep or give more words",
                list.words,
                section.keep,
                words.len()
            )));
        }
        for row in kept {
            let row = row as usize;
            texts.push(list.template.replace("{}", &words[row]));
            features.extend_from_slice(&candidates[row * dim..(row + 1) * dim]);
        }
    }
    progress.finish();
    features.extend(encoder.classes(&section.unknown, &["{}"])?);
    texts.extend(section.unknown.iter().cloned());
    Ok((texts, features))
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
    fn words_come_from_plain_lists_and_from_wordnet() {
        assert_eq!(
            words("# a list\nswan\nice_cream\n\nSwan\n"),
            ["swan", "ice cream"]
        );
        let wordnet = "  1 This software and database is being provided to you\n  2 as is\n\
            00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 | that which exists\n\
            00014490 00 a 02 abundant 0 galore(ip) 0 001 & 00013887 a 0000 | plenty\n\
            00002137 03 n 02 abstraction 0 abstract_entity 0 010 @ 00001740 n 0000 | a concept\n";
        assert_eq!(
            words(wordnet),
            [
                "entity",
                "abundant",
                "galore",
                "abstraction",
                "abstract entity"
            ]
        );
        assert!(words("# nothing\n\n").is_empty());
    }

    #[test]
    fn near_words_are_left_out() {
        let list = vec!["near".to_string(), "far".to_string()];
        let (words, rows) = far_enough(list, &[1.0, 0.0, 0.0, 1.0], &[1.0, 0.0], 2, 0.95);
        assert_eq!((words, rows), (vec!["far".to_string()], vec![0.0, 1.0]));
    }
}
