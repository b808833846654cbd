//! docs/ARCHITECTURE.md names files and functions: they exist. README.md and README.zh-CN.md say the same.

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

/// The code blocks of a page, without comments and the spaces before them; the marks of their languages come first.
fn code_blocks(page: &str) -> Vec<Vec<String>> {
    let mut blocks = Vec::new();
    let mut open: Option<Vec<String>> = None;
    for line in page.lines() {
        match (&mut open, line.starts_with("```")) {
            (None, true) => open = Some(vec![line.to_string()]),
            (Some(_), true) => blocks.extend(open.take()),
            (Some(block), false) => {
                // `#:schema` is a directive, not a comment.
                let comment = line.match_indices('#').find(|(at, _)| {
                    let before = line[..*at].chars().next_back();
                    before.is_none_or(char::is_whitespace) && !line[*at..].starts_with("#:")
                });
                let end = comment.map_or(line.len(), |(at, _)| at);
                block.push(line[..end].trim_end().to_string());
            }
            (None, false) => {}
        }
    }
    assert_eq!(open, None, "a code block that is not closed");
    blocks
}

/// What the rows of a page's tables hold whatever the language: the texts between backticks, and numbers.
fn figures(page: &str) -> Vec<Vec<String>> {
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let figures = rows.map(|row| {
        let numbers = row
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(|word| word.contains(|c: char| c.is_ascii_digit()));
        let mut all: Vec<String> = numbers.chain(quoted(row)).map(str::to_string).collect();
        all.sort();
        all
    });
    figures.collect()
}

#[test]
fn the_chinese_readme_has_the_commands_and_figures_of_the_english_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let (english, chinese) = (page("README.md"), page("README.zh-CN.md"));
    let blocks = code_blocks(&english);
    assert!(blocks.len() > 15, "only {} code blocks", blocks.len());
    assert_eq!(code_blocks(&chinese), blocks);
    let rows = figures(&english);
    assert!(rows.len() > 50, "only {} rows", rows.len());
    for (own, other) in figures(&chinese).iter().zip(&rows) {
        assert_eq!(own, other);
    }
    assert_eq!(figures(&chinese).len(), rows.len());
    let headings = |page: &str| page.lines().filter(|line| line.starts_with("##")).count();
    assert_eq!(headings(&chinese), headings(&english));
    for (page, other) in [(&english, "README.zh-CN.md"), (&chinese, "README.md")] {
        let mut first = page.lines().take(5);
        assert!(first.any(|line| line.contains(&format!("]({other})"))));
    }
}
