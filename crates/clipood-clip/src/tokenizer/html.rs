//! HTML character references, by the two rules that CLIP's cleaning mixes: Python's `html.unescape` (the HTML standard's,
//! longest known prefix, semicolon optional) and `ftfy`'s (only unambiguous references).

use std::borrow::Cow;

use htmlize::ENTITIES;

use super::code_pages::WINDOWS_1252;

/// Longest name, in characters, that the standard's rule looks at.
const LONGEST_NAME: usize = 32;
/// Longest name or number, in characters, that `ftfy` looks at.
const LONGEST_STRICT: usize = 24;

/// Resolves references as Python's `html.unescape` does: `&lt;`, `&lt`, `&notit;` (= `¬it;`), `&#233;`, `&#xe9`.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    replace_references(text, |rest| match rest.strip_prefix('#') {
        Some(number) => {
            let (code, length) = numeric(number)?;
            Some((
                character(code).map(String::from).unwrap_or_default(),
                1 + length,
            ))
        }
        None => named(rest),
    })
}

/// Resolves references as `ftfy` does: only with their semicolon, and also all-capital forms of lower-case names
/// (`&EACUTE;` = `É`) where the standard knows no such name.
pub(super) fn unescape_strict(text: &str) -> Cow<'_, str> {
    replace_references(text, |rest| {
        let digits = rest.strip_prefix('#').unwrap_or(rest);
        let length = digits.find(|c: char| !c.is_ascii_alphanumeric())?;
        if !(1..=LONGEST_STRICT).contains(&length) || !digits[length..].starts_with(';') {
            return None;
        }
        let end = rest.len() - digits.len() + length + 1;
        if rest.starts_with('#') {
            let (code, consumed) = numeric(digits)?;
            let resolved = character(code);
            // `ftfy` leaves the reference alone if a semicolon stays, which a reference to the semicolon itself does.
            let whole = consumed == length + 1 && resolved != Some(';');
            return whole.then(|| (resolved.map(String::from).unwrap_or_default(), end));
        }
        let name = &rest[..end];
        if let Some(known) = entity(name) {
            return Some((known.to_owned(), end));
        }
        let capital_form = name == name.to_ascii_uppercase() && longest_prefix(name).is_none();
        let small = if capital_form {
            entity(&name.to_ascii_lowercase())
        } else {
            None
        };
        small.map(|known| (known.to_uppercase(), end))
    })
}

/// References to `&` in a row that stay for the usual rounds when [`shorten_ampersands`] skips some.
const KEPT: usize = 3;

/// `after`, which [`unescape_strict`] made of `before`, as it is after as many more rounds as change nothing but chains of
/// ampersands (`&amp;amp;amp;lt;`), each of which loses one reference a round. If this round did anything else, `after` itself.
pub(super) fn shorten_ampersands(before: &str, after: String) -> String {
    // Whether a round does nothing else is seen from the chains alone: each is shortened, and the rest is the same.
    let Some(rounds) = chains(before).map(|(_, ends)| ends.len()).min() else {
        return after;
    };
    if rounds <= KEPT + 1 || without_references(before, 1) != after {
        return after;
    }
    without_references(&after, rounds - 1 - KEPT)
}

/// `text` with the first `count` references of each chain gone.
fn without_references(text: &str, count: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut kept_to = 0;
    for (start, ends) in chains(text) {
        let Some(end) = count.checked_sub(1).and_then(|last| ends.get(last)) else {
            continue;
        };
        out.push_str(&text[kept_to..start]);
        kept_to = *end;
    }
    out.push_str(&text[kept_to..]);
    out
}

/// Chains of references to `&` in `text`: where the first one starts, behind its `&`, and where each of them ends.
fn chains(text: &str) -> impl Iterator<Item = (usize, Vec<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + text[at..].find('&')? + 1;
            let mut end = start;
            let mut ends = Vec::new();
            while let Some(length) = ampersand(&text[end..]) {
                end += length;
                ends.push(end);
            }
            at = end;
            if !ends.is_empty() {
                return Some((start, ends));
            }
        }
    })
}

/// Length of the reference to `&` at the start of `text`, which follows another `&`.
fn ampersand(text: &str) -> Option<usize> {
    let length = text
        .bytes()
        .take(LONGEST_STRICT + 2)
        .position(|byte| byte == b';')?;
    let (name, reference) = (&text[..length], &text[..=length]);
    let is_ampersand = match name.strip_prefix('#') {
        Some(number) => numeric(number) == Some((u32::from('&'), number.len())),
        None => entity(reference) == Some("&"),
    };
    is_ampersand.then_some(length + 1)
}

/// Calls `resolve` with the text after each `&`; it answers with the replacement and how many bytes after the `&` it
/// stands for.
fn replace_references(
    text: &str,
    resolve: impl Fn(&str) -> Option<(String, usize)>,
) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match resolve(rest) {
            Some((replacement, length)) => {
                out.push_str(&replacement);
                rest = &rest[length..];
            }
            None => out.push('&'),
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Code and length in bytes (semicolon included) of the number at the start of `text`, which follows `&#`.
fn numeric(text: &str) -> Option<(u32, usize)> {
    let (digits, radix) = match text.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let length = digits
        .find(|c: char| !c.is_digit(radix))
        .unwrap_or(digits.len());
    if length == 0 {
        return None;
    }
    // Too many digits are a code above Unicode's last one, whatever they are.
    let code = u32::from_str_radix(&digits[..length], radix).unwrap_or(u32::MAX);
    let semicolon = usize::from(digits[length..].starts_with(';'));
    Some((code, text.len() - digits.len() + length + semicolon))
}

/// Character of a numeric reference; `None` where Python's rule answers with an empty text.
fn character(code: u32) -> Option<char> {
    match code {
        0 => Some('\u{fffd}'),
        // Windows-1252, for these codes were written by programs that meant it.
        0x80..=0x9f => WINDOWS_1252.upper().nth(code as usize - 0x80),
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef => None,
        _ if code & 0xfffe == 0xfffe && code <= 0x10_ffff => None,
        _ => Some(char::from_u32(code).unwrap_or('\u{fffd}')),
    }
}

/// The longest known name at the start of `text`, which follows `&`, by the standard's rule.
fn named(text: &str) -> Option<(String, usize)> {
    let stops = |c: char| matches!(c, '\t' | '\n' | '\x0c' | ' ' | '<' | '&' | '#' | ';');
    let mut end = text
        .char_indices()
        .take(LONGEST_NAME)
        .take_while(|(_, c)| !stops(*c))
        .last()
        .map(|(at, c)| at + c.len_utf8())?;
    end += usize::from(text[end..].starts_with(';'));
    longest_prefix(&text[..end])
}

/// The longest start of `name` that is a known entity, at least two characters long unless it is all of `name`.
fn longest_prefix(name: &str) -> Option<(String, usize)> {
    // Known names are ASCII, so nothing from the first other character on can belong to one.
    let ascii = name.find(|c: char| !c.is_ascii()).unwrap_or(name.len());
    (2..=ascii)
        .rev()
        .find_map(|end| entity(&name[..end]).map(|known| (known.to_owned(), end)))
}

/// Text of the entity `name` (without `&`, with its semicolon if it has one).
fn entity(name: &str) -> Option<&'static str> {
    let mut key = Vec::with_capacity(name.len() + 1);
    key.push(b'&');
    key.extend_from_slice(name.as_bytes());
    ENTITIES
        .get(key.as_slice())
        .and_then(|text| std::str::from_utf8(text).ok())
}
