//! Names of files as text that is safe to print and to store: a name may hold any byte but a slash and zero.

use std::ffi::OsStr;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Longest path in a message, in characters; of a longer one the middle is left out.
const LONGEST: usize = 600;

/// A path as messages print it: control characters, characters that turn the direction of writing, and bytes that are not
/// UTF-8 are escaped as `\xNN`, so that the name of a file can neither move the cursor of a terminal nor begin a line. The
/// middle of a very long path is left out.
pub fn shown(path: impl AsRef<OsStr>) -> String {
    let text = escaped(path.as_ref(), |c| c.is_control() || turns_direction(c));
    let length = text.chars().count();
    if length <= LONGEST {
        return text;
    }
    let start: String = text.chars().take(LONGEST / 2).collect();
    let end: String = text.chars().skip(length - LONGEST / 2).collect();
    format!("{start} [...] {end}")
}

/// The name of a file or folder as a component of an image key: control characters, backslashes and bytes that are not UTF-8
/// are escaped as `\xNN`, everything else stays. As every backslash is escaped, different names stay different.
///
/// ```
/// assert_eq!(clipood_core::key_part("great tit.jpg".as_ref()), "great tit.jpg");
/// assert_eq!(clipood_core::key_part("a\nb\\c.png".as_ref()), r"a\x0Ab\x5Cc.png");
/// ```
pub fn key_part(name: &OsStr) -> String {
    escaped(name, |c| c.is_control() || c == '\\')
}

/// A path as a table stores it: the path itself if it is UTF-8, else with escapes as in [`shown`].
pub fn stored(path: &Path) -> String {
    match path.to_str() {
        Some(text) => text.to_string(),
        None => escaped(path.as_os_str(), char::is_control),
    }
}

/// The path that [`stored`] gave this text. Of a text that is the name of an existing file this is the file.
///
/// ```
/// # use std::path::{Path, PathBuf};
/// assert_eq!(clipood_core::unstored("a/b.png"), Path::new("a/b.png"));
/// ```
pub fn unstored(text: &str) -> PathBuf {
    let path = PathBuf::from(text);
    if !text.contains("\\x") || path.symlink_metadata().is_ok() {
        return path;
    }
    from_bytes(unescaped(text)).unwrap_or(path)
}

/// The bytes of a text in which some are written as `\xNN`.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after
            .get(..2)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = match byte {
            Some(byte) => {
                bytes.push(byte);
                &after[2..]
            }
            None => {
                bytes.extend_from_slice(b"\\x");
                after
            }
        };
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

#[cfg(unix)]
fn from_bytes(bytes: Vec<u8>) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    Some(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn from_bytes(bytes: Vec<u8>) -> Option<PathBuf> {
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

/// A number of things in words: `1 image`, `2 images`.
///
/// ```
/// assert_eq!(clipood_core::counted(1, "image", "images"), "1 image");
/// assert_eq!(clipood_core::counted(0, "image", "images"), "0 images");
/// ```
pub fn counted(count: usize, one: &str, several: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {several}"),
    }
}

/// The first `most` of `count` names, and how many others there are.
///
/// ```
/// let names = ["ant", "bee", "cat", "dog"].map(str::to_string);
/// assert_eq!(clipood_core::first_of(names, 4, 2), "ant, bee and 2 more");
/// ```
pub fn first_of(names: impl IntoIterator<Item = String>, count: usize, most: usize) -> String {
    let mut text = names.into_iter().take(most).collect::<Vec<_>>().join(", ");
    if count > most {
        // Writing to a string cannot fail.
        let _ = write!(text, " and {} more", count - most);
    }
    text
}

fn escaped(text: &OsStr, escapes: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let escape = |out: &mut String, bytes: &[u8]| {
        for byte in bytes {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\x{byte:02X}");
        }
    };
    for chunk in text.as_encoded_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match escapes(c) {
                true => escape(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes()),
                false => out.push(c),
            }
        }
        escape(&mut out, chunk.invalid());
    }
    out
}

/// Embeddings, overrides and isolates of bidirectional text, with which a name can be shown backwards.
fn turns_direction(c: char) -> bool {
    matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{200E}' | '\u{200F}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        assert_eq!(shown("a/é 猫.png"), "a/é 猫.png");
        assert_eq!(shown("\u{1b}[2Jx\r\n"), r"\x1B[2Jx\x0D\x0A");
        assert_eq!(shown("a\u{9b}b"), r"a\xC2\x9Bb");
        assert_eq!(shown("gpj.\u{202e}exe"), r"gpj.\xE2\x80\xAEexe");
        let long = format!("{}{}", "a/".repeat(2000), "z.png");
        let text = shown(&long);
        assert!(text.len() < 700 && text.ends_with("a/z.png"), "{text}");
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_not_utf8_are_escaped() {
        use std::os::unix::ffi::OsStrExt;
        let name = OsStr::from_bytes(b"b\xFF.png");
        assert_eq!(shown(name), r"b\xFF.png");
        assert_eq!(key_part(name), r"b\xFF.png");
        assert_eq!(stored(Path::new(name)), r"b\xFF.png");
        assert_eq!(unstored(r"b\xFF.png"), Path::new(name));
        // A file whose name looks like the escape has another key.
        assert_eq!(key_part(OsStr::new(r"b\xFF.png")), r"b\x5CxFF.png");
    }

    #[cfg(unix)]
    #[test]
    fn a_stored_path_is_found_again() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        for name in [
            &b"a\xFF\n.png"[..],
            br"b\xFF.png",
            br"c\x.png",
            b"\xFE\\x+f",
            "d猫.png".as_bytes(),
        ] {
            let path = folder.path().join(OsStr::from_bytes(name));
            std::fs::write(&path, name).unwrap();
            assert_eq!(unstored(&stored(&path)), path);
        }
    }

    proptest! {
        #[test]
        fn different_names_have_different_key_parts(a in "[a\\\\xF05C\n]{0,6}", b in "[a\\\\xF05C\n]{0,6}") {
            let same = key_part(OsStr::new(&a)) == key_part(OsStr::new(&b));
            prop_assert_eq!(same, a == b);
        }
    }
}
