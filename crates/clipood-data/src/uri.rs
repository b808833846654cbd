//! Paths as text in tables.
//!
//! A path is stored as it is. One that is not UTF-8, which only Unix has, is stored as `file://` and the path with every
//! byte but letters, digits and `-._~/` as `%NN`, so that it leads to the same file again.

use std::fmt::Write;
use std::path::{Path, PathBuf};

const SCHEME: &str = "file://";

/// The text of a path.
///
/// ```
/// use std::path::Path;
/// use clipood_data::{path_of, uri_of};
///
/// assert_eq!(uri_of(Path::new("data/a\\b\n.png")), "data/a\\b\n.png");
/// assert_eq!(path_of("data/a\\b\n.png"), Path::new("data/a\\b\n.png"));
/// ```
pub fn uri_of(path: &Path) -> String {
    match path.to_str() {
        Some(text) if !text.starts_with(SCHEME) => text.to_string(),
        _ => percent_encoded(path.as_os_str().as_encoded_bytes()),
    }
}

/// The path that [`uri_of`] has turned into text.
pub fn path_of(uri: &str) -> PathBuf {
    match uri.strip_prefix(SCHEME) {
        Some(encoded) => path_of_bytes(percent_decoded(encoded)),
        None => PathBuf::from(uri),
    }
}

fn percent_encoded(bytes: &[u8]) -> String {
    let mut text = SCHEME.to_string();
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(*byte))
            }
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

/// What is no escape stays.
pub(crate) fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let hex = behind
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

#[cfg(unix)]
fn path_of_bytes(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(not(unix))]
fn path_of_bytes(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(all(test, unix))]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_that_is_not_utf8_becomes_a_file_uri() {
        let path = Path::new(OsStr::from_bytes(b"/data/x y/b\xFF%41.png"));
        assert_eq!(uri_of(path), "file:///data/x%20y/b%FF%2541.png");
        assert_eq!(uri_of(Path::new("/data/é/1.png")), "/data/é/1.png");
        assert_eq!(path_of("file://a%4"), Path::new("a%4"));
    }

    proptest! {
        #[test]
        fn every_path_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..20), scheme: bool) {
            let mut all = if scheme { SCHEME.as_bytes().to_vec() } else { Vec::new() };
            all.extend(bytes);
            let path = Path::new(OsStr::from_bytes(&all));
            prop_assert_eq!(path_of(&uri_of(path)), path);
        }
    }
}
