//! Word lists that negative labels are mined from: one word per line, or the data files of WordNet.

use std::collections::BTreeSet;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use clipood_core::text_file::{TextError, read_text};
use clipood_core::{Recipe, nearest};
use serde::{Deserialize, Serialize};

use crate::builtin;
use crate::error::{PipelineError, Result};

/// A word list as it was read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WordList {
    /// Its name in the recipe.
    pub name: String,
    /// The distinct words, in the order of the file.
    pub words: Vec<String>,
}

/// The word lists of a recipe, from `folder`: `NAME.txt` with one word per line, or a data file of WordNet
/// (`data.noun`, `data.adj`) by its file name.
///
/// # Errors
/// A list that is missing or empty.
pub fn read_word_lists(recipe: &Recipe, folder: &Path) -> Result<Vec<WordList>> {
    let Some(section) = &recipe.negative_labels else {
        return Ok(Vec::new());
    };
    let mut lists: Vec<WordList> = Vec::new();
    for list in section.lists.iter().chain(&section.imagined) {
        let name = &list.words;
        if lists.iter().any(|other| other.name == *name) {
            continue;
        }
        let own = folder.join(format!("{name}.txt"));
        let path = if own.is_file() {
            own
        } else {
            let beside = folder.join(name);
            installed(name)
                .filter(|_| !beside.is_file())
                .unwrap_or(beside)
        };
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(TextError::File { source, .. }) => match builtin::words(name) {
                Some(text) if source.kind() == ErrorKind::NotFound => text.to_string(),
                _ => return Err(unreadable(folder, name, &path, &source)),
            },
            Err(error) => return Err(error.into()),
        };
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

/// A data file of WordNet, such as `data.noun`, where WordNet is installed: the folders that its own programs look in, then
/// those of Debian's package `wordnet-base` and of Princeton's archives.
fn installed(name: &str) -> Option<PathBuf> {
    name.strip_prefix("data.")?;
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let folders = [
        variable("WNSEARCHDIR"),
        variable("WNHOME").map(|home| home.join("dict")),
        Some(PathBuf::from("/usr/share/wordnet")),
        Some(PathBuf::from("/usr/local/WordNet-3.0/dict")),
        Some(PathBuf::from("/usr/local/share/wordnet")),
    ];
    let files = folders
        .into_iter()
        .flatten()
        .map(|folder| folder.join(name));
    files.into_iter().find(|file| file.is_file())
}

fn unreadable(folder: &Path, name: &str, path: &Path, error: &Error) -> PipelineError {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = files.filter_map(|entry| entry.file_name().into_string().ok());
    let names: Vec<String> = files
        .map(|file| {
            let name = file.strip_suffix(".txt");
            name.map_or(file.clone(), str::to_owned)
        })
        .chain(builtin::words_names().map(String::from))
        .collect();
    let close = nearest(name, names.iter().map(String::as_str));
    let hint = close.map_or(String::new(), |close| format!("; did you mean `{close}`?"));
    PipelineError::Usage(format!(
        "word list `{name}`: cannot read {}.txt or {}: {error}{hint}",
        folder.join(name).display(),
        path.display()
    ))
}

/// The distinct words of a list with one word per line, or the synonyms of a WordNet data file, `_` read as a space.
fn words(text: &str) -> Vec<String> {
    // The lines of WordNet's licence begin with two spaces and a number.
    let wordnet = text.starts_with("  1 ");
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    let mut add = |word: &str| {
        // Adjectives may have a syntactic marker: `galore(ip)`.
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
            // offset, file, part of speech, hexadecimal word count, then words and senses alternately
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
}
