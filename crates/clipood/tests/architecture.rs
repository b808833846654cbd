//! docs/ARCHITECTURE.md names files and functions: they exist.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::path::Path;

/// The texts between backticks, in order.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_file_and_function_of_the_map_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/ARCHITECTURE.md")).unwrap();
    let mut functions = 0;
    for section in page.split("\n## ") {
        let mut source: Option<(&str, String)> = None;
        for word in quoted(section) {
            if word.starts_with("crates/") {
                let path = root.join(word);
                assert!(path.exists(), "no {word}");
                source = path
                    .is_file()
                    .then(|| (word, std::fs::read_to_string(path).unwrap()));
            } else if section.starts_with("The life of")
                && let Some((file, text)) = &source
                && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                && word.contains(|c: char| c.is_ascii_lowercase())
            {
                // Names of commands are lower-case words as well; they stand behind no file alone.
                let defined =
                    text.contains(&format!("fn {word}(")) || text.contains(&format!("fn {word}<"));
                let is_command = [
                    "detect",
                    "threshold",
                    "encode",
                    "similarity",
                    "regions",
                    "bench",
                ]
                .contains(&word);
                assert!(defined || is_command, "{file} defines no function `{word}`");
                functions += usize::from(defined);
            }
        }
    }
    assert!(functions > 25, "only {functions} functions are named");
}
