//! Text files that a user names: their encoding, their line ends and their size.
//!
//! Texts are UTF-8. What other programs put around the text is taken off: the byte order mark of Windows editors and
//! spreadsheets, and the line ends of Windows and of the old Mac OS. Text in another encoding is refused with the name of
//! the encoding, because a wrong guess would silently become another class name.

use std::io;
use std::path::Path;

use crate::error::{CoreError, Place};
use crate::files::read_file;

/// The largest text file that is read, in bytes. The noun file of WordNet has 15 MB.
pub const TEXT_LIMIT: u64 = 256 << 20;

/// The byte order mark.
const MARK: char = '\u{feff}';

/// A text file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file that is missing, is no regular file, is too large, or that the system does not give.
    #[error("cannot read {path}")]
    File {
        /// The path.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// A file that is not UTF-8.
    #[error(transparent)]
    Encoding(#[from] CoreError),
}

impl TextError {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a text file of at most [`TEXT_LIMIT`] bytes, as [`decode_text`] does.
///
/// # Errors
/// As [`read_file`] and [`decode_text`].
pub fn read_text(path: &Path) -> Result<String, TextError> {
    let origin = path.display().to_string();
    let bytes = read_file(path, TEXT_LIMIT).map_err(|source| TextError::File {
        path: origin.clone(),
        source,
    })?;
    Ok(decode_text(bytes, &origin)?)
}

/// The text in `bytes`: UTF-8, without byte order marks at the head of a line (concatenated files have several), every
/// line end a line feed. `origin` (the path of the file) names it in errors.
///
/// # Errors
/// [`CoreError::Syntax`] with the line of the first byte that is not text, and the likely encoding: UTF-16 or UTF-32,
/// Windows-1252 or Latin-1, or no text at all.
pub fn decode_text(bytes: Vec<u8>, origin: &str) -> Result<String, CoreError> {
    let wrong = |line: Option<usize>, message: String| CoreError::Syntax {
        place: Place {
            origin: origin.to_string(),
            line,
        },
        message,
    };
    if let Some(name) = wide_encoding(&bytes) {
        let message = format!("found {name} text, expected UTF-8; {}", convert(name));
        return Err(wrong(None, message));
    }
    if let Some(name) = container(&bytes) {
        return Err(wrong(None, format!("found {name}, expected a text file")));
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let bad = error.utf8_error().valid_up_to();
            let bytes = error.as_bytes();
            let line = line_of(&bytes[..bad]);
            let message = format!(
                "found byte 0x{:02X}{}, expected UTF-8; if the text is in Windows-1252 or Latin-1, {}",
                bytes[bad],
                after(&bytes[..bad]),
                convert("WINDOWS-1252")
            );
            return Err(wrong(Some(line), message));
        }
    };
    if let Some(at) = text.find('\0') {
        let line = line_of(&text.as_bytes()[..at]);
        let message = "found a NUL byte, expected a text file".to_string();
        return Err(wrong(Some(line), message));
    }
    Ok(plain(text))
}

/// Takes off byte order marks and foreign line ends.
fn plain(text: String) -> String {
    let text = match text.contains('\r') {
        true => text.replace("\r\n", "\n").replace('\r', "\n"),
        false => text,
    };
    if !text.contains(MARK) {
        return text;
    }
    let lines = text.split('\n').map(|line| line.trim_start_matches(MARK));
    lines.collect::<Vec<_>>().join("\n")
}

/// The name of an encoding with more than one byte per letter, as `iconv` knows it: by the byte order mark, or else
/// because nearly all letters of the first bytes have a NUL on the same side.
fn wide_encoding(bytes: &[u8]) -> Option<&'static str> {
    for (mark, name) in [
        (&[0xFF, 0xFE, 0, 0][..], "UTF-32"),
        (&[0, 0, 0xFE, 0xFF], "UTF-32"),
        (&[0xFF, 0xFE], "UTF-16"),
        (&[0xFE, 0xFF], "UTF-16"),
    ] {
        if bytes.starts_with(mark) {
            return Some(name);
        }
    }
    let head = &bytes[..bytes.len().min(1 << 10)];
    let pairs = head.chunks_exact(2);
    let count = pairs.len();
    let nuls = |side: usize| pairs.clone().filter(|pair| pair[side] == 0).count();
    let (high, low) = (nuls(0), nuls(1));
    if count == 0 || (high + low) * 2 < count {
        return None;
    }
    match (high, low) {
        (0, _) => Some("UTF-16LE"),
        (_, 0) => Some("UTF-16BE"),
        _ => None,
    }
}

/// Files of other kinds that are taken for texts by mistake.
fn container(bytes: &[u8]) -> Option<&'static str> {
    [
        (
            &b"PK\x03\x04"[..],
            "a zip file (or a spreadsheet, which is one)",
        ),
        (b"\x1f\x8b", "a gzip file"),
        (b"PAR1", "a Parquet file"),
        (b"\x93NUMPY", "a NumPy array"),
    ]
    .into_iter()
    .find(|(head, _)| bytes.starts_with(head))
    .map(|(_, name)| name)
}

