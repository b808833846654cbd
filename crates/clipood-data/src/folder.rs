//! Reading a tree of class folders, as torchvision's `ImageFolder` does.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, FileType};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::DataError;

/// Endings of image files, in either case: torchvision's `IMG_EXTENSIONS`.
pub const EXTENSIONS: [&str; 9] = [
    "jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp",
];

/// A folder with one folder for each class.
pub struct Tree<'a> {
    /// Name of the dataset, for errors.
    pub dataset: &'a str,
    /// Manifest key that leads to the folder, for errors.
    pub key: String,
    /// The folder.
    pub path: PathBuf,
    /// Class folders to take; empty takes all.
    pub include: &'a [String],
    /// Whether folders below a class folder are searched.
    pub nested: bool,
}

/// The images of one class folder.
#[derive(Default)]
pub struct ClassFolder {
    /// Name of the folder.
    pub name: String,
    /// Path below the tree with forward slashes, and the file; sorted.
    pub images: Vec<(String, PathBuf)>,
    /// Files and folders that are not taken.
    pub ignored: Vec<PathBuf>,
}

/// The class folders by the order of the keys of their images, and what lies beside them: files, and folders whose names
/// begin with a dot.
pub fn class_folders(tree: &Tree<'_>) -> Result<(Vec<PathBuf>, Vec<PathBuf>), DataError> {
    check_folder(tree, &tree.key, &tree.path)?;
    let mut folders = Vec::new();
    let mut ignored = Vec::new();
    let mut files = 0;
    for entry in entries(&tree.path)? {
        files += usize::from(!entry.is_folder);
        let name = entry.path.file_name().unwrap_or_default();
        if tree.include.iter().any(|folder| name == folder.as_str()) {
            // Checked below: what `include` names must be a folder.
            folders.push(entry.path);
        } else if !entry.is_folder || is_hidden(&entry.path) {
            ignored.push(entry.path);
        } else if tree.include.is_empty() {
            folders.push(entry.path);
        }
    }
    for name in tree.include {
        check_folder(tree, "include", &tree.path.join(name))?;
    }
    if folders.is_empty() {
        return Err(DataError::NoClasses {
            dataset: tree.dataset.to_string(),
            key: tree.key.clone(),
            path: tree.path.clone(),
            files,
        });
    }
    // In a key a slash follows the name: `a-b/1.png` stands before `a/1.png`.
    let mut named = Vec::with_capacity(folders.len());
    for path in folders {
        named.push((format!("{}/", utf8_name(&path)?), path));
    }
    named.sort();
    Ok((named.into_iter().map(|(_, path)| path).collect(), ignored))
}

/// Lists some of the class folders, each on a thread.
pub fn scan(tree: &Tree<'_>, folders: &[PathBuf]) -> Result<Vec<ClassFolder>, DataError> {
    // A link back to the tree, or above it, would make every class a part of every other.
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
    seen: HashSet<PathBuf>,
) -> Result<ClassFolder, DataError> {
    let mut class = ClassFolder {
        name: utf8_name(path)?.to_string(),
        ..ClassFolder::default()
    };
    let mut walk = Walk {
        nested: tree.nested,
        seen,
        skipped_folders: 0,
    };
    walk.folder(path, &class.name.clone(), &mut class)?;
    if class.images.is_empty() {
        return Err(DataError::EmptyClass {
            dataset: tree.dataset.to_string(),
            path: path.to_path_buf(),
            folders: walk.skipped_folders,
        });
    }
    class.images.sort();
    Ok(class)
}

/// The search of one class folder.
struct Walk {
    nested: bool,
    /// Real paths of the folders that were searched: each is searched once, so that links cannot lead in circles.
    seen: HashSet<PathBuf>,
    skipped_folders: usize,
}

impl Walk {
    fn folder(
        &mut self,
        path: &Path,
        relative: &str,
        class: &mut ClassFolder,
    ) -> Result<(), DataError> {
        if !self.seen.insert(canonical(path)?) {
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
        dataset: tree.dataset.to_string(),
        key: key.to_string(),
        path: path.to_path_buf(),
        problem,
    })
}

/// What lies in a folder.
pub struct Entry {
    /// Its path.
    pub path: PathBuf,
    /// Whether it is a folder, or a link to one.
    pub is_folder: bool,
}

/// What lies in a folder, sorted by name.
pub fn entries(folder: &Path) -> Result<Vec<Entry>, DataError> {
    let fail = |source| DataError::Io {
        path: folder.to_path_buf(),
        source,
    };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        let kind = entry.file_type().map_err(fail)?;
        // A link that leads nowhere counts as a file: as an image it is listed, and reading it will say what is wrong.
        let is_folder = if kind.is_symlink() {
            fs::metadata(&path)
                .map(|found| found.file_type())
                .as_ref()
                .is_ok_and(FileType::is_dir)
        } else {
            kind.is_dir()
        };
        entries.push(Entry { path, is_folder });
    }
    entries.sort_by(|a, b| a.path.file_name().cmp(&b.path.file_name()));
    Ok(entries)
}

/// The path without links.
pub fn canonical(path: &Path) -> Result<PathBuf, DataError> {
    fs::canonicalize(path).map_err(|source| DataError::Io {
        path: path.to_path_buf(),
        source,
    })
}

/// Whether a file is named as an image.
pub fn is_image(path: &Path) -> bool {
    let ending = path.extension().and_then(OsStr::to_str);
    ending.is_some_and(|ending| {
        EXTENSIONS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(ending))
    })
}

/// Hidden files are leftovers of systems and editors, also when they end like images (`._photo.jpg`).
pub fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// The name of a file or folder.
pub fn utf8_name(path: &Path) -> Result<&str, DataError> {
    let name = path.file_name().and_then(OsStr::to_str);
    name.ok_or_else(|| DataError::NotUtf8 {
        path: path.to_path_buf(),
    })
}
