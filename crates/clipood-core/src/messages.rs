//! Texts with several lines that are safe to print.

use std::fmt::Write;

/// The text with control characters other than line breaks and tabs escaped as `\\xNN`: a message may hold the name of a
/// file, an error of a server or a line of a recipe, and none of them may move the cursor of a terminal.
///
/// ```
/// assert_eq!(clipood_core::without_controls("a\u{1b}[2Jb\nc"), "a\\x1B[2Jb\nc");
/// ```
pub fn without_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() && !matches!(c, '\n' | '\t') {
            // Writing to a string cannot fail.
            true => {
                let _ = write!(out, "\\x{:02X}", u32::from(c));
            }
            false => out.push(c),
        }
    }
    out
}
