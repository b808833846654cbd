//! Files and folders that a listing leaves out, and how they are reported.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use clipood_core::shown;

/// Extensions that a report lists one by one.
const LISTED: usize = 8;
/// Paths that are kept of every kind.
const EXAMPLES: usize = 3;
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

impl Why {
    /// The reason in words.
    fn words(self) -> &'static str {
        match self {
            Why::NoImage => "not named as an image",
            Why::Junk => "hidden or of the system",
            Why::NoClass => "image in no class folder",
            Why::Broken => "link that leads nowhere",
            Why::NotNested => "folder not searched (`nested` is false)",
            Why::Searched => "folder searched already (linked again)",
            Why::Empty => "folder without an image",
        }
    }
}

impl<'a> LeftOutGroup<'a> {
    fn of(reason: String, kinds: &[&'a Counted]) -> Self {
        let all: BTreeSet<&Path> = kinds
            .iter()
            .flat_map(|kind| kind.examples.iter().map(PathBuf::as_path))
            .collect();
        Self {
            reason,
            count: kinds.iter().map(|kind| kind.count).sum(),
            examples: all.into_iter().take(EXAMPLES).collect(),
        }
    }
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
    extensions: BTreeMap<String, Counted>,
    others: BTreeMap<Why, Counted>,
}

/// How many there are of one kind, with the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Counted {
    count: usize,
    /// The first paths, sorted; at most [`EXAMPLES`].
    examples: BTreeSet<PathBuf>,
}

impl Counted {
    fn add(&mut self, path: &Path) {
        self.count += 1;
        let comes_first = |last: &PathBuf| path < last.as_path();
        if self.examples.len() < EXAMPLES || self.examples.last().is_some_and(comes_first) {
            self.examples.insert(path.to_owned());
        }
        if self.examples.len() > EXAMPLES {
            self.examples.pop_last();
        }
    }
}

/// Files and folders that are left out for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOutGroup<'a> {
    /// The reason, such as `not named as an image: .txt`.
    pub reason: String,
    /// How many there are.
    pub count: usize,
    /// The first paths, sorted; at most three.
    pub examples: Vec<&'a Path>,
}

impl LeftOutCounts {
    /// Counts one more.
    pub fn add(&mut self, left_out: &LeftOut) {
        let LeftOut { path, why } = left_out;
        let counted = match why {
            Why::NoImage => self.extensions.entry(extension(path)).or_default(),
            _ => self.others.entry(*why).or_default(),
        };
        counted.add(path);
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
        let others = self.others.iter().filter(|(why, _)| **why != Why::Junk);
        let kinds = self
            .extensions
            .values()
            .chain(others.map(|(_, counted)| counted));
        let firsts = kinds.filter_map(|counted| counted.examples.first());
        firsts.min().map(PathBuf::as_path)
    }

    /// The reasons with their counts, those of files first, the most frequent extension before the others.
    ///
    /// ```
    /// use clipood_data::{LeftOut, LeftOutCounts, Why};
    ///
    /// let mut counts = LeftOutCounts::default();
    /// for (file, why) in [("a/x.txt", Why::NoImage), ("a/.x", Why::Junk), ("a/y.txt", Why::NoImage)] {
    ///     counts.add(&LeftOut { path: file.into(), why });
    /// }
    /// let reasons: Vec<_> = counts.groups().into_iter().map(|g| (g.reason, g.count)).collect();
    /// let expected = [("not named as an image: .txt", 2), ("hidden or of the system", 1)];
    /// assert_eq!(reasons, expected.map(|(reason, count)| (reason.to_string(), count)));
    /// ```
    pub fn groups(&self) -> Vec<LeftOutGroup<'_>> {
        let by_count = self.by_count();
        let (listed, rest) = by_count.split_at(by_count.len().min(LISTED));
        let mut groups: Vec<LeftOutGroup<'_>> = listed
            .iter()
            .map(|(extension, counted)| {
                let reason = match extension.is_empty() {
                    true => "not named as an image: without an extension".to_string(),
                    false => format!("not named as an image: {extension}"),
                };
                LeftOutGroup::of(reason, &[counted])
            })
            .collect();
        let rest: Vec<&Counted> = rest.iter().map(|(_, counted)| *counted).collect();
        if !rest.is_empty() {
            let reason = "not named as an image: other extensions".to_string();
            groups.push(LeftOutGroup::of(reason, &rest));
        }
        let others = self.others.iter();
        groups
            .extend(others.map(|(why, counted)| LeftOutGroup::of(why.words().into(), &[counted])));
        groups
    }

    /// The extensions, the most frequent first.
    fn by_count(&self) -> Vec<(&str, &Counted)> {
        let mut all: Vec<(&str, &Counted)> = self
            .extensions
            .iter()
            .map(|(e, counted)| (e.as_str(), counted))
            .collect();
        all.sort_by_key(|(_, counted)| std::cmp::Reverse(counted.count));
        all
    }

    fn count(&self, why: Why) -> usize {
        self.others.get(&why).map_or(0, |counted| counted.count)
    }

    /// The files, most frequent extension first.
    fn files(&self) -> (usize, Vec<String>) {
        let by_count = self.by_count();
        let mut parts: Vec<String> = by_count
            .iter()
            .take(LISTED)
            .map(|(extension, counted)| match extension.is_empty() {
                true => format!("{} without an extension", counted.count),
                false => format!("{} {extension}", counted.count),
            })
            .collect();
        let rest = by_count.iter().skip(LISTED);
        let rest: usize = rest.map(|(_, counted)| counted.count).sum();
        if rest > 0 {
            parts.push(format!("{rest} with other extensions"));
        }
        let mut total: usize = by_count.iter().map(|(_, counted)| counted.count).sum();
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
    fn every_reason_has_its_count_and_the_first_of_its_paths() {
        let names: Vec<String> = (0..12)
            .rev()
            .map(|i| format!("d/x{i:02}.e{i:02}"))
            .collect();
        let mut all: Vec<(&str, Why)> = names.iter().map(|n| (n.as_str(), Why::NoImage)).collect();
        all.extend(["d/4.txt", "d/2.txt", "d/3.txt", "d/1.txt"].map(|n| (n, Why::NoImage)));
        all.extend([("d/.x", Why::Junk), ("d/y", Why::Empty)]);
        let found = counts(&all);
        let groups = found.groups();
        let total: usize = groups.iter().map(|group| group.count).sum();
        assert_eq!(total, all.len());
        let examples = |place: usize| -> Vec<&str> {
            let paths = groups[place].examples.iter();
            paths.map(|path| path.to_str().unwrap()).collect()
        };
        assert_eq!(groups[0].reason, "not named as an image: .txt");
        assert_eq!(
            (groups[0].count, examples(0)),
            (4, vec!["d/1.txt", "d/2.txt", "d/3.txt"])
        );
        assert_eq!(groups[8].reason, "not named as an image: other extensions");
        assert_eq!(
            (groups[8].count, examples(8)),
            (5, vec!["d/x07.e07", "d/x08.e08", "d/x09.e09"])
        );
        let last: Vec<&str> = groups[9..].iter().map(|g| g.reason.as_str()).collect();
        assert_eq!(last, ["hidden or of the system", "folder without an image"]);
        assert!(counts(&[]).groups().is_empty());
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
