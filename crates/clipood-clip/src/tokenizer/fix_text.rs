//! `ftfy.fix_text` with its default settings: broken encodings, HTML references, ligatures, widths, quotes, line ends,
//! terminal escapes, control characters and NFC, repeated until nothing changes.

use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use super::html::{shorten_ampersands, unescape_strict};
use super::mojibake::{fix_c1, fix_encoding};

/// Longest piece, in characters, that is mended as a whole.
const LONGEST_SEGMENT: usize = 1_000_000;

/// Most rounds over a piece of text. Each resolves one level of references, and levels of ampersands (`&amp;amp;`) are skipped,
/// so that only a text made for it needs more: what is left then stays, and the time stays proportional to the text's length.
const MAX_ROUNDS: usize = 1000;

/// Mends `text` line by line.
pub(super) fn fix_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut unescape = true;
    let mut rest = text;
    while !rest.is_empty() {
        let line = rest.find('\n').map_or(rest.len(), |at| at + 1);
        let longest = rest[..line]
            .char_indices()
            .nth(LONGEST_SEGMENT)
            .map_or(line, |(at, _)| at);
        let (segment, tail) = rest.split_at(longest);
        // A literal < shows that this is HTML whose references are meant, from here on.
        unescape &= !segment.contains('<');
        out.push_str(&fix_segment(segment, unescape));
        rest = tail;
    }
    out
}

fn fix_segment(segment: &str, unescape: bool) -> String {
    in_rounds(segment, unescape, shorten_ampersands)
}

/// Mends a piece in rounds; `skip` is asked for the text that follows as many rounds later as it wants to skip, where a round
/// did nothing but resolve references (its first argument is the text before the round, its second the text after it).
fn in_rounds(segment: &str, unescape: bool, skip: fn(&str, String) -> String) -> String {
    let mut text = segment.to_owned();
    for _ in 0..MAX_ROUNDS {
        let before = text.clone();
        if unescape {
            text = unescape_strict(&text).into_owned();
        }
        let unescaped = text.clone();
        text = remove_terminal_escapes(&unify_characters(&fix_encoding(text)));
        text.retain(|c| !is_removed(c));
        if !text.is_ascii() {
            text = text.nfc().collect();
        }
        if text == before {
            break;
        }
        if unescape && text == unescaped {
            text = skip(&before, text);
        }
    }
    text
}

/// C1 controls, ligatures, widths, quotes and line ends, each as its usual form.
fn unify_characters(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let c = fix_c1(c);
        match c {
            // A carriage return before a line feed is part of the same line end.
            '\r' => {
                characters.next_if_eq(&'\n');
                out.push('\n');
            }
            '\u{2028}' | '\u{2029}' => out.push('\n'),
            '\u{02BC}' | '\u{2018}'..='\u{201B}' => out.push('\''),
            '\u{201C}'..='\u{201F}' => out.push('"'),
            '\u{3000}' => out.push(' '),
            '\u{FF01}'..='\u{FFEF}' => out.extend(std::iter::once(c).nfkc()),
            _ => match ligature(c) {
                Some(letters) => out.push_str(letters),
                None => out.push(c),
            },
        }
    }
    out
}

/// Letters of a Latin ligature or of a digraph that has a code for its encoding's sake.
fn ligature(c: char) -> Option<&'static str> {
    Some(match c {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        // With its apostrophe made straight, as all quotes are.
        'ŉ' => "'n",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

/// Removes ANSI escapes such as those that colour a terminal's text.
fn remove_terminal_escapes(text: &str) -> String {
    // The pattern is constant, and the tests run it.
    static ESCAPE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\x1B\[[\d;]*[a-zA-Z]").expect("constant pattern is valid"));
    ESCAPE.replace_all(text, "").into_owned()
}

/// Characters that show nothing: ASCII controls but white space, deprecated Arabic controls, byte-order mark,
/// annotation and object marks.
fn is_removed(c: char) -> bool {
    matches!(c, '\0'..='\x08' | '\x0B' | '\x0E'..='\x1F' | '\x7F' | '\u{206A}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFC}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Levels of references and what surrounds them.
    fn nested() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            (1usize..14, "(lt;|eacute;|Atilde;|copy;|para;|#233;|x|¶| |)")
                .prop_map(|(levels, end)| format!("&{}{end}", "amp;".repeat(levels))),
            (1usize..14, "(#38;|#x26;|AMP;|amp;)")
                .prop_map(|(levels, reference)| format!("&{}", reference.repeat(levels))),
            "(é|Ã¶|Ã|©|â€|a|;|&|#|amp;| )",
        ];
        proptest::collection::vec(piece, 0..7).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn skipped_rounds_change_nothing(text in nested()) {
            let every_round = in_rounds(&text, true, |_, after| after);
            prop_assert_eq!(fix_segment(&text, true), every_round);
        }
    }
}
