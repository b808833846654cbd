//! From a dataset manifest to the list of its images.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clipood_core::{DatasetManifest, Layout, Role, SplitMix64, image_key};

use crate::error::DataError;
use crate::folder::{ClassFolder, Tree, class_folders, scan, utf8_name};

/// The part of a dataset that an image belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// Shots are drawn from it.
    Train,
    /// For choosing settings.
    Val,
    /// Scored.
    Test,
}

impl Split {
    /// `train`, `val` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
        }
    }

    fn named(name: &str) -> Option<Split> {
        [Split::Train, Split::Val, Split::Test]
            .into_iter()
            .find(|split| split.name() == name)
    }
}

/// One image of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// `dataset/split/class folder/file`, the same on every machine.
    pub image_key: String,
    /// The file on this machine.
    pub path: PathBuf,
    /// The part of the dataset.
    pub split: Split,
    /// Place of the class folder among all, sorted bytewise; none for out-of-distribution datasets.
    pub label: Option<u32>,
    /// Readable name of the class folder.
    pub class_name: Option<String>,
}

/// The images of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Sorted bytewise by `image_key`.
    pub records: Vec<ImageRecord>,
    /// Files that are no images by their names, hidden ones, and folders that were not searched; sorted.
    pub ignored: Vec<PathBuf>,
}

/// What lies in the folders of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An image of the dataset.
    Image(ImageRecord),
    /// What is none; as in [`Listing::ignored`].
    Ignored(PathBuf),
}

/// Lists the images of a dataset, whose root may be relative to `data_root`.
///
/// An image is a file in a class folder that is named as one (torchvision's list of endings, in either case); everything
/// else but class folders that `include` leaves out is in [`Listing::ignored`]. With `train_fraction`, the images of each
/// class's test folder are ordered by a hash of their keys, and the first of them (the fraction of all, rounded, at least
/// one, at most all but one) become the training split.
///
/// # Errors
/// A folder that is missing or cannot be read, a split without classes, a class without images, splits of an
/// in-distribution dataset with different classes, two of its classes of one name, a number of images other than
/// `expected_images`, a name that is not UTF-8 or cannot stand in an image key.
pub fn list_dataset(manifest: &DatasetManifest, data_root: &Path) -> Result<Listing, DataError> {
    let mut records = Vec::new();
    let mut ignored = Vec::new();
    visit_dataset(manifest, data_root, &mut |found| {
        match found {
            Found::Image(record) => records.push(record),
            Found::Ignored(path) => ignored.push(path),
        }
        Ok::<(), DataError>(())
    })?;
    records.sort_by(|a, b| a.image_key.cmp(&b.image_key));
    ignored.sort();
    Ok(Listing { records, ignored })
}

/// Shows `visit` what [`list_dataset`] lists, class by class, while no more than a few class folders are held in memory.
///
/// The images of the test split come in the order of their keys, so do those of the validation split; training images
/// come class by class.
///
/// # Errors
/// As [`list_dataset`], some of them after images were shown; the errors of `visit`, which end the listing.
pub fn visit_dataset<E: From<DataError>>(
    manifest: &DatasetManifest,
    data_root: &Path,
    visit: &mut dyn FnMut(Found) -> Result<(), E>,
) -> Result<(), E> {
    match manifest.layout {
        Layout::ImageFolder => visit_folders(manifest, &data_root.join(&manifest.root), visit),
    }
}

fn visit_folders<E: From<DataError>>(
    manifest: &DatasetManifest,
    root: &Path,
    visit: &mut dyn FnMut(Found) -> Result<(), E>,
) -> Result<(), E> {
    let mut trees = Vec::new();
    let mut names = BTreeMap::new();
    for (split, key, path) in split_folders(manifest, root)? {
        let tree = Tree {
            dataset: &manifest.name,
            key,
            path,
            include: &manifest.include,
            nested: manifest.nested,
        };
        let (folders, beside) = class_folders(&tree)?;
        for path in beside {
            visit(Found::Ignored(path))?;
        }
        let of_split = folders.iter().map(|path| utf8_name(path).map(String::from));
        names.insert(split, of_split.collect::<Result<Vec<_>, _>>()?);
        trees.push((split, tree, folders));
    }
    let labels = match manifest.role {
        Role::Id => labels(manifest, &names)?,
        Role::Ood => BTreeMap::new(),
    };
    let mut images = 0;
    for (split, tree, folders) in trees {
        for folders in folders.chunks(rayon::current_num_threads()) {
            for mut class in scan(&tree, folders)? {
                for path in std::mem::take(&mut class.ignored) {
                    visit(Found::Ignored(path))?;
                }
                let label = labels.get(&class.name).copied();
                let class_name = manifest.class_name(&class.name);
                for (split, relative, path) in divided(manifest, split, class)? {
                    images += 1;
                    visit(Found::Image(ImageRecord {
                        image_key: image_key(&manifest.name, split.name(), &relative)
                            .map_err(DataError::from)?,
                        path,
                        split,
                        label,
                        class_name: Some(class_name.clone()),
                    }))?;
                }
            }
        }
    }
    if let Some(expected) = manifest.expected_images.filter(|n| *n != images) {
        return Err(E::from(DataError::ImageCount {
            dataset: manifest.name.clone(),
            path: root.to_path_buf(),
            found: images,
            expected,
        }));
    }
    Ok(())
}

