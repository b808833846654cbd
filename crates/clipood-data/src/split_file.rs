//! Splits as files: which images of a dataset are trained, validated and tested on, so that the split is the same on every
//! machine.
//!
//! | file | origin |
//! | --- | --- |
//! | JSON: `{"train": [[path, label, name], ...], "val": [...], "test": [...]}` | `split_zhou_*.json` of CoOp; written here with a `hash` beside the lists, which CoOp passes over |
//! | pickle: `{"train": [Datum, ...], ...}` | `preprocessed.pkl` and `split_fewshot/shot_*-seed_*.pkl` of CoOp; read as data, never executed |
//! | Parquet: `path`, `label`, `class_name`, `split` | written here |
//! | text: `images_variant_train.txt`, `..._val.txt`, `..._test.txt` beside `variants.txt` | FGVC-Aircraft, for which CoOp has no JSON file |
//!
//! Paths may begin with a folder of another machine: [`SplitFile::hash`] and [`SplitFile::difference`] see them below the folder
//! that they all share, and [`Reroot`] finds them below another one.

mod compare;
mod json;
mod pickled;
mod reroot;
mod table;
mod variants;

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::Path;

use clipood_core::files::read_file;
use clipood_core::{Fingerprint, FingerprintBuilder, SubsampleClasses, is_url};

pub use self::compare::SplitDifference;
pub use self::reroot::Reroot;
use crate::error::DataError;
use crate::few_shot::subsample_classes;
use crate::record::Split;
use crate::remote::Object;

/// Largest file of a split: a pickle of ImageNet has some 200 MB.
const MAX_BYTES: u64 = 1 << 30;

/// An image of a split file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitImage {
    /// Its path as the file has it, with forward slashes: relative, or absolute on the machine that wrote the file.
    pub path: String,
    /// Its part of the dataset.
    pub split: Split,
    /// Its class.
    pub label: u32,
    /// Readable name of the class.
    pub class_name: String,
}

/// The images of a split file, in its order: the first shots of a class are those that fewer shots take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitFile {
    images: Vec<SplitImage>,
    /// Bytes of the folder that all paths share, with its slash.
    shared: usize,
}

impl SplitFile {
    /// A split of these images.
    ///
    /// # Errors
    /// No image, an image that is listed twice, a class with two names; in words.
    pub fn of(images: Vec<SplitImage>) -> Result<Self, String> {
        if images.is_empty() {
            return Err("it lists no image".to_string());
        }
        let mut names: BTreeMap<u32, &str> = BTreeMap::new();
        let mut seen: HashMap<&str, Split> = HashMap::with_capacity(images.len());
        for image in &images {
            if image.path.is_empty() || image.path.ends_with('/') {
                return Err(format!(
                    "found `{}` where a path of an image is expected",
                    image.path
                ));
            }
            if let Some(other) = seen.insert(&image.path, image.split) {
                return Err(format!(
                    "`{}` is listed in {} and in {}, allowed: once",
                    image.path,
                    other.name(),
                    image.split.name()
                ));
            }
            let name = names.entry(image.label).or_insert(&image.class_name);
            if *name != image.class_name {
                return Err(format!(
                    "label {} is `{name}` and `{}` ({}), allowed: one name for each label",
                    image.label, image.class_name, image.path
                ));
            }
        }
        let shared = shared_folder(&images);
        Ok(Self { images, shared })
    }

