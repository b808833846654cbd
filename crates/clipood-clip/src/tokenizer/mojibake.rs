//! Mending text whose UTF-8 bytes were read in another encoding: `schÃ¶n` was `schön`. The steps and their order are those
//! of `ftfy` 6.3 (<https://github.com/rspeer/python-ftfy>), which the original tokenizer calls.

use std::sync::LazyLock;

use regex::bytes::Regex;

use super::badness::is_bad;
use super::code_pages::{
    CP437, CodePage, ISO_8859_2, LATIN_1, MAC_ROMAN, WINDOWS_1250, WINDOWS_1251, WINDOWS_1252,
    WINDOWS_1253, WINDOWS_1254, WINDOWS_1257,
};

/// Encodings that may have been taken for UTF-8, likeliest first.
static CANDIDATES: [&CodePage; 10] = [
    &LATIN_1,
    &WINDOWS_1252,
    &WINDOWS_1251,
    &WINDOWS_1250,
    &WINDOWS_1253,
    &WINDOWS_1254,
    &WINDOWS_1257,
    &ISO_8859_2,
    &MAC_ROMAN,
    &CP437,
];

/// Mends `text` until nothing looks broken or nothing can be mended.
pub(super) fn fix_encoding(mut text: String) -> String {
    while let Some(fixed) = fix_once(&text) {
        text = fixed;
    }
    text
}

/// Windows-1252 character of a C1 control, as browsers read it; any other character is itself.
pub(super) fn fix_c1(c: char) -> char {
    match c {
        '\u{80}'..='\u{9F}' => WINDOWS_1252.upper().nth(c as usize - 0x80).unwrap_or(c),
        _ => c,
    }
}

/// One mended layer; `None` if `text` needs none or none is found.
fn fix_once(text: &str) -> Option<String> {
    if text.is_ascii() || !is_bad(text) {
        return None;
    }
    for page in CANDIDATES {
        let decoded = page
            .encode(text)
            .and_then(|bytes| decode_utf8(&mend_bytes(page, bytes)));
        if let Some(fixed) = decoded {
            return Some(fixed).filter(|fixed| fixed != text);
        }
    }
    let fixed = fix_embedded(text);
    if fixed != text {
        return Some(fixed);
    }
    // What is left are single control characters that Windows-1252 has letters and punctuation for. `ftfy` prefers a
    // strict reading of a text that is all Latin-1, and falls back to this one, which gives the same where both work.
    let fixed: String = text.chars().map(fix_c1).collect();
    (fixed != text).then_some(fixed)
}

/// Puts back bytes that other programs are known to have replaced, where UTF-8 shows which.
fn mend_bytes(page: &CodePage, mut bytes: Vec<u8>) -> Vec<u8> {
    // In MacRoman the byte before the space would be an en dash, which often has a space behind it.
    if !std::ptr::eq(page, &MAC_ROMAN) {
        bytes = restore_no_break_spaces(&bytes);
    }
    if page.lossy {
        replace_lost(&bytes)
    } else {
        bytes
    }
}

/// UTF-8 in which byte A0 became a plain space.
fn restore_no_break_spaces(bytes: &[u8]) -> Vec<u8> {
    static ALTERED: LazyLock<Regex> = LazyLock::new(|| {
        byte_regex(
            r"[\xC2\xC3\xC5\xCE\xD0\xD9]\x20|[\xE2\xE3]\x20[\x80-\x84\x86-\x9F\xA1-\xBF]|[\xE0-\xE3][\x80-\x84\x86-\x9F\xA1-\xBF]\x20|\xF0\x20[\x80-\xBF]{2}|\xF0[\x80-\xBF]\x20[\x80-\xBF]|\xF0[\x80-\xBF]{2}\x20",
        )
    });
    let bytes = separate_a_grave(bytes);
    ALTERED
        .replace_all(&bytes, |found: &regex::bytes::Captures<'_>| {
            found[0]
                .iter()
                .map(|&byte| if byte == b' ' { 0xA0 } else { byte })
                .collect::<Vec<u8>>()
        })
        .into_owned()
}

/// `Ã la mode` was `à la mode`: the space after byte C3 is both half of the letter and the gap to the next word, unless
/// the word is one of the Portuguese contractions that start with `à`.
fn separate_a_grave(bytes: &[u8]) -> Vec<u8> {
    const CONTINUED: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        out.push(first);
        if first == 0xC3
            && let Some(word) = tail.strip_prefix(b" ")
            && !CONTINUED.iter().any(|start| word.starts_with(start))
        {
            out.extend_from_slice(b"\xA0 ");
            rest = word;
        } else {
            rest = tail;
        }
    }
    out
}

/// UTF-8 and CESU-8 sequences with bytes lost (0x1A, or one `?`) become U+FFFD, and so does a lost byte by itself.
fn replace_lost(bytes: &[u8]) -> Vec<u8> {
    static LOSSY: LazyLock<Regex> = LazyLock::new(|| {
        byte_regex(
            r"[\xC2-\xDF]\x1A|[\xC2-\xC3]\?|\xED[\xA0-\xAF][\x1A?]\xED[\xB0-\xBF][\x1A?\x80-\xBF]|\xED[\xA0-\xAF][\x1A?\x80-\xBF]\xED[\xB0-\xBF][\x1A?]|[\xE0-\xEF][\x1A?][\x1A\x80-\xBF]|[\xE0-\xEF][\x1A\x80-\xBF][\x1A?]|[\xF0-\xF4][\x1A?][\x1A\x80-\xBF]{2}|[\xF0-\xF4][\x1A\x80-\xBF][\x1A?][\x1A\x80-\xBF]|[\xF0-\xF4][\x1A\x80-\xBF]{2}[\x1A?]|\x1A",
        )
    });
    LOSSY.replace_all(bytes, "\u{FFFD}".as_bytes()).into_owned()
}