/// The folder of each split, and the manifest key that leads to it.
fn split_folders(
    manifest: &DatasetManifest,
    root: &Path,
) -> Result<Vec<(Split, String, PathBuf)>, DataError> {
    // Without its root, no split is there: then the root is what to name.
    if manifest.splits.is_empty() || !root.is_dir() {
        return Ok(vec![(Split::Test, "root".to_string(), root.to_path_buf())]);
    }
    let folders = manifest.splits.iter().map(|(name, folder)| {
        let split = Split::named(name).ok_or_else(|| DataError::UnknownSplit {
            dataset: manifest.name.clone(),
            split: name.clone(),
        })?;
        Ok((split, format!("splits.{name}"), root.join(folder)))
    });
    folders.collect()
}

/// Label of each class folder: its place among all, sorted.
fn labels(
    manifest: &DatasetManifest,
    splits: &BTreeMap<Split, Vec<String>>,
) -> Result<BTreeMap<String, u32>, DataError> {
    let mut in_split: BTreeMap<&str, Split> = BTreeMap::new();
    for (split, classes) in splits {
        for class in classes {
            in_split.entry(class).or_insert(*split);
        }
    }
    for (split, classes) in splits {
        let lacks = |name: &str| classes.iter().all(|class| class != name);
        // A class of this split alone is found when another split is looked at.
        if classes.len() < in_split.len()
            && let Some((name, found)) = in_split.iter().find(|(name, _)| lacks(name))
        {
            return Err(DataError::ClassMissing {
                dataset: manifest.name.clone(),
                class: (*name).to_string(),
                found: found.name(),
                missing: split.name(),
            });
        }
    }
    let mut folder_of: BTreeMap<String, &str> = BTreeMap::new();
    for folder in in_split.keys() {
        let name = manifest.class_name(folder);
        if let Some(first) = folder_of.insert(name.clone(), folder) {
            return Err(DataError::SameClassName {
                dataset: manifest.name.clone(),
                name,
                first: first.to_string(),
                second: (*folder).to_string(),
            });
        }
    }
    Ok(in_split
        .keys()
        .zip(0..)
        .map(|(name, label)| ((*name).to_string(), label))
        .collect())
}

/// The images of a class with their splits: as the folders have it, or divided by `train_fraction`.
fn divided(
    manifest: &DatasetManifest,
    split: Split,
    class: ClassFolder,
) -> Result<Vec<(Split, String, PathBuf)>, DataError> {
    let images = class.images.into_iter();
    let (Some(fraction), Split::Test) = (manifest.train_fraction, split) else {
        return Ok(images
            .map(|(relative, path)| (split, relative, path))
            .collect());
    };
    let count = images.len();
    if count < 2 {
        return Err(DataError::TooFewToDivide {
            dataset: manifest.name.clone(),
            class: class.name,
            found: count,
        });
    }
    let mut ordered = Vec::with_capacity(count);
    for (relative, path) in images {
        let key = image_key(&manifest.name, Split::Test.name(), &relative)?;
        let rank = SplitMix64::keyed(0, &format!("train-fraction/{key}"), 0).next_u64();
        ordered.push((rank, relative, path));
    }
    ordered.sort();
    let train = ((fraction * count as f64).round() as usize).clamp(1, count - 1);
    let split_of = |index| {
        if index < train {
            Split::Train
        } else {
            Split::Test
        }
    };
    let images = ordered.into_iter().enumerate();
    let mut images: Vec<_> = images
        .map(|(index, (_, relative, path))| (split_of(index), relative, path))
        .collect();
    images.sort();
    Ok(images)
}
