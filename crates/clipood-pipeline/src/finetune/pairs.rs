//! [`PairSet`]: the pairs of all files, with every image and every caption once.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use clipood_core::{is_url, join, shown};
use clipood_data::{PairColumns, PairImage, PairRows, Source, path_of};

use crate::encode::Unreadable;
use crate::error::{PipelineError, Result};

/// Pairs of images and captions.
#[derive(Debug, Clone, Default)]
pub struct PairSet {
    /// Every image once.
    pub images: Vec<Source>,
    /// Every caption once.
    pub captions: Vec<String>,
    /// Numbers of image and caption of each pair, in the order of the files.
    pub pairs: Vec<(u32, u32)>,
    /// What was left out.
    pub skipped: Vec<Skipped>,
}

/// A row without image or caption, or an image that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The row of a file, or the image.
    pub what: String,
    /// Why.
    pub reason: String,
    /// Number of pairs (of rows, where the row is wrong) that are left out with it.
    pub pairs: usize,
}

impl PairSet {
    /// Reads files of pairs, one after the other. Relative paths of images start from `images`; without it from the folder of
    /// the file that names them, or from the current folder where the image is only there.
    ///
    /// # Errors
    /// As [`PairRows::read`], and more than 2^32 images or captions.
    pub fn gather(files: &[PathBuf], columns: &PairColumns, images: Option<&Path>) -> Result<Self> {
        let mut set = Self::default();
        let mut numbers: (HashMap<Source, u32>, HashMap<String, u32>) = Default::default();
        for file in files {
            let found = PairRows::read(file, columns)?;
            for row in &found.rows {
                let missing = match (&row.image, row.captions.is_empty()) {
                    (None, _) => "no image",
                    (Some(_), true) => "no caption",
                    (Some(image), false) => {
                        let source = source(image, file, images);
                        let image = number(&mut set.images, &mut numbers.0, source)?;
                        for caption in &row.captions {
                            let caption =
                                number(&mut set.captions, &mut numbers.1, caption.clone())?;
                            set.pairs.push((image, caption));
                        }
                        continue;
                    }
                };
                set.skipped.push(Skipped {
                    what: format!("{}, {}", shown(file), found.place(row)),
                    reason: missing.to_owned(),
                    pairs: 1,
                });
            }
        }
        Ok(set)
    }

    /// Leaves out the pairs of images that cannot be read.
    ///
    /// # Errors
    /// More than the share `most` (0 to 1) of all pairs is left out, or fewer than two remain.
    pub fn leave_out(&mut self, unreadable: &BTreeMap<u32, Unreadable>, most: f64) -> Result<()> {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        self.pairs.retain(|(image, _)| {
            let is_readable = !unreadable.contains_key(image);
            if !is_readable {
                *counts.entry(*image).or_default() += 1;
            }
            is_readable
        });
        for (image, reason) in unreadable {
            self.skipped.push(Skipped {
                what: self.images[*image as usize].to_string(),
                reason: format!("{}: {}", reason.kind, reason.message),
                pairs: counts.get(image).copied().unwrap_or(0),
            });
        }
        let skipped: usize = self.skipped.iter().map(|skipped| skipped.pairs).sum();
        let all = skipped + self.pairs.len();
        let example = match self.skipped.last() {
            Some(Skipped { what, reason, .. }) => format!(" ({}: {reason})", shown(what)),
            None => String::new(),
        };
        if self.pairs.is_empty() {
            let problem = format!("none of {all} pairs can be used{example}");
            return Err(PipelineError::Inconsistent(problem));
        }
        if skipped as f64 > most * all as f64 {
            return Err(PipelineError::Inconsistent(format!(
                "{skipped} of {all} pairs cannot be used{example}, allowed: a share of {most}"
            )));
        }
        match self.pairs.len() {
            1 => Err(PipelineError::Usage(
                "found 1 pair, expected at least 2: a pair is learnt in contrast to others"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

fn source(image: &PairImage, file: &Path, images: Option<&Path>) -> Source {
    let name = match image {
        PairImage::Stored(source) => return source.clone(),
        PairImage::Named(name) => path_of(name),
    };
    let beside = file.parent().unwrap_or(Path::new(""));
    let path = join(images.unwrap_or(beside), &name);
    let is_here = || !is_url(&path) && !path.exists() && name.exists();
    match images.is_none() && is_here() {
        true => Source::found(&name),
        false => Source::found(&path),
    }
}

/// The number of `item` in `all`, where it is added if it is new.
fn number<T: Clone + Eq + std::hash::Hash>(
    all: &mut Vec<T>,
    numbers: &mut HashMap<T, u32>,
    item: T,
) -> Result<u32> {
    if let Some(number) = numbers.get(&item) {
        return Ok(*number);
    }
    let number = u32::try_from(all.len())
        .map_err(|_| PipelineError::Usage("more than 2^32 images or captions".to_owned()))?;
    all.push(item.clone());
    numbers.insert(item, number);
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_captions_are_counted_once_and_empty_cells_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pairs.csv");
        let text = "image,caption\na.png,a dog\na.png,a pet\nb.png,a dog\n,alone\nc.png,\n";
        std::fs::write(&file, text).unwrap();
        let files = [file.clone()];
        let mut set = PairSet::gather(&files, &PairColumns::default(), None).unwrap();
        assert_eq!(set.pairs, [(0, 0), (0, 1), (1, 0)]);
        assert_eq!(set.images[0], Source::found(&folder.path().join("a.png")));
        let reasons: Vec<&str> = set.skipped.iter().map(|s| s.reason.as_str()).collect();
        assert_eq!(reasons, ["no image", "no caption"]);
        assert!(set.skipped[0].what.ends_with("pairs.csv, line 5"));
        let elsewhere = PairSet::gather(&files, &PairColumns::default(), Some(Path::new("/x")));
        assert_eq!(elsewhere.unwrap().images[1], Source::whole("/x/b.png"));

        let reason = Unreadable {
            kind: "unreadable".to_owned(),
            message: "gone".to_owned(),
        };
        let unreadable = BTreeMap::from([(1, reason.clone())]);
        let few = set.clone().leave_out(&unreadable, 0.1).unwrap_err();
        assert!(
            few.to_string().contains("3 of 5 pairs cannot be used"),
            "{few}"
        );
        set.leave_out(&unreadable, 0.6).unwrap();
        assert_eq!(set.pairs, [(0, 0), (0, 1)]);
        assert_eq!((set.skipped.len(), set.skipped[2].pairs), (3, 1));
        let all = BTreeMap::from([(0, reason)]);
        let none = set.leave_out(&all, 1.0).unwrap_err().to_string();
        assert!(none.contains("none of 5 pairs can be used"), "{none}");
    }
}