    /// Reads a split file; its first bytes tell the format.
    ///
    /// # Errors
    /// A file that cannot be read, is larger than 1 GiB or of another format, or whose content [`SplitFile::of`] refuses; a
    /// `hash` in the file that is not that of its images.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let wrong = |problem: String| DataError::SplitFile {
            path: path.to_path_buf(),
            problem,
        };
        if variants::is_list(path) {
            let images = variants::images(path).map_err(wrong)?;
            return Self::of(images).map_err(wrong);
        }
        let read = match is_url(path) {
            true => Object::of(path)
                .and_then(|object| object.read(MAX_BYTES))
                .map(|b| b.to_vec()),
            false => read_file(path, MAX_BYTES),
        };
        let bytes = read.map_err(|source| match source.kind() {
            ErrorKind::NotFound | ErrorKind::InvalidInput => wrong(source.to_string()),
            _ => DataError::Io {
                path: path.to_path_buf(),
                source,
            },
        })?;
        Self::parse(bytes).map_err(wrong)
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        let (images, stated) = match bytes.as_slice() {
            [0x80, ..] => (pickled::images(&bytes)?, None),
            [b'P', b'A', b'R', b'1', ..] => table::images(bytes.into())?,
            _ if bytes.trim_ascii_start().starts_with(b"{") => json::images(&bytes)?,
            _ => {
                return Err(
                    "neither JSON with train, val and test, nor a pickle, nor Parquet".to_string(),
                );
            }
        };
        let split = Self::of(images)?;
        let found = split.hash().to_string();
        match stated {
            Some(stated) if stated != found => Err(format!(
                "its `hash` is {stated}, but its images have {found}; it was changed after it was written"
            )),
            _ => Ok(split),
        }
    }

    /// All images, in the order of the file.
    pub fn images(&self) -> &[SplitImage] {
        &self.images
    }

    /// The images of one part, in the order of the file.
    pub fn part(&self, split: Split) -> impl Iterator<Item = &SplitImage> {
        self.images.iter().filter(move |image| image.split == split)
    }

    /// Name of each class by its label.
    pub fn classes(&self) -> BTreeMap<u32, &str> {
        let named = self.images.iter();
        named
            .map(|image| (image.label, image.class_name.as_str()))
            .collect()
    }

    /// The folder that all paths share, with its slash; empty if they share none.
    pub fn shared(&self) -> &str {
        &self.images[0].path[..self.shared]
    }

    /// Path of an image below the folder that all paths of the file share: the same whatever folder that is.
    pub fn below<'a>(&self, image: &'a SplitImage) -> &'a str {
        &image.path[self.shared..]
    }

    /// BLAKE3 hash of what the split says, whatever file format says it and wherever the images lie: for each part and class the
    /// paths below the shared folder, in their order.
    pub fn hash(&self) -> Fingerprint {
        let mut images: Vec<&SplitImage> = self.images.iter().collect();
        images.sort_by_key(|image| (image.split, image.label));
        let mut all = Vec::new();
        for image in images {
            all.extend(image.label.to_le_bytes());
            for text in [image.split.name(), &image.class_name, self.below(image)] {
                all.extend((text.len() as u64).to_le_bytes());
                all.extend(text.as_bytes());
            }
        }
        let hash = FingerprintBuilder::new("split-file").bytes("images", &all);
        // Only a value without a JSON form is an error, and these are bytes.
        hash.finish()
            .unwrap_or_else(|_| unreachable!("bytes alone are hashed"))
    }

    /// The images of a subset of the classes, relabelled from 0: CoOp's base-to-new protocol, in which the first half of the
    /// sorted labels, rounded up, is `base`.
    ///
    /// # Errors
    /// A subset without an image, in words.
    pub fn subsampled(&self, which: SubsampleClasses) -> Result<Self, String> {
        if which == SubsampleClasses::All {
            return Ok(self.clone());
        }
        let labels: Vec<u32> = self.classes().into_keys().collect();
        let taken: HashMap<u32, u32> = (subsample_classes(&labels, which).iter().copied())
            .zip(0..)
            .collect();
        let images = self.images.iter().filter_map(|image| {
            Some(SplitImage {
                label: *taken.get(&image.label)?,
                ..image.clone()
            })
        });
        Self::of(images.collect())
    }

    /// The split as the JSON file of CoOp, with its hash; paths as they are here.
    pub fn to_json(&self) -> String {
        json::text(self)
    }

    /// The split as a Parquet table, one row per image, with its hash in the metadata; paths as they are here.
    ///
    /// # Errors
    /// An error of the Parquet writer, in words.
    pub fn to_parquet(&self) -> Result<Vec<u8>, String> {
        table::bytes(self)
    }
}

/// Bytes of the longest folder, with its slash, that all paths begin with.
fn shared_folder(images: &[SplitImage]) -> usize {
    let Some(first) = images.first() else {
        return 0;
    };
    let mut shared = first.path.rfind('/').map_or(0, |slash| slash + 1);
    for image in images {
        let equal = (first.path.bytes().zip(image.path.bytes()))
            .take(shared)
            .take_while(|(a, b)| a == b)
            .count();
        if equal < shared {
            shared = first.path[..floor_boundary(&first.path, equal)]
                .rfind('/')
                .map_or(0, |slash| slash + 1);
        }
    }
    shared
}

/// The largest position of a character of `text` up to `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    (0..=at)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

