//! What happens to a text before it is cut into words.

use super::fix_text::fix_text;
use super::html::unescape;

/// Cleans `text` as CLIP's tokenizer does: mends broken encodings as `ftfy.fix_text` does, resolves HTML character
/// references twice, collapses white space to single spaces, trims, and turns to lower case.
///
/// ```
/// # use clipood_clip::tokenizer::clean_text;
/// assert_eq!(clean_text(" A schÃ¶ne  &amp;lt;Katze&amp;gt;\n"), "a schöne <katze>");
/// ```
pub fn clean_text(text: &str) -> String {
    let text = fix_text(text);
    let text = unescape(&text);
    let text = unescape(&text);
    let mut collapsed = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !collapsed.is_empty() {
            collapsed.push(' ');
        }
        collapsed.push_str(word);
    }
    collapsed.to_lowercase()
}

/// Whether cleaning `text` can change only its case and white space: ASCII, nothing that starts a character reference,
/// no control characters but white space (the vertical tab is one that `ftfy` removes).
pub(super) fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\x0c' | b'\r') && byte != b'&')
}
