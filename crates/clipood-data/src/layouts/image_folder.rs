//! One folder per class, as torchvision's `ImageFolder` reads it.
//!
//! An image is a file in a class folder that is named as one (see [`EXTENSIONS`](crate::EXTENSIONS)). Everything else is
//! reported as ignored, except class folders that `include` leaves out. With `train_fraction`, the images in the test
//! folder of each class are ordered by a hash of their keys, and the first of them (the fraction of all, rounded, at least
//! one, at most all but one) become the training split.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use clipood_core::{DatasetManifest, Role, SplitMix64, image_key, nearest};
use rayon::prelude::*;

use crate::error::DataError;
use crate::extensions::is_image;
use crate::folder::{canonical, entries, is_hidden, utf8_name};
use crate::record::{Found, ImageRecord, Split};
use crate::source::Source;

/// Names without a folder that a note writes out.
const NAMES_SHOWN: usize = 3;

/// The folder of a split, with one folder per class.
struct Tree<'a> {
    manifest: &'a DatasetManifest,
    split: Split,
    /// Key of the manifest that names the folder, for errors.
    key: String,
    path: PathBuf,
}

/// The images of one class folder.
#[derive(Default)]
struct ClassFolder {
    /// Name of the folder.
    name: String,
    /// Path relative to the folder of the split with forward slashes, and the file; sorted.
    images: Vec<(String, PathBuf)>,
    /// Files and folders that are skipped.
    ignored: Vec<PathBuf>,
}

/// Calls `visit` with the images and the ignored files below `root`, a few class folders at a time. The order is that of
/// [`visit_dataset`](super::visit_dataset).
pub fn visit<E: From<DataError>>(
    manifest: &DatasetManifest,
    root: &Path,
    visit: &mut dyn FnMut(Found) -> Result<(), E>,
) -> Result<(), E> {
    let mut trees = Vec::new();
    let mut names = BTreeMap::new();
    for tree in split_folders(manifest, root)? {
        let (folders, ignored) = class_folders(&tree)?;
        for path in ignored {
            visit(Found::Ignored(path))?;
        }
        let of_split = folders.iter().map(|path| utf8_name(path).map(String::from));
        names.insert(tree.split, of_split.collect::<Result<Vec<_>, _>>()?);
        trees.push((tree, folders));
    }
    if let Some(note) = unused_names(manifest, &names)? {
        visit(Found::Note(note))?;
    }
    let labels = match manifest.role {
        Role::Id => labels(manifest, &names)?,
        Role::Ood => BTreeMap::new(),
    };
    for (tree, folders) in trees {
        for folders in folders.chunks(rayon::current_num_threads()) {
            for mut class in scan(&tree, folders)? {
                for path in std::mem::take(&mut class.ignored) {
                    visit(Found::Ignored(path))?;
                }
                let label = labels.get(&class.name).copied();
                let class_name = manifest.class_name(&class.name);
                for (split, relative, path) in divide(&tree, class)? {
                    visit(Found::Image(ImageRecord {
                        image_key: image_key(&manifest.name, split.name(), &relative)
                            .map_err(DataError::from)?,
                        source: Source::found(path)?,
                        split,
                        label,
                        class_name: Some(class_name.clone()),
                    }))?;
                }
            }
        }
    }
    Ok(())
}

/// The folder of each split.
fn split_folders<'a>(
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
    if manifest.splits.is_empty() || !root.is_dir() {
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

/// The class folders in the order of the keys of their images, and the ignored entries beside them: files, and folders
/// whose names begin with a dot.
fn class_folders(tree: &Tree<'_>) -> Result<(Vec<PathBuf>, Vec<PathBuf>), DataError> {
    let include = &tree.manifest.include;
    check_folder(tree, &tree.key, &tree.path)?;
    let mut folders = Vec::new();
    let mut ignored = Vec::new();
    let mut files = 0;
    for entry in entries(&tree.path)? {
        files += usize::from(!entry.is_folder);
        let name = entry.path.file_name().unwrap_or_default();
        if include.iter().any(|folder| name == folder.as_str()) {
            // Whether it is a folder is checked below.
            folders.push(entry.path);
        } else if !entry.is_folder || is_hidden(&entry.path) {
            ignored.push(entry.path);
        } else if include.is_empty() {
            folders.push(entry.path);
        }
    }
    for name in include {
        check_folder(tree, "include", &tree.path.join(name))?;
    }
    if folders.is_empty() {
        return Err(DataError::NoClasses {
            dataset: tree.manifest.name.clone(),
            key: tree.key.clone(),
            path: tree.path.clone(),
            files,
        });
    }
    // In a key a slash follows the name, so that `a-b/1.png` sorts before `a/1.png`.
    let mut named = Vec::with_capacity(folders.len());
    for path in folders {
        named.push((format!("{}/", utf8_name(&path)?), path));
    }
    named.sort();
    Ok((named.into_iter().map(|(_, path)| path).collect(), ignored))
}

fn check_folder(tree: &Tree<'_>, key: &str, path: &Path) -> Result<(), DataError> {
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

/// Lists some of the class folders in parallel.
fn scan(tree: &Tree<'_>, folders: &[PathBuf]) -> Result<Vec<ClassFolder>, DataError> {
    // A link to the folder of the split, or to one above it, would make every class a part of every other.
    let above: HashSet<PathBuf> = canonical(&tree.path)?
        .ancestors()
        .map(Path::to_path_buf)
        .collect();
    let classes = folders
        .par_iter()
        .map(|path| class_folder(tree, path, above.clone()));
    classes.collect()
}

fn class_folder(
    tree: &Tree<'_>,
    path: &Path,
    searched: HashSet<PathBuf>,
) -> Result<ClassFolder, DataError> {
    let mut class = ClassFolder {
        name: utf8_name(path)?.to_string(),
        ..ClassFolder::default()
    };
    let mut walk = Walk {
        nested: tree.manifest.nested,
        searched,
        skipped_folders: 0,
    };
    walk.folder(path, &class.name.clone(), &mut class)?;
    if class.images.is_empty() {
        return Err(DataError::EmptyClass {
            dataset: tree.manifest.name.clone(),
            path: path.to_path_buf(),
            folders: walk.skipped_folders,
        });
    }
    class.images.sort();
    Ok(class)
}

/// The search of one class folder.
struct Walk {
    /// Whether folders below the class folder are searched.
    nested: bool,
    /// Canonical paths of the folders searched so far: each is searched once, so that links cannot lead in circles.
    searched: HashSet<PathBuf>,
    skipped_folders: usize,
}

impl Walk {
    fn folder(
        &mut self,
        path: &Path,
        relative: &str,
        class: &mut ClassFolder,
    ) -> Result<(), DataError> {
        if !self.searched.insert(canonical(path)?) {
            class.ignored.push(path.to_path_buf());
            return Ok(());
        }
        for entry in entries(path)? {
            let wanted = if entry.is_folder {
                self.nested
            } else {
                is_image(&entry.path)
            };
            if !wanted || is_hidden(&entry.path) {
                self.skipped_folders += usize::from(entry.is_folder);
                class.ignored.push(entry.path);
                continue;
            }
            let relative = format!("{relative}/{}", utf8_name(&entry.path)?);
            if entry.is_folder {
                self.folder(&entry.path, &relative, class)?;
            } else {
                class.images.push((relative, entry.path));
            }
        }
        Ok(())
    }
}
