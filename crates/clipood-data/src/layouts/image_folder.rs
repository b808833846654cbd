//! One folder per class, as torchvision's `ImageFolder` reads it.
//!
//! An image is a file that is named as one (see [`EXTENSIONS`](crate::EXTENSIONS)), in a class folder or in a folder below
//! it; with `nested = false`, in a class folder only. Links are followed, and each folder is searched once for a class. An
//! out-of-distribution dataset needs no class folder: the images directly in the folder of a split belong to it, except
//! with `include` or `loose = false`. Everything else is reported as left out, except class folders that `include` leaves
//! out. With `train_fraction`, the images in the test folder of each class are ordered by a hash of their keys, and the
//! first of them (the fraction of all, rounded, at least one, at most all but one) become the training split.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use clipood_core::{DatasetManifest, Role, SplitMix64, image_key, is_url, nearest};

use super::class_folder::{ClassFolder, above, relative, scan};
use super::classes::with_names;
use super::shape::check_classes;
use crate::error::DataError;
use crate::extensions::is_image;
use crate::folder::{Entry, FolderId, Kind, class_folder_name, entries, identity, is_junk};
use crate::left_out::{LeftOut, LeftOutCounts, Why};
use crate::record::{Found, ImageRecord, Split};
use crate::source::Source;

/// Names without a folder that a note writes out.
const NAMES_SHOWN: usize = 3;

/// The folder of a split, with one folder per class.
pub(super) struct Tree<'a> {
    pub manifest: &'a DatasetManifest,
    pub split: Split,
    /// Key of the manifest that names the folder, for errors.
    pub key: String,
    pub path: PathBuf,
}

/// What lies in the folder of a split.
#[derive(Default)]
pub(super) struct Members {
    /// The class folders, in the order of the keys of their images.
    pub classes: Vec<PathBuf>,
    /// Images of the dataset beside them, in the order of their keys.
    pub loose: Vec<PathBuf>,
    left_out: Vec<LeftOut>,
    /// Number of files.
    files: usize,
}

/// Calls `visit` with the images and whatever is left out below `root`, a few class folders at a time. The order is that of
/// [`visit_dataset`](super::visit_dataset).
pub fn visit<E: From<DataError>>(
    manifest: &DatasetManifest,
    root: &Path,
    visit: &mut dyn FnMut(Found) -> Result<(), E>,
) -> Result<(), E> {
    let mut trees = Vec::new();
    let mut names = BTreeMap::new();
    for tree in split_folders(manifest, root)? {
        tree.check()?;
        let above = above(&tree.path)?;
        let mut members = members(&tree, &above)?;
        check_classes(&tree, &members.classes)?;
        check_members(&tree, &members)?;
        for entry in std::mem::take(&mut members.left_out) {
            visit(Found::LeftOut(entry))?;
        }
        let of_split = members.classes.iter();
        let of_split = of_split.map(|path| class_folder_name(path).map(String::from));
        names.insert(tree.split, of_split.collect::<Result<Vec<_>, _>>()?);
        trees.push((tree, above, members));
    }
    let folders = names.values().flatten().map(String::as_str).collect();
    let named = with_names(manifest, root, &folders)?;
    let manifest = named.as_ref().unwrap_or(manifest);
    if let Some(note) = unused_names(manifest, &names)? {
        visit(Found::Note(note))?;
    }
    let labels = match manifest.role {
        Role::Id => labels(manifest, &names)?,
        Role::Ood => BTreeMap::new(),
    };
    for (tree, above, members) in trees {
        let image = |split: Split, relative: &str, path: PathBuf, class: Option<&str>| {
            let image_key = image_key(&manifest.name, split.name(), relative)?;
            Ok::<_, DataError>(Found::Image(ImageRecord {
                image_key,
                source: Source::found(&path),
                split,
                label: class.and_then(|class| labels.get(class).copied()),
                class_name: class.map(|class| manifest.class_name(class)),
            }))
        };
        let beside = |path: PathBuf| image(tree.split, &relative(&tree.path, &path), path, None);
        let may_be_empty = !members.loose.is_empty();
        let mut loose = members.loose.into_iter().peekable();
        for folders in members.classes.chunks(rayon::current_num_threads()) {
            for mut class in scan(manifest, folders, &above, may_be_empty)? {
                for entry in std::mem::take(&mut class.left_out) {
                    visit(Found::LeftOut(entry))?;
                }
                let name = class.name.clone();
                while let Some(path) = loose.next_if(|path| is_before(path, &name)) {
                    visit(beside(path)?)?;
                }
                for (split, relative, path) in divide(&tree, class)? {
                    visit(image(split, &relative, path, Some(&name))?)?;
                }
            }
        }
        for path in loose {
            visit(beside(path)?)?;
        }
    }
    Ok(())
}

