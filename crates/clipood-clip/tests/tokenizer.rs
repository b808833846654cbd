//! The tokenizer against the original's ids, and its promises for every text.

use clipood_clip::tokenizer::{
    CONTEXT_LENGTH, EOT, SOT, TokenizeError, Tokenizer, VOCAB_SIZE, clean_text,
};
use proptest::prelude::*;
use std::sync::LazyLock;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::new);

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    #[serde(default)]
    truncate: bool,
}

fn cases(json: &str) -> Vec<Case> {
    serde_json::from_str(json).expect("reference values are JSON")
}

#[test]
fn framed_ids_equal_the_reference() {
    let cases = cases(include_str!("data/tokenizer.json"));
    assert!(
        cases.iter().any(|case| case.truncate),
        "no case is too long"
    );
    for Case {
        text,
        ids,
        truncate,
    } in cases
    {
        assert_eq!(
            TOKENIZER.tokenize_truncate(&text, CONTEXT_LENGTH),
            ids,
            "{text:?}"
        );
        match TOKENIZER.tokenize(&text, CONTEXT_LENGTH) {
            Ok(whole) => assert_eq!((whole, truncate), (ids, false), "{text:?}"),
            Err(_) => assert!(truncate, "{text:?} fits"),
        }
    }
}

#[test]
fn ids_of_difficult_texts_equal_the_reference() {
    let mut wrong = Vec::new();
    for Case { text, ids, .. } in cases(include_str!("data/tokenizer_reference.json")) {
        if TOKENIZER.encode(&text) != ids {
            wrong.push((TOKENIZER.decode(&ids), clean_text(&text), text));
        }
    }
    assert!(wrong.is_empty(), "expected, found, text: {wrong:#?}");
}

#[test]
fn a_long_text_is_an_error_that_names_it() {
    let text = "word ".repeat(100);
    let error = TOKENIZER
        .tokenize(&text, 77)
        .expect_err("102 tokens do not fit");
    let TokenizeError::TooLong {
        text: start,
        tokens,
        context_length,
    } = &error;
    assert_eq!(
        (start.chars().count(), *tokens, *context_length),
        (80, 102, 77)
    );
    assert!(error.to_string().contains("102 tokens"), "{error}");

    assert_eq!(
        TOKENIZER.tokenize(&text, 102).expect("fits exactly")[101],
        EOT
    );
    assert_eq!(TOKENIZER.tokenize("", 2), Ok(vec![SOT, EOT]));
    assert!(TOKENIZER.tokenize("", 1).is_err());
    assert_eq!(TOKENIZER.tokenize_truncate("cat", 1), [EOT]);
    assert!(TOKENIZER.tokenize_truncate("cat", 0).is_empty());
}

#[test]
fn symbols_and_text_of_ids() {
    assert_eq!(TOKENIZER.token_text(2368), Some("cat</w>"));
    assert_eq!(TOKENIZER.token_text(SOT), Some("<|startoftext|>"));
    assert_eq!(TOKENIZER.token_text(EOT), Some("<|endoftext|>"));
    assert_eq!(TOKENIZER.token_text(VOCAB_SIZE as u32), None);
    assert_eq!(
        TOKENIZER.decode(&TOKENIZER.encode("Café 猫!")),
        "café 猫 ! "
    );
    assert_eq!(
        TOKENIZER.decode(&[SOT, 2368, EOT]),
        "<|startoftext|>cat <|endoftext|>"
    );
    assert_eq!(
        TOKENIZER.decode(&[2368, VOCAB_SIZE as u32, u32::MAX]),
        "cat "
    );
    // The first byte of a Chinese character by itself is no UTF-8.
    let half = TOKENIZER.encode("猫")[0];
    assert!(TOKENIZER.decode(&[half]).contains('\u{FFFD}'));
}

/// Text as it comes, and text dense with what the cleaning looks for.
fn any_text() -> impl Strategy<Value = String> {
    let dense = proptest::collection::vec(
        prop_oneof![
            proptest::char::range('\0', '\u{17F}'),
            proptest::char::range('\u{370}', '\u{460}'),
            proptest::char::range('\u{2010}', '\u{2040}'),
            proptest::sample::select(
                "ÃÂâ€™œ�\u{1A}\u{1B}[;m&#x4f<|'ſ?àíðВГвЂ \n\r"
                    .chars()
                    .collect::<Vec<_>>()
            ),
        ],
        0..60,
    );
    prop_oneof![any::<String>(), dense.prop_map(String::from_iter)]
}

proptest! {
    #[test]
    fn any_text_gives_a_framed_row(text in any_text(), context in 2usize..100) {
        let ids = TOKENIZER.tokenize_truncate(&text, context);
        prop_assert_eq!(ids.len(), context);
        prop_assert_eq!(ids[0], SOT);
        let whole = TOKENIZER.encode(&text);
        prop_assert!(whole.iter().all(|&id| (id as usize) < VOCAB_SIZE));
        let kept = whole.len().min(context - 2);
        prop_assert_eq!(&ids[1..=kept], &whole[..kept]);
        prop_assert_eq!(ids[kept + 1], EOT);
        prop_assert!(ids[kept + 2..].iter().all(|&id| id == 0));
        prop_assert_eq!(TOKENIZER.tokenize(&text, context).is_ok(), whole.len() + 2 <= context);
    }

    #[test]
    fn any_ids_decode(ids in proptest::collection::vec(any::<u32>().prop_map(|id| id % 50_000), 0..40)) {
        let known: Vec<u32> = ids.iter().copied().filter(|&id| (id as usize) < VOCAB_SIZE).collect();
        prop_assert_eq!(TOKENIZER.decode(&ids), TOKENIZER.decode(&known));
    }

    #[test]
    fn plain_words_survive(words in proptest::collection::vec("[a-z]{1,20}", 0..20)) {
        let text = words.join("  ");
        let decoded = TOKENIZER.decode(&TOKENIZER.encode(&text.to_uppercase()));
        prop_assert_eq!(decoded.trim_end(), words.join(" "));
        prop_assert_eq!(clean_text(&text), words.join(" "));
    }

    /// A delete character is removed by the full cleaning, but keeps a text from the short way for plain ones.
    #[test]
    fn the_short_way_for_plain_text_changes_nothing(text in "[ -%'-~\t\n\x0C\r]{0,60}") {
        prop_assert_eq!(TOKENIZER.encode(&text), TOKENIZER.encode(&format!("{text}\x7F")));
    }
}
