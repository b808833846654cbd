//! Long and deeply nested texts: each megabyte would take hours if the work grew with the square of the length.

use std::sync::LazyLock;

use clipood_clip::tokenizer::{Tokenizer, clean_text};

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::new);

/// Bytes of a long text: just below the million characters that are mended as a whole.
const LONG: usize = 999_900;

#[test]
fn nested_references_of_a_megabyte_are_resolved_to_their_end() {
    for (reference, end, expected) in [
        ("amp;", "", "&"),
        ("amp;", "lt;b", "<b"),
        ("#38;", "eacute;", "é"),
        ("#x26;", "amp;", "&"),
        ("AMP;", "cat", "&cat"),
        ("amp;#38;", "hearts;", "♥"),
    ] {
        let chain = format!("&{}{end}", reference.repeat(LONG / reference.len()));
        assert_eq!(clean_text(&chain), expected, "{reference} {end}");
        let ids = TOKENIZER.encode(&chain);
        assert_eq!(ids, TOKENIZER.encode(expected), "{reference} {end}");
    }
    // Beside text that is mended, and several chains of different lengths.
    let chain = |levels: usize| format!("&{}", "amp;".repeat(levels));
    let text = format!("schÃ¶n {}quot; {}gt; é", chain(100_000), chain(50_000));
    assert_eq!(clean_text(&text), "schön \" > é");
}

#[test]
fn many_short_lines_and_marks_of_a_megabyte_are_cleaned() {
    assert_eq!(clean_text(&"é\n".repeat(LONG / 3)).len(), LONG / 3 * 3 - 1);
    let text = "&".repeat(LONG);
    assert_eq!(clean_text(&text), text);
    let marks = "\u{301}\u{323}".repeat(LONG / 4);
    assert!(!TOKENIZER.encode(&format!("a{marks}")).is_empty());
}

#[test]
fn words_of_a_megabyte_are_merged() {
    // The same pieces over and over, so that the ids of the whole are those of its parts but for the word's end.
    let word = "antidisestablishment".repeat(LONG / 20);
    let ids = TOKENIZER.encode(&word);
    assert_eq!(TOKENIZER.decode(&ids).trim_end(), word);
    let symbols = "!?".repeat(LONG / 2);
    assert_eq!(
        TOKENIZER.decode(&TOKENIZER.encode(&symbols)).trim_end(),
        symbols
    );
}