/// Whether the key of a file comes before the keys of the images in a folder beside it.
fn is_before(file: &Path, folder: &str) -> bool {
    let name = Path::new(file.file_name().unwrap_or_default());
    relative(Path::new(""), name) < sort_key(Path::new(folder))
}

/// In a key a slash follows the name of a folder, so that `a-b/1.png` sorts before `a/1.png`.
fn sort_key(folder: &Path) -> String {
    relative(Path::new(""), folder) + "/"
}

/// The folder of each split.
pub(super) fn split_folders<'a>(
    manifest: &'a DatasetManifest,
    root: &Path,
) -> Result<Vec<Tree<'a>>, DataError> {
    let tree = |split, key, path| Tree {
        manifest,
        split,
        key,
        path,
    };
    // If the root is missing, so is every split: the error should name the root.
    let is_missing = !is_url(root) && !root.is_dir();
    if manifest.splits.is_empty() || is_missing {
        return Ok(vec![tree(
            Split::Test,
            "root".to_string(),
            root.to_path_buf(),
        )]);
    }
    let folders = manifest.splits.iter().map(|(name, folder)| {
        let split = Split::named(name).ok_or_else(|| DataError::UnknownSplit {
            dataset: manifest.name.clone(),
            split: name.clone(),
        })?;
        Ok(tree(split, format!("splits.{name}"), root.join(folder)))
    });
    folders.collect()
}

/// The label of each class folder: its index among all of them, sorted.
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
        // A class that only this split has is reported when another split is checked.
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
    Ok(in_split
        .keys()
        .zip(0..)
        .map(|(name, label)| ((*name).to_string(), label))
        .collect())
}

/// A note about the `class_names` that name no folder; `None` if all do. Many keep a part of a dataset with the manifest of
/// the whole, so that is no error, but a misspelt folder would silently be another text.
///
/// # Errors
/// [`DataError::NoNamedFolder`] if not one of them names a folder.
fn unused_names(
    manifest: &DatasetManifest,
    splits: &BTreeMap<Split, Vec<String>>,
) -> Result<Option<String>, DataError> {
    let names = &manifest.class_names;
    let folders: BTreeSet<&str> = splits.values().flatten().map(String::as_str).collect();
    let unused: Vec<&String> = names
        .keys()
        .filter(|folder| !folders.contains(folder.as_str()))
        .collect();
    let Some(first) = unused.first() else {
        return Ok(None);
    };
    // A folder that has a name of its own is not the one that was meant.
    let unnamed: Vec<&str> = (folders.iter().copied())
        .filter(|folder| !names.contains_key(*folder))
        .collect();
    if unused.len() == names.len() {
        return Err(DataError::NoNamedFolder {
            dataset: manifest.name.clone(),
            key: first.to_string(),
            nearest: nearest(first, unnamed.iter().copied())
                .or(unnamed.first().copied())
                .map(String::from),
        });
    }
    let meant = unused.iter().filter_map(|folder| {
        let close = nearest(folder, unnamed.iter().copied())?;
        Some(format!("`{folder}` (did you mean `{close}`?)"))
    });
    let mut shown: Vec<String> = meant.take(NAMES_SHOWN).collect();
    if shown.is_empty() {
        shown.push(format!("the first is `{first}`"));
    }
    Ok(Some(format!(
        "{} of {} names in `class_names` are of no folder: {}",
        unused.len(),
        names.len(),
        shown.join(", ")
    )))
}

