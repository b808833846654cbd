//! Cutting a cleaned text into words, as CLIP's pattern does:
//! `<|startoftext|>`, `<|endoftext|>`, `'s 't 're 've 'm 'll 'd`, a run of letters, one digit, a run of anything else.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Letter,
    Number,
    Other,
}

/// The words of `text`, in order. White space separates and is dropped.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c| class(c) == Class::Space);
        let first = rest.chars().next()?;
        let end = match class(first) {
            Class::Number => first.len_utf8(),
            Class::Other => special(rest)
                .or_else(|| contraction(rest))
                .unwrap_or_else(|| run(rest, Class::Other)),
            kind => run(rest, kind),
        };
        let (word, tail) = rest.split_at(end);
        rest = tail;
        Some(word)
    })
}

/// Length in bytes of the run of `kind` at the start of `text`.
fn run(text: &str, kind: Class) -> usize {
    text.find(|c| class(c) != kind).unwrap_or(text.len())
}

/// Length of the special token at the start of `text`.
fn special(text: &str) -> Option<usize> {
    if !text.starts_with("<|") {
        return None;
    }
    ["<|startoftext|>", "<|endoftext|>"]
        .into_iter()
        .find_map(|token| prefix(text, token))
}

/// Length of the contraction at the start of `text`.
fn contraction(text: &str) -> Option<usize> {
    if !text.starts_with('\'') {
        return None;
    }
    ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"]
        .into_iter()
        .find_map(|token| prefix(text, token))
}

/// Length in bytes of the start of `text` that equals `token`. The pattern ignores case; in lower-case text that
/// matters for one character only: the long s equals s.
fn prefix(text: &str, token: &str) -> Option<usize> {
    let mut length = 0;
    let mut characters = text.chars();
    for wanted in token.chars() {
        let found = characters.next()?;
        if found != wanted && !(found == 'ſ' && wanted == 's') {
            return None;
        }
        length += found.len_utf8();
    }
    Some(length)
}

fn class(c: char) -> Class {
    match c {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => Class::Number,
        '\t'..='\r' | ' ' => Class::Space,
        '\0'..='\x7f' => Class::Other,
        // The reference's pattern, ignoring case, counts it neither as a letter nor as anything else and so skips it.
        '\u{345}' => Class::Space,
        _ if c.is_whitespace() => Class::Space,
        _ => match c.general_category_group() {
            GeneralCategoryGroup::Letter => Class::Letter,
            GeneralCategoryGroup::Number => Class::Number,
            _ => Class::Other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The original's pattern, run by a regex engine, finds the same words.
        #[test]
        fn words_are_those_of_the_pattern(
            pieces in proptest::collection::vec(
                prop_oneof![
                    "[a-zéßſ字ひа ]{0,4}",
                    "[0-9٣½ⅷ]{0,3}",
                    "[!?<|>'’_😀\u{301}\u{a0}\u{3000}]{0,3}",
                    "'(s|ſ|t|re|r|ve|m|ll|l|d)",
                    "(<\\||)(ſ|s)tartoftext\\|>",
                    "<\\|endoftext(\\|>)?",
                ],
                0..8,
            )
        ) {
            let text = pieces.concat();
            let pattern = regex::Regex::new(
                r"(?i)<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+",
            )
            .expect("pattern is valid");
            let expected: Vec<&str> = pattern.find_iter(&text).map(|found| found.as_str()).collect();
            prop_assert_eq!(words(&text).collect::<Vec<_>>(), expected);
        }
    }
}
