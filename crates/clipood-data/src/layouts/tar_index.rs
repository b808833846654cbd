//! Where the samples of a tar file lie.

use std::io::{Error, ErrorKind, Read, Result};
use std::ops::Range;
use std::path::Path;

use crate::byte_file::{ByteFile, Cursor};
use crate::extensions::is_image;

/// Size of a block of a tar file.
const BLOCK: u64 = 512;
/// Largest file of labels that is read.
const MAX_LABEL_BYTES: u64 = 1 << 20;
/// Keys of the class in a JSON file.
const LABELS: [&str; 3] = ["label", "cls", "class"];

/// Keys of the caption in a JSON file.
const CAPTIONS: [&str; 3] = ["caption", "text", "title"];

/// The samples of an archive.
pub(crate) struct Index {
    /// In the order of the archive.
    pub samples: Vec<Sample>,
    /// What a user should know about the archive.
    pub note: Option<String>,
}

/// Files that share a name up to the first dot.
pub(crate) struct Sample {
    /// The shared part of the names.
    pub key: String,
    /// Name and bytes of the image.
    pub image: Option<(String, Range<u64>)>,
    pub label: Option<OwnLabel>,
    /// The caption, without white space around it.
    pub caption: Option<String>,
}

/// What is read beside the images, and the key in JSON files that holds it.
#[derive(Clone, Copy)]
pub(crate) enum Beside<'a> {
    Label(Option<&'a str>),
    /// A caption may also be in a file whose ending is the key.
    Caption(Option<&'a str>),
}

/// A class as the archive states it.
pub(crate) enum OwnLabel {
    Number(i64),
    Text(String),
}

/// Reads the headers of an archive, and the files that hold labels or captions.
///
/// # Errors
/// A file that cannot be read; [`ErrorKind::InvalidData`] for one that is no tar file, is cut, or holds a sample with two
/// images or a label or caption that cannot be read.
pub(crate) fn index(path: &Path, beside: Beside<'_>) -> Result<Index> {
    let file = ByteFile::open(path)?;
    let mut samples: Vec<Sample> = Vec::new();
    let mut end = 0;
    let mut archive = tar::Archive::new(file.cursor());
    let entries = archive.entries_with_seek().map_err(damaged)?;
    for entry in entries {
        let mut entry = entry.map_err(damaged)?;
        let start = entry.raw_file_position();
        let stop = start.saturating_add(entry.size());
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if stop > file.length() {
            return Err(invalid(format!(
                "the archive is cut: `{name}` should end at byte {stop}, the file has {}",
                file.length()
            )));
        }
        end = stop.next_multiple_of(BLOCK);
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = name.strip_prefix("./").unwrap_or(&name);
        let Some((shared, ending)) = parts(name) else {
            continue;
        };
        if samples.last().is_none_or(|sample| sample.key != shared) {
            samples.push(Sample {
                key: shared.to_string(),
                image: None,
                label: None,
                caption: None,
            });
        }
        let Some(sample) = samples.last_mut() else {
            continue;
        };
        let ending = ending.to_ascii_lowercase();
        let ending = ending.as_str();
        if is_image(Path::new(name)) {
            if let Some((other, _)) = &sample.image {
                return Err(invalid(format!(
                    "sample `{shared}` has two images, `{other}` and `{name}`, expected one"
                )));
            }
            sample.image = Some((name.to_string(), start..stop));
            continue;
        }
        let wrong = |problem: String| invalid(format!("`{name}`: {problem}"));
        match beside {
            Beside::Label(key)
                if ending == "cls" || (ending == "json" && sample.label.is_none()) =>
            {
                let text = text_of(&mut entry).map_err(wrong)?;
                let label = match ending {
                    "cls" => Ok(Some(own_label(text.trim()))),
                    _ => in_json(&text, key),
                };
                sample.label = label.map_err(wrong)?.or(sample.label.take());
            }
            Beside::Caption(key) if is_caption(ending, key) => {
                let text = text_of(&mut entry).map_err(wrong)?;
                let text = text.trim();
                if !text.is_empty() {
                    sample.caption = Some(text.to_owned());
                }
            }
            Beside::Caption(key) if ending == "json" && sample.caption.is_none() => {
                let text = text_of(&mut entry).map_err(wrong)?;
                sample.caption = caption_in_json(&text, key).map_err(wrong)?;
            }
            Beside::Label(_) | Beside::Caption(_) => {}
        }
    }
    if samples.iter().all(|sample| sample.image.is_none()) {
        return Err(invalid(format!(
            "the archive holds no image, in {} samples",
            samples.len()
        )));
    }
    let mark = file.length().checked_sub(end).filter(|left| *left >= BLOCK);
    let note = mark
        .is_none()
        .then(|| "the archive has no end mark; it may have been cut between two files".to_string());
    Ok(Index { samples, note })
}

/// The name of a file up to the first dot behind the last slash, and the ending behind the last dot.
fn parts(name: &str) -> Option<(&str, &str)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[base..].find('.')?;
    if dot == 0 {
        // A hidden file.
        return None;
    }
    let ending = name.rsplit('.').next()?;
    Some((&name[..base + dot], ending))
}

