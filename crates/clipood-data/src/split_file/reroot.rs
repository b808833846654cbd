//! Finding the images of a split below the folder of the dataset on this machine.

use super::{SplitFile, SplitImage};

/// How the paths of a split file become paths below the folder of a dataset: their first components are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reroot {
    /// Bytes that are left out.
    from: usize,
}

impl Reroot {
    /// The fewest leading components of the paths without which the first image lies below the root, as `exists` says for a
    /// path relative to it. `None` if it lies nowhere: the file belongs to other images. Absolute paths lose their root.
    pub fn find(split: &SplitFile, mut exists: impl FnMut(&str) -> bool) -> Option<Self> {
        let first = &split.images()[0].path;
        let starts = std::iter::once(0).chain(
            first[..split.shared().len()]
                .match_indices('/')
                .map(|(slash, _)| slash + 1),
        );
        // A path below another folder does not begin with a slash, and does not leave it.
        let relative = |from: &usize| {
            let rest = &first[*from..];
            !rest.starts_with('/') && !rest.split('/').any(|part| part == "..")
        };
        let mut starts = starts.filter(relative);
        starts
            .find(|from| exists(&first[*from..]))
            .map(|from| Self { from })
    }

    /// The path of an image of the same file below the root.
    pub fn path<'a>(&self, image: &'a SplitImage) -> &'a str {
        &image.path[self.from..]
    }

    /// What is left of a folder that all paths share.
    pub(crate) fn path_of<'a>(&self, shared: &'a str) -> &'a str {
        &shared[self.from..]
    }

    /// Whether the paths are left as they are.
    pub fn is_identity(&self) -> bool {
        self.from == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Split;

    fn split(paths: &[&str]) -> SplitFile {
        let image = |path: &&str| SplitImage {
            path: path.to_string(),
            split: Split::Train,
            label: 0,
            class_name: "a".to_string(),
        };
        SplitFile::of(paths.iter().map(image).collect()).unwrap()
    }

    #[test]
    fn paths_of_other_machines_are_found_below_the_root() {
        let absolute = split(&[
            "/home/k/data/imagenet/images/train/n1/a.JPEG",
            "/home/k/data/imagenet/images/train/n2/b.JPEG",
        ]);
        let here = ["train/n1/a.JPEG", "imagenet/images/train/n1/a.JPEG"];
        for path in here {
            let reroot = Reroot::find(&absolute, |candidate| candidate == path).unwrap();
            assert!(!reroot.is_identity());
            assert_eq!(
                reroot.path(&absolute.images()[1]),
                path.replace("n1/a", "n2/b")
            );
        }
        assert_eq!(Reroot::find(&absolute, |_| false), None);
        // The part that differs between images is never left out.
        assert_eq!(Reroot::find(&absolute, |path| path == "a.JPEG"), None);
        let relative = split(&["n1/a.png", "n2/b.png"]);
        assert!(
            Reroot::find(&relative, |path| path == "n1/a.png")
                .unwrap()
                .is_identity()
        );
        let outside = split(&["../n1/a.png", "../n2/b.png"]);
        let mut asked = Vec::new();
        Reroot::find(&outside, |path| {
            asked.push(path.to_string());
            false
        });
        assert_eq!(asked, ["n1/a.png"]);
    }
}