fn byte_regex(pattern: &str) -> Regex {
    // The patterns are constants, and the tests on mojibake run both.
    Regex::new(&format!("(?-u){pattern}")).expect("constant pattern is valid")
}

/// Decodes UTF-8 and two variants of it: surrogate pairs encoded one by one (CESU-8), and `C0 80` for U+0000 (Java).
fn decode_utf8(bytes: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        let valid = match std::str::from_utf8(rest) {
            Ok(tail) => {
                out.push_str(tail);
                return Some(out);
            }
            Err(error) => error.valid_up_to(),
        };
        let (head, tail) = rest.split_at(valid);
        out.push_str(std::str::from_utf8(head).ok()?);
        let (c, length) = match *tail {
            // The reference's pattern for a sequence cut off at the end also takes a last line end for the end, and then
            // swallows it as the missing byte.
            [0xC0, 0x80, ..] | [0xC0, b'\n'] => ('\0', 2),
            [
                0xED,
                b1 @ 0xA0..=0xAF,
                b2 @ 0x80..=0xBF,
                0xED,
                b4 @ 0xB0..=0xBF,
                b5,
                ref after @ ..,
            ] if matches!(b5, 0x80..=0xBF) || (b5 == b'\n' && after.is_empty()) => {
                let bits = |byte: u8, mask: u8, shift: u32| u32::from(byte & mask) << shift;
                let code =
                    bits(b1, 0x0F, 16) + bits(b2, 0x3F, 10) + bits(b4, 0x0F, 6) + bits(b5, 0x3F, 0);
                (char::from_u32(0x1_0000 + code)?, 6)
            }
            _ => return None,
        };
        out.push(c);
        rest = &tail[length..];
    }
}

/// Which characters an encoding shows for the bytes of a UTF-8 sequence.
struct Clues {
    /// Sorted characters of the first bytes of sequences of 2, 3 and 4.
    first: [Vec<char>; 3],
    /// Sorted characters of the other bytes, and the space that a no-break space may have become.
    continuation: Vec<char>,
    /// Those without the punctuation that often stands beside mojibake without being part of it.
    continuation_strict: Vec<char>,
}

static CLUES: LazyLock<Clues> = LazyLock::new(|| {
    // All candidates that agree with Latin-1 on where letters are.
    let pages = [
        &LATIN_1,
        &WINDOWS_1250,
        &WINDOWS_1251,
        &WINDOWS_1252,
        &WINDOWS_1253,
        &WINDOWS_1254,
        &WINDOWS_1257,
    ];
    let sorted = |mut characters: Vec<char>| {
        characters.sort_unstable();
        characters.dedup();
        characters
    };
    let of = |range: std::ops::RangeInclusive<u8>| -> Vec<char> {
        pages
            .iter()
            .flat_map(|page| page.characters(range.clone()))
            .collect()
    };
    let mut continuation = of(0x80..=0xBF);
    let continuation_strict = continuation
        .iter()
        .copied()
        .filter(|c| !"–—―‘’‚“”„•…".contains(*c))
        .collect();
    continuation.push(' ');
    Clues {
        // First bytes of four other than F0 and F3 lead to characters that do not exist.
        first: [
            sorted(of(0xC2..=0xDF)),
            sorted(of(0xE0..=0xEF)),
            sorted([of(0xF0..=0xF0), of(0xF3..=0xF3)].concat()),
        ],
        continuation: sorted(continuation),
        continuation_strict: sorted(continuation_strict),
    }
});

/// Mends runs that look like misread UTF-8 inside a text that as a whole fits no single encoding.
fn fix_embedded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before_is_part = false;
    while let Some(c) = rest.chars().next() {
        let length = if before_is_part {
            0
        } else {
            run_of_sequences(rest)
        };
        let (piece, tail) = rest.split_at(if length > 0 { length } else { c.len_utf8() });
        // Only a part of the text is looked at alone, or this would go on for ever.
        if length > 0 && length < text.len() && is_bad(piece) {
            out.push_str(&fix_encoding(piece.to_owned()));
        } else {
            out.push_str(piece);
        }
        before_is_part = piece
            .chars()
            .next_back()
            .is_some_and(|last| CLUES.continuation_strict.binary_search(&last).is_ok());
        rest = tail;
    }
    out
}

/// Length in bytes of the run of misread UTF-8 sequences at the start of `text`.
fn run_of_sequences(text: &str) -> usize {
    let sequence = |text: &str| -> usize {
        let mut characters = text.chars();
        let Some(first) = characters.next() else {
            return 0;
        };
        (0..CLUES.first.len())
            .filter(|&kind| CLUES.first[kind].binary_search(&first).is_ok())
            .find_map(|kind| {
                let tail: Vec<char> = text.chars().skip(1).take(kind + 1).collect();
                let whole = tail.len() == kind + 1
                    && tail
                        .iter()
                        .all(|c| CLUES.continuation.binary_search(c).is_ok());
                whole.then(|| first.len_utf8() + tail.iter().map(|c| c.len_utf8()).sum::<usize>())
            })
            .unwrap_or(0)
    };
    let mut length = 0;
    loop {
        match sequence(&text[length..]) {
            0 => return length,
            more => length += more,
        }
    }
}
