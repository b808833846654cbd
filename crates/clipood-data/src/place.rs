//! Reading what lies at a place: a path of this machine or a URL.

use std::io::{BufRead, Error, ErrorKind, Result};
use std::path::Path;

use clipood_core::files::read_file;
use clipood_core::is_url;
use clipood_core::text_file::decode_text;

use crate::byte_file::ByteFile;
use crate::remote::Object;

/// Largest text that is read whole: class lists.
const MAX_TEXT: u64 = 1 << 26;

/// Reads a small text in any encoding that [`decode_text`] knows.
///
/// # Errors
/// A file that cannot be read, [`ErrorKind::InvalidData`] for one that is no text.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = match is_url(path) {
        true => Object::of(path)?.read(MAX_TEXT)?.to_vec(),
        false => read_file(path, MAX_TEXT)?,
    };
    decode_text(bytes, &path.display().to_string())
        .map_err(|error| Error::new(ErrorKind::InvalidData, error.to_string()))
}

/// BLAKE3 hash of the bytes of a file or object, which are not held together.
///
/// # Errors
/// A file that cannot be read.
pub fn content_hash(path: &Path) -> Result<blake3::Hash> {
    let mut reader = ByteFile::open(path)?.reader(0);
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut reader, &mut hasher)?;
    Ok(hasher.finalize())
}

/// Calls `each` with the number, from 1, and the text of every line of a file, whose size does not matter.
///
/// # Errors
/// The first error of `each`. The outer error is that of a file that cannot be read or has a line that is not UTF-8.
pub(crate) fn for_each_line<E>(
    path: &Path,
    mut each: impl FnMut(u64, &str) -> std::result::Result<(), E>,
) -> Result<std::result::Result<(), E>> {
    let mut reader = ByteFile::open(path)?.reader(0);
    let mut line = Vec::new();
    let mut number = 0;
    while reader.read_until(b'\n', &mut line)? > 0 {
        number += 1;
        let bytes = match number {
            1 => line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&line),
            _ => &line,
        };
        let text = std::str::from_utf8(bytes).map_err(|_| {
            Error::new(
                ErrorKind::InvalidData,
                format!("line {number} is not UTF-8"),
            )
        })?;
        if let Err(error) = each(number, text.trim_end_matches(['\n', '\r'])) {
            return Ok(Err(error));
        }
        line.clear();
    }
    Ok(Ok(()))
}