/// The images of a class with their splits: the split of the folder, or train and test as `train_fraction` divides it.
fn divide(tree: &Tree<'_>, class: ClassFolder) -> Result<Vec<(Split, String, PathBuf)>, DataError> {
    let manifest = tree.manifest;
    let images = class.images.into_iter();
    let (Some(fraction), Split::Test) = (manifest.train_fraction, tree.split) else {
        return Ok(images
            .map(|(relative, path)| (tree.split, relative, path))
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

/// What lies in the folder of a split. A link to the folder itself, or to one `above` it, is no class.
///
/// # Errors
/// A folder that cannot be read, a folder of `include` that is missing.
pub(super) fn members(tree: &Tree<'_>, above: &HashSet<FolderId>) -> Result<Members, DataError> {
    let manifest = tree.manifest;
    let include = &manifest.include;
    let takes_loose =
        manifest.role == Role::Ood && include.is_empty() && manifest.loose != Some(false);
    let mut members = Members::default();
    for Entry { path, kind } in entries(&tree.path)? {
        members.files += usize::from(kind != Kind::Folder);
        let name = path.file_name().unwrap_or_default();
        if include.iter().any(|folder| name == folder.as_str()) {
            // Whether it is a folder is checked below.
            members.classes.push(path);
            continue;
        }
        let why = match kind {
            _ if is_junk(&path) => Why::Junk,
            Kind::Folder if !include.is_empty() => continue,
            Kind::Folder if !above.contains(&identity(&path)?) => {
                members.classes.push(path);
                continue;
            }
            Kind::Folder => Why::Searched,
            Kind::File | Kind::Broken if is_image(&path) && takes_loose => {
                members.loose.push(path);
                continue;
            }
            Kind::File | Kind::Broken if is_image(&path) => Why::NoClass,
            Kind::File => Why::NoImage,
            Kind::Broken => Why::Broken,
        };
        members.left_out.push(LeftOut::new(path, why));
    }
    for name in include {
        check_folder(tree, "include", &tree.path.join(name))?;
    }
    let name = |path: &PathBuf| PathBuf::from(path.file_name().unwrap_or_default());
    members
        .classes
        .sort_by_cached_key(|path| sort_key(&name(path)));
    members
        .loose
        .sort_by_cached_key(|path| relative(&tree.path, path));
    Ok(members)
}

/// Checks that there is something to read.
fn check_members(tree: &Tree<'_>, members: &Members) -> Result<(), DataError> {
    if !(members.classes.is_empty() && members.loose.is_empty()) {
        return Ok(());
    }
    let mut left_out = LeftOutCounts::default();
    members
        .left_out
        .iter()
        .for_each(|entry| left_out.add(entry));
    let expected = match tree.manifest.role {
        Role::Id => "one folder for each class",
        Role::Ood => "images, or folders of images",
    };
    Err(tree.empty(expected, members.files, left_out))
}

impl Tree<'_> {
    /// The error of a folder with nothing to read in it.
    pub(super) fn empty(
        &self,
        expected: &'static str,
        files: usize,
        left_out: LeftOutCounts,
    ) -> DataError {
        DataError::NoClasses {
            dataset: self.manifest.name.clone(),
            key: self.key.clone(),
            path: self.path.clone(),
            files,
            expected,
            left_out: Box::new(left_out),
        }
    }

    /// Checks that the folder exists.
    pub(super) fn check(&self) -> Result<(), DataError> {
        check_folder(self, &self.key, &self.path)
    }
}

fn check_folder(tree: &Tree<'_>, key: &str, path: &Path) -> Result<(), DataError> {
    if is_url(path) {
        // A folder of an object store exists if something lies in it.
        return match entries(path)?.is_empty() {
            false => Ok(()),
            true => Err(DataError::MissingFolder {
                dataset: tree.manifest.name.clone(),
                key: key.to_string(),
                path: path.to_path_buf(),
                problem: "no object",
            }),
        };
    }
    let problem = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "a file where a folder is expected",
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "no folder",
        Err(source) => {
            let path = path.to_path_buf();
            return Err(DataError::Io { path, source });
        }
    };
    Err(DataError::MissingFolder {
        dataset: tree.manifest.name.clone(),
        key: key.to_string(),
        path: path.to_path_buf(),
        problem,
    })
}