/// A path with forward slashes: files that were written on Windows have the others.
fn with_slashes(path: &str) -> String {
    match path.contains('\\') && !path.contains('/') {
        true => path.replace('\\', "/"),
        false => path.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(rows: &[(&str, Split, u32, &str)]) -> Result<SplitFile, String> {
        let image = |(path, split, label, name): &(&str, Split, u32, &str)| SplitImage {
            path: path.to_string(),
            split: *split,
            label: *label,
            class_name: name.to_string(),
        };
        SplitFile::of(rows.iter().map(image).collect())
    }

    fn five(root: &str) -> SplitFile {
        let path = |name: &str| format!("{root}{name}");
        let rows = [
            ("train/a/1.png", Split::Train, 0, "ant"),
            ("train/c/1.png", Split::Train, 2, "cat"),
            ("train/c/2.png", Split::Train, 2, "cat"),
            ("test/b/1.png", Split::Test, 1, "bee"),
            ("test/d/1.png", Split::Test, 3, "dog"),
            ("test/e/1.png", Split::Test, 4, "elk"),
        ];
        let images = rows.map(|(name, split, label, class)| SplitImage {
            path: path(name),
            split,
            label,
            class_name: class.to_string(),
        });
        SplitFile::of(images.to_vec()).unwrap()
    }

    #[test]
    fn the_hash_knows_no_folder_but_everything_else() {
        let (here, there) = (five("images/"), five("/home/someone/däta/images/"));
        assert_eq!(there.shared(), "/home/someone/däta/images/");
        assert_eq!(here.hash(), there.hash());
        assert_eq!(five("").hash(), here.hash());
        let mut others = Vec::new();
        for change in 0..5 {
            let mut images = here.images().to_vec();
            match change {
                0 => images[0].path += "x",
                1 => images[0].split = Split::Val,
                2 => images[0].class_name += "s",
                // The order of the shots of a class.
                3 => images.swap(1, 2),
                _ => drop(images.pop()),
            }
            others.push(SplitFile::of(images).unwrap().hash());
        }
        assert!(others.iter().all(|hash| *hash != here.hash()), "{others:?}");
        // The order of the classes says nothing.
        let mut images = here.images().to_vec();
        images.swap(0, 1);
        assert_eq!(SplitFile::of(images).unwrap().hash(), here.hash());
    }

    #[test]
    fn all_formats_say_the_same() {
        let split = five("/x/");
        let json = SplitFile::parse(split.to_json().into_bytes()).unwrap();
        let table = SplitFile::parse(split.to_parquet().unwrap()).unwrap();
        for read in [json, table] {
            assert_eq!(read.hash(), split.hash());
            assert_eq!(read.classes(), split.classes());
        }
        let changed = split.to_json().replace("train/a/1.png", "train/a/2.png");
        let problem = SplitFile::parse(changed.into_bytes()).unwrap_err();
        assert!(
            problem.contains("it was changed after it was written"),
            "{problem}"
        );
    }

    #[test]
    fn base_is_the_first_half_of_the_labels_rounded_up() {
        let all = five("");
        let base = all.subsampled(SubsampleClasses::Base).unwrap();
        let names: Vec<_> = base.classes().into_iter().collect();
        assert_eq!(names, [(0, "ant"), (1, "bee"), (2, "cat")]);
        let new = all.subsampled(SubsampleClasses::New).unwrap();
        let names: Vec<_> = new.classes().into_iter().collect();
        assert_eq!(names, [(0, "dog"), (1, "elk")]);
        assert_eq!(all.subsampled(SubsampleClasses::All).unwrap(), all);
        let one = split(&[("a", Split::Test, 0, "ant")]).unwrap();
        let problem = one.subsampled(SubsampleClasses::New).unwrap_err();
        assert!(problem.contains("no image"), "{problem}");
    }

    #[test]
    fn paths_of_windows_have_forward_slashes() {
        let json = r#"{"test": [["D:\\data\\a\\1.png", 0, "a"], ["D:\\data\\b\\1.png", 1, "b"]]}"#;
        let split = SplitFile::parse(json.as_bytes().to_vec()).unwrap();
        assert_eq!(split.shared(), "D:/data/");
        assert_eq!(split.below(&split.images()[1]), "b/1.png");
        assert_eq!(with_slashes("a/b\\c.png"), "a/b\\c.png");
    }

    #[test]
    fn contradictions_are_named() {
        let twice = split(&[
            ("a/1.png", Split::Train, 0, "a"),
            ("a/1.png", Split::Test, 0, "a"),
        ]);
        assert!(
            twice
                .unwrap_err()
                .contains("`a/1.png` is listed in train and in test")
        );
        let named = split(&[("1", Split::Train, 0, "a"), ("2", Split::Test, 0, "b")]);
        assert!(named.unwrap_err().contains("label 0 is `a` and `b` (2)"));
        assert!(split(&[]).unwrap_err().contains("no image"));
        assert!(split(&[("a/", Split::Train, 0, "a")]).is_err());
        for bytes in [&b""[..], b"[]", b"image,label\n", b"\x89PNG"] {
            let problem = SplitFile::parse(bytes.to_vec()).unwrap_err();
            assert!(problem.starts_with("neither JSON"), "{problem}");
        }
    }
}
