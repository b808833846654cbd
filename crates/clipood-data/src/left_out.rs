//! Files and folders that a listing leaves out, and how they are reported.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use clipood_core::shown;

/// Extensions that a report lists one by one.
const LISTED: usize = 8;
/// Longest extension; what follows the last dot of a longer one is taken for a part of the name.
const LONGEST_EXTENSION: usize = 12;

/// A file or folder that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its path.
    pub path: PathBuf,
    /// The reason.
    pub why: Why,
}

/// Why a file or folder is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// A file that is not named as an image.
    NoImage,
    /// A hidden file or folder, or one that an operating system leaves behind.
    Junk,
    /// An image that lies in no class folder.
    NoClass,
    /// A link that leads nowhere or in a circle.
    Broken,
    /// A folder that is not searched, because the manifest says `nested = false`.
    NotNested,
    /// A folder that was searched already, under another path.
    Searched,
    /// A folder without an image.
    Empty,
}

impl LeftOut {
    pub(crate) fn new(path: PathBuf, why: Why) -> LeftOut {
        LeftOut { path, why }
    }
}

/// Counts what is left out: files by their extensions, everything else by its reason. Displayed as
/// `3 files left out: 1 .avif, 1 .gif, 1 .heic`.
///
/// ```
/// use clipood_data::{LeftOut, LeftOutCounts, Why};
///
/// let mut counts = LeftOutCounts::default();
/// for file in ["a/x.GIF", "a/y.gif", "a/notes"] {
///     counts.add(&LeftOut { path: file.into(), why: Why::NoImage });
/// }
/// assert_eq!(counts.to_string(), "3 files left out: 2 .gif, 1 without an extension");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOutCounts {
    extensions: BTreeMap<String, usize>,
    others: BTreeMap<Why, usize>,
    /// The first path of all, sorted.
    first: Option<PathBuf>,
}

impl LeftOutCounts {
    /// Counts one more.
    pub fn add(&mut self, left_out: &LeftOut) {
        let LeftOut { path, why } = left_out;
        match why {
            Why::NoImage => *self.extensions.entry(extension(path)).or_default() += 1,
            _ => *self.others.entry(*why).or_default() += 1,
        }
        if *why != Why::Junk && self.first.as_ref().is_none_or(|first| path < first) {
            self.first = Some(path.clone());
        }
    }

    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.extensions.is_empty() && self.others.is_empty()
    }

    /// Whether nothing is left out but files that operating systems leave behind.
    pub fn is_only_junk(&self) -> bool {
        self.extensions.is_empty() && self.others.keys().all(|why| *why == Why::Junk)
    }

    /// The first path, sorted, that is not hidden.
    pub fn first(&self) -> Option<&Path> {
        self.first.as_deref()
    }

    fn count(&self, why: Why) -> usize {
        self.others.get(&why).copied().unwrap_or(0)
    }

    /// The files, most frequent extension first.
    fn files(&self) -> (usize, Vec<String>) {
        let mut by_count: Vec<(&String, usize)> =
            self.extensions.iter().map(|(e, n)| (e, *n)).collect();
        by_count.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let mut parts: Vec<String> = by_count
            .iter()
            .take(LISTED)
            .map(|(extension, count)| match extension.is_empty() {
                true => format!("{count} without an extension"),
                false => format!("{count} {extension}"),
            })
            .collect();
        let rest = by_count.iter().skip(LISTED).map(|(_, count)| count);
        let rest: usize = rest.sum();
        if rest > 0 {
            parts.push(format!("{rest} with other extensions"));
        }
        let mut total: usize = self.extensions.values().sum();
        for (why, one, several) in [
            (
                Why::NoClass,
                "image in no class folder",
                "images in no class folder",
            ),
            (
                Why::Broken,
                "link that leads nowhere",
                "links that lead nowhere",
            ),
            (
                Why::Junk,
                "hidden or of the system",
                "hidden or of the system",
            ),
        ] {
            let count = self.count(why);
            total += count;
            match count {
                0 => {}
                1 => parts.push(format!("1 {one}")),
                _ => parts.push(format!("{count} {several}")),
            }
        }
        (total, parts)
    }
}

impl fmt::Display for LeftOutCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (files, parts) = self.files();
        let mut sentences = Vec::new();
        if files > 0 {
            let noun = if files == 1 { "file" } else { "files" };
            sentences.push(format!("{files} {noun} left out: {}", parts.join(", ")));
        }
        for (why, words) in [
            (Why::NotNested, "not searched (`nested` is false)"),
            (Why::Searched, "searched once only (linked again)"),
            (Why::Empty, "without an image"),
        ] {
            let count = self.count(why);
            if count > 0 {
                let noun = if count == 1 { "folder" } else { "folders" };
                sentences.push(format!("{count} {noun} {words}"));
            }
        }
        f.write_str(&sentences.join("; "))
    }
}

/// The extension with its dot in lower case, escaped; empty without one.
fn extension(path: &Path) -> String {
    let Some(extension) = path.extension().filter(|e| !e.is_empty()) else {
        return String::new();
    };
    if extension.len() > LONGEST_EXTENSION {
        return String::new();
    }
    let lower = extension.to_ascii_lowercase();
    match extension.as_encoded_bytes().contains(&b' ') {
        // Otherwise a space at the end of a name could not be seen.
        true => format!("`.{}`", shown(OsStr::new(&lower))),
        false => format!(".{}", shown(OsStr::new(&lower))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(left_out: &[(&str, Why)]) -> LeftOutCounts {
        let mut counts = LeftOutCounts::default();
        for (path, why) in left_out {
            counts.add(&LeftOut::new(path.into(), *why));
        }
        counts
    }

    #[test]
    fn files_are_counted_by_extension_and_junk_is_one_group() {
        let found = counts(&[
            ("d/z.heic", Why::NoImage),
            ("d/a.GIF", Why::NoImage),
            ("d/b.gif", Why::NoImage),
            ("d/README", Why::NoImage),
            ("d/x.jpg ", Why::NoImage),
            ("d/x.what is this long thing", Why::NoImage),
            ("d/.DS_Store", Why::Junk),
            ("d/Thumbs.db", Why::Junk),
            ("d/1.jpg", Why::NoClass),
            ("d/gone", Why::Broken),
            ("d/more", Why::NotNested),
            ("d/again", Why::Searched),
        ]);
        assert_eq!(
            found.to_string(),
            "10 files left out: 2 without an extension, 2 .gif, 1 .heic, 1 `.jpg `, 1 image in no class folder, \
             1 link that leads nowhere, 2 hidden or of the system; 1 folder not searched (`nested` is false); \
             1 folder searched once only (linked again)"
        );
        assert_eq!(found.first(), Some(Path::new("d/1.jpg")));
        assert!(!found.is_only_junk());
    }

    #[test]
    fn many_extensions_are_summed_up_and_none_can_write_to_the_terminal() {
        let names: Vec<String> = (0..12).map(|i| format!("x.e{i:02}")).collect();
        let of: Vec<(&str, Why)> = names.iter().map(|n| (n.as_str(), Why::NoImage)).collect();
        let text = counts(&of).to_string();
        assert!(text.ends_with("1 .e07, 4 with other extensions"), "{text}");
        let text = counts(&[("x.\u{1b}[2J", Why::NoImage)]).to_string();
        assert_eq!(text, r"1 file left out: 1 .\x1B[2j");
        assert!(counts(&[(".x", Why::Junk)]).is_only_junk());
        assert!(counts(&[]).is_empty() && counts(&[]).to_string().is_empty());
    }
}
