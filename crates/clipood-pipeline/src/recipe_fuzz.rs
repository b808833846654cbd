//! Randomly mutated recipes, up to the score columns: the result is a usage error or columns, never a panic.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::path::Path;

use clipood_core::Recipe;
use proptest::prelude::*;

use crate::columns::score_columns;

/// The recipes of the repository.
fn recipes() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    paths.sort();
    let read = |path| std::fs::read_to_string(path).unwrap();
    let texts: Vec<String> = paths.into_iter().map(read).collect();
    assert!(!texts.is_empty());
    texts
}

/// Words from recipes, inserted at wrong places.
const WORDS: [&str; 20] = [
    "0",
    "-1",
    "1e308",
    "nan",
    "18446744073709551615",
    "9223372036854775807",
    "[]",
    "\"\"",
    "\"mcm:t=0\"",
    "\"mcm:t=nan\"",
    "\"=:=\"",
    "\"knn:k=-1\"",
    "\"vim:dim=99999999\"",
    "\"dual_pattern_base=mcm\"",
    "[\"mcm\", \"mcm\"]",
    "[\"dpcoop\", \"sct\"]",
    "{}",
    "true",
    "\"é\\u0000\"",
    "[[1], [2]]",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn mutated_recipes_never_panic(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..4, any::<prop::sample::Index>()), 1..5),
    ) {
        let texts = recipes();
        let mut lines: Vec<String> = which.get(&texts).lines().map(String::from).collect();
        for (at, kind, word) in &edits {
            if lines.is_empty() {
                break;
            }
            let at = at.index(lines.len());
            match kind {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[at].clone()),
                2 => {
                    let other = word.index(lines.len());
                    lines.swap(at, other);
                }
                // Another value under the same key.
                _ => {
                    let value = word.get(&WORDS);
                    if let Some((key, _)) = lines[at].split_once('=') {
                        lines[at] = format!("{key}= {value}");
                    }
                }
            }
        }
        let text = lines.join("\n");
        match Recipe::parse(&text, "r.toml") {
            Err(error) => prop_assert!(error.to_string().starts_with("r.toml"), "{}", error),
            Ok(recipe) => match score_columns(&recipe) {
                Ok((columns, _)) => prop_assert!(columns.len() >= recipe.detectors.len()),
                Err(error) => prop_assert_eq!(error.exit_code(), 2, "{}", error),
            },
        }
    }
}
