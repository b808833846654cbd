//! Paths that a list of images names.

use std::path::Path;

use clipood_core::{is_url, key_part};

use crate::record::Split;

/// A listed path without `.` and `..`: below the folder that the paths start from.
///
/// # Errors
/// What is wrong with it: an absolute path, a URL, or one that leads out of the folder.
pub(super) fn below(path: &str) -> Result<String, String> {
    let wrong = |what| {
        Err(format!(
            "found {what} `{path}`, expected a path below the folder of the images"
        ))
    };
    if is_url(Path::new(path)) {
        return wrong("the URL");
    }
    if path.starts_with('/') {
        return wrong("the absolute path");
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return wrong("the path");
                }
            }
            _ => parts.push(part),
        }
    }
    if parts.is_empty() {
        return wrong("the path");
    }
    Ok(parts.join("/"))
}

/// A path with forward slashes as the end of a key.
pub(super) fn key_of(path: &str) -> String {
    let parts = path.split('/').map(|part| key_part(part.as_ref()));
    parts.collect::<Vec<_>>().join("/")
}

/// The split of a word in a column of splits.
///
/// # Errors
/// Another word.
pub(super) fn split_named(word: &str) -> Result<Split, String> {
    match word.to_ascii_lowercase().as_str() {
        "train" | "training" => Ok(Split::Train),
        "val" | "valid" | "validation" | "dev" => Ok(Split::Val),
        "test" | "testing" => Ok(Split::Test),
        _ => Err(format!("found split `{word}`, expected train, val or test")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_path_stays_below_its_folder() {
        assert_eq!(below("./a//b/../c.jpg").unwrap(), "a/c.jpg");
        for wrong in ["/a/b.jpg", "../a.jpg", "a/../../b.jpg", ".", "s3://b/c.jpg"] {
            assert!(below(wrong).is_err(), "{wrong}");
        }
    }
}