fn text_of(entry: &mut tar::Entry<'_, Cursor>) -> std::result::Result<String, String> {
    if entry.size() > MAX_LABEL_BYTES {
        return Err(format!(
            "{} bytes, allowed: at most {MAX_LABEL_BYTES}",
            entry.size()
        ));
    }
    let mut text = String::new();
    entry
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    Ok(text)
}

fn own_label(text: &str) -> OwnLabel {
    match text.parse() {
        Ok(number) => OwnLabel::Number(number),
        Err(_) => OwnLabel::Text(text.to_string()),
    }
}

/// The class in a JSON file; `None` if it states none and none was asked for.
fn in_json(text: &str, key: Option<&str>) -> std::result::Result<Option<OwnLabel>, String> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let found = match key {
        Some(key) => Some(
            value
                .get(key)
                .ok_or_else(|| format!("no key `{key}` (`columns.label`)"))?,
        ),
        None => LABELS.iter().find_map(|key| value.get(key)),
    };
    match found {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(serde_json::Value::String(text)) => Ok(Some(own_label(text))),
        Some(value) => match value.as_i64() {
            Some(number) => Ok(Some(OwnLabel::Number(number))),
            None => Err(format!(
                "found the class {value}, expected a number or a name"
            )),
        },
    }
}

/// Whether a file of this ending holds the caption.
fn is_caption(ending: &str, key: Option<&str>) -> bool {
    match key {
        Some(key) => ending.eq_ignore_ascii_case(key),
        None => ["txt", "text", "caption"].contains(&ending),
    }
}

/// The caption in a JSON file; `None` if it has none.
fn caption_in_json(text: &str, key: Option<&str>) -> std::result::Result<Option<String>, String> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let filled = |key: &str| {
        let caption = value.get(key)?.as_str()?.trim();
        (!caption.is_empty()).then(|| caption.to_owned())
    };
    Ok(match key {
        Some(key) => filled(key),
        None => CAPTIONS.iter().find_map(|key| filled(key)),
    })
}

/// An error of the tar reader: of the file system as it is, of the format as [`ErrorKind::InvalidData`].
fn damaged(error: Error) -> Error {
    match error.raw_os_error() {
        Some(_) => error,
        None => invalid(format!(
            "no readable tar file ({error}); compressed ones have to be unpacked first"
        )),
    }
}

fn invalid(problem: String) -> Error {
    Error::new(ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_named_up_to_the_first_dot() {
        assert_eq!(parts("a.b/c.d.jpg"), Some(("a.b/c", "jpg")));
        assert_eq!(parts("n01_1.JPEG"), Some(("n01_1", "JPEG")));
        assert_eq!(parts("a/README"), None);
        assert_eq!(parts("a/.hidden.jpg"), None);
    }
}