fn convert(encoding: &str) -> String {
    format!("`iconv -f {encoding} -t UTF-8` converts it")
}

/// Line of the byte that follows `before`, counted from 1.
fn line_of(before: &[u8]) -> usize {
    let mut line = 1;
    for (at, byte) in before.iter().enumerate() {
        let ends = match byte {
            b'\n' => true,
            b'\r' => before.get(at + 1) != Some(&b'\n'),
            _ => false,
        };
        line += usize::from(ends);
    }
    line
}

/// The last letters before a bad byte, on its line.
fn after(before: &[u8]) -> String {
    let before = String::from_utf8_lossy(before);
    let line = before.rsplit(['\n', '\r']).next().unwrap_or_default();
    let skipped = line.chars().count().saturating_sub(20);
    match line.chars().skip(skipped).collect::<String>() {
        tail if tail.is_empty() => String::new(),
        tail => format!(" after `{}`", tail.trim_start_matches(MARK)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(bytes: &[u8]) -> Result<String, String> {
        decode_text(bytes.to_vec(), "c.txt").map_err(|error| error.to_string())
    }

    #[test]
    fn marks_and_foreign_line_ends_are_taken_off() {
        assert_eq!(
            decoded("\u{feff}star\r\nfish\r\n".as_bytes()).unwrap(),
            "star\nfish\n"
        );
        assert_eq!(decoded(b"star\rfish\r").unwrap(), "star\nfish\n");
        // Two files that were concatenated.
        assert_eq!(
            decoded("\u{feff}star\n\u{feff}fish".as_bytes()).unwrap(),
            "star\nfish"
        );
        // Within a line it is a letter without width.
        assert_eq!(decoded("a\u{feff}b".as_bytes()).unwrap(), "a\u{feff}b");
        assert_eq!(decoded(b"").unwrap(), "");
        assert_eq!(decoded("\u{feff}".as_bytes()).unwrap(), "");
    }

    #[test]
    fn other_encodings_are_named() {
        let wide = |text: &str, order: fn(u16) -> [u8; 2]| -> Vec<u8> {
            text.encode_utf16().flat_map(order).collect()
        };
        for (bytes, name) in [
            (wide("\u{feff}star\n", u16::to_le_bytes), "UTF-16"),
            (wide("\u{feff}star\n", u16::to_be_bytes), "UTF-16"),
            (wide("star\nfish\n", u16::to_le_bytes), "UTF-16LE"),
            (wide("star\nfish\n", u16::to_be_bytes), "UTF-16BE"),
            (vec![0xFF, 0xFE, 0, 0, b's', 0, 0, 0], "UTF-32"),
        ] {
            assert_eq!(
                decoded(&bytes).unwrap_err(),
                format!(
                    "c.txt: found {name} text, expected UTF-8; `iconv -f {name} -t UTF-8` converts it"
                )
            );
        }
        assert_eq!(
            decoded(b"star\r\nfish\rcaf\xE9\r\n").unwrap_err(),
            "c.txt:3: found byte 0xE9 after `caf`, expected UTF-8; if the text is in Windows-1252 or Latin-1, \
             `iconv -f WINDOWS-1252 -t UTF-8` converts it"
        );
        assert!(
            decoded(b"\xE9")
                .unwrap_err()
                .starts_with("c.txt:1: found byte 0xE9, expected")
        );
    }

    #[test]
    fn what_is_no_text_is_named() {
        assert_eq!(
            decoded(b"star\nfi\0sh").unwrap_err(),
            "c.txt:2: found a NUL byte, expected a text file"
        );
        assert!(
            decoded(b"PK\x03\x04rest")
                .unwrap_err()
                .contains("a zip file")
        );
        assert!(
            decoded(b"\x1f\x8b\x08")
                .unwrap_err()
                .contains("a gzip file")
        );
        assert!(
            decoded(b"PAR1\x15\x04")
                .unwrap_err()
                .contains("a Parquet file")
        );
    }

    #[test]
    fn files_are_read_up_to_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.txt");
        std::fs::write(&path, "\u{feff}star\r\n").unwrap();
        assert_eq!(read_text(&path).unwrap(), "star\n");
        let gone = read_text(&folder.path().join("gone.txt")).unwrap_err();
        assert!(gone.is_missing());
        assert!(gone.to_string().starts_with("cannot read "), "{gone}");
        let error = read_text(folder.path()).unwrap_err();
        assert!(!error.is_missing());
        // A sparse file: nothing of it is held.
        let long = std::fs::File::create(&path).unwrap();
        long.set_len(TEXT_LIMIT + 1).unwrap();
        let TextError::File { source, .. } = read_text(&path).unwrap_err() else {
            panic!("expected an error of the file");
        };
        assert_eq!(source.kind(), io::ErrorKind::FileTooLarge);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decoded(&bytes);
        }

        #[test]
        fn text_without_marks_and_carriage_returns_is_kept(text in "[^\0\r\u{feff}]{3,40}") {
            prop_assert_eq!(decoded(text.as_bytes()).unwrap(), text);
        }
    }
}
