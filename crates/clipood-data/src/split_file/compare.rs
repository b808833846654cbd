//! What differs between two splits.

use std::collections::HashMap;
use std::fmt;

use super::{SplitFile, SplitImage};
use crate::record::Split;

/// Images that are named in a message.
const NAMED: usize = 3;

/// Label and name of a class.
pub type Class = (u32, String);

/// What a split has that another has not. The folders in which the images lie do not count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SplitDifference {
    /// Images that only the first lists, with their parts.
    pub only_first: Vec<(Split, String)>,
    /// Images that only the second lists, with their parts.
    pub only_second: Vec<(Split, String)>,
    /// Images in another part: in the first, in the second.
    pub moved: Vec<(String, Split, Split)>,
    /// Images of another class: in the first, in the second.
    pub relabelled: Vec<(String, Class, Class)>,
    /// Whether the images are the same, in another order within a class: fewer shots would take others.
    pub reordered: bool,
}

impl SplitFile {
    /// What differs between this split and another; `None` if nothing does, so that their hashes are equal.
    pub fn difference(&self, other: &SplitFile) -> Option<SplitDifference> {
        if self.hash() == other.hash() {
            return None;
        }
        let mut found = SplitDifference::default();
        let mut rest: HashMap<&str, &SplitImage> = (other.images().iter())
            .map(|image| (other.below(image), image))
            .collect();
        for image in self.images() {
            let path = self.below(image);
            let Some(twin) = rest.remove(path) else {
                found.only_first.push((image.split, path.to_string()));
                continue;
            };
            if image.split != twin.split {
                found
                    .moved
                    .push((path.to_string(), image.split, twin.split));
            }
            if (image.label, &image.class_name) != (twin.label, &twin.class_name) {
                let class = |image: &SplitImage| (image.label, image.class_name.clone());
                found
                    .relabelled
                    .push((path.to_string(), class(image), class(twin)));
            }
        }
        found.only_second = (rest.into_iter())
            .map(|(path, image)| (image.split, path.to_string()))
            .collect();
        found.only_second.sort();
        found.reordered = found.only_first.is_empty()
            && found.only_second.is_empty()
            && found.moved.is_empty()
            && found.relabelled.is_empty();
        Some(found)
    }
}

impl fmt::Display for SplitDifference {
    /// One line per kind of difference, with the first images of each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |count: usize, what: &str, named: Vec<String>| match count {
            0 => Ok(()),
            _ => {
                let more = if count > named.len() { ", ..." } else { "" };
                writeln!(f, "{count} images {what}: {}{more}", named.join(", "))
            }
        };
        let listed = |images: &[(Split, String)]| -> Vec<String> {
            let named = images.iter().take(NAMED);
            named
                .map(|(split, path)| format!("{path} ({})", split.name()))
                .collect()
        };
        line(
            self.only_first.len(),
            "only in the first",
            listed(&self.only_first),
        )?;
        line(
            self.only_second.len(),
            "only in the second",
            listed(&self.only_second),
        )?;
        let moved = self.moved.iter().take(NAMED);
        let moved = moved.map(|(path, a, b)| format!("{path} ({}, {})", a.name(), b.name()));
        line(self.moved.len(), "in another part", moved.collect())?;
        let named = self.relabelled.iter().take(NAMED);
        let named =
            named.map(|(path, a, b)| format!("{path} ({} `{}`, {} `{}`)", a.0, a.1, b.0, b.1));
        line(self.relabelled.len(), "of another class", named.collect())?;
        match self.reordered {
            true => writeln!(
                f,
                "the same images in another order within a class: fewer shots would take others"
            ),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_difference_is_named() {
        let read = |text: &str| SplitFile::parse(text.as_bytes().to_vec()).unwrap();
        let first = read(
            r#"{"train": [["/x/a/1.png", 0, "a"], ["/x/a/2.png", 0, "a"], ["/x/b/1.png", 1, "b"]], "test": [["/x/b/2.png", 1, "b"]]}"#,
        );
        let second = read(
            r#"{"train": [["a/1.png", 0, "a"], ["a/3.png", 0, "a"], ["b/2.png", 1, "b"]], "test": [["b/1.png", 2, "c"]]}"#,
        );
        let text = first.difference(&second).unwrap().to_string();
        assert_eq!(
            text,
            "1 images only in the first: a/2.png (train)\n\
             1 images only in the second: a/3.png (train)\n\
             2 images in another part: b/1.png (train, test), b/2.png (test, train)\n\
             1 images of another class: b/1.png (1 `b`, 2 `c`)\n"
        );
        assert_eq!(first.difference(&first), None);
        let swapped = read(
            r#"{"train": [["a/2.png", 0, "a"], ["a/1.png", 0, "a"], ["b/1.png", 1, "b"]], "test": [["b/2.png", 1, "b"]]}"#,
        );
        let text = first.difference(&swapped).unwrap().to_string();
        assert!(text.contains("in another order"), "{text}");
    }
}
