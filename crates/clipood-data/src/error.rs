//! What can be wrong with a dataset.

use std::path::PathBuf;

use clipood_core::{CoreError, shown};

use crate::left_out::LeftOutCounts;

/// A dataset that cannot be listed or split.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A folder that the manifest names does not exist.
    #[error("dataset `{dataset}`: {problem} at {path} (manifest key `{key}`)", path = shown(path))]
    MissingFolder {
        /// Name of the dataset.
        dataset: String,
        /// The key that names the folder, such as `splits.train`.
        key: String,
        /// The folder.
        path: PathBuf,
        /// What was found instead.
        problem: &'static str,
    },
    /// A folder that cannot be read.
    #[error("cannot read {path}: {source}", path = shown(path))]
    Io {
        /// The folder.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A folder that lies so deep that the system does not open its path.
    #[error(
        "the path of a folder is {length} bytes long, which is more than the system opens: {path}: {source}; move it nearer to the root, or name a folder on the way",
        length = path.as_os_str().len(),
        path = shown(path)
    )]
    LongPath {
        /// The folder.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A split without a single class folder, or of an out-of-distribution dataset without an image.
    #[error(
        "dataset `{dataset}`: no {} in {path} (manifest key `{key}`), {files} files lie directly in it; expected {expected}{}",
        lacking(.expected),
        in_brackets(.left_out),
        path = shown(path)
    )]
    NoClasses {
        /// Name of the dataset.
        dataset: String,
        /// The key that names the folder.
        key: String,
        /// The folder.
        path: PathBuf,
        /// Number of files directly in it.
        files: usize,
        /// What the folder should contain.
        expected: &'static str,
        /// What is left out in it.
        left_out: Box<LeftOutCounts>,
    },
    /// An in-distribution dataset whose class folders look like splits, or like the folder that an archive wraps around
    /// the classes.
    #[error(
        "dataset `{dataset}`: {path} (manifest key `{key}`) holds {folders} with folders instead of images, which do not look like classes; \
         {remedy}, or set `nested = true` to read them as classes",
        path = shown(path)
    )]
    NotClasses {
        /// Name of the dataset.
        dataset: String,
        /// The key that names the folder.
        key: String,
        /// The folder.
        path: PathBuf,
        /// Names of the folders in it.
        folders: String,
        /// What to change in the manifest.
        remedy: &'static str,
    },
    /// A class folder without an image.
    #[error(
        "dataset `{dataset}`: class folder {path} holds no image{}; expected files named {extensions}{}",
        unsearched(.folders),
        in_brackets(.left_out),
        path = shown(path),
        extensions = crate::extensions::EXTENSIONS.join(", ")
    )]
    EmptyClass {
        /// Name of the dataset.
        dataset: String,
        /// The folder.
        path: PathBuf,
        /// Number of folders in it that were not searched.
        folders: usize,
        /// What is left out in it.
        left_out: Box<LeftOutCounts>,
    },
    /// A class folder of one split that another split lacks.
    #[error(
        "dataset `{dataset}`: class folder `{class}` is in split `{found}` but not in split `{missing}`"
    )]
    ClassMissing {
        /// Name of the dataset.
        dataset: String,
        /// Name of the folder.
        class: String,
        /// The split that has it.
        found: &'static str,
        /// The split that does not.
        missing: &'static str,
    },
    /// A manifest whose `class_names` name not one class folder that exists.
    #[error(
        "dataset `{dataset}`: no key of `class_names` is a class folder, the first is `{key}`{}",
        the_nearest(.nearest)
    )]
    NoNamedFolder {
        /// Name of the dataset.
        dataset: String,
        /// The first key.
        key: String,
        /// The folder nearest to it.
        nearest: Option<String>,
    },
    /// A manifest that names a split which is not `train`, `val` or `test`.
    #[error("dataset `{dataset}`: unknown split `{split}`, expected train, val or test")]
    UnknownSplit {
        /// Name of the dataset.
        dataset: String,
        /// The split.
        split: String,
    },
    /// A number of images other than the manifest's `expected_images`.
    #[error("dataset `{dataset}`: {found} images found in {path}, `expected_images` says {expected}", path = shown(path))]
    ImageCount {
        /// Name of the dataset.
        dataset: String,
        /// The dataset's folder.
        path: PathBuf,
        /// Number of images in all splits.
        found: usize,
        /// The manifest's `expected_images`.
        expected: usize,
    },
    /// A file or pattern of the manifest that does not exist.
    #[error(
        "dataset `{dataset}`: no file `{pattern}` in {path} (manifest key `{key}`)",
        path = shown(path)
    )]
    NoFiles {
        /// Name of the dataset.
        dataset: String,
        /// The key that names the file.
        key: String,
        /// The folder of the dataset.
        path: PathBuf,
        /// The file or pattern.
        pattern: String,
    },
    /// A file of the dataset whose content is wrong.
    #[error("dataset `{dataset}`: {place}: {problem}")]
    Content {
        /// Name of the dataset.
        dataset: String,
        /// The file, with the line or row if it is known.
        place: String,
        /// What was found and what is expected.
        problem: String,
    },
    /// A file of images and captions that cannot be read as one.
    #[error("{path}: {problem}", path = shown(path))]
    Pairs {
        /// The file.
        path: PathBuf,
        /// What was found and what is expected.
        problem: String,
    },
    /// A class folder whose name cannot be the name of a class.
    #[error(
        "the name of the class folder {path} {problem}; rename it",
        path = shown(path)
    )]
    ClassFolderName {
        /// The folder.
        path: PathBuf,
        /// What is wrong with the name.
        problem: &'static str,
    },
    /// A class that `train_fraction` cannot divide.
    #[error(
        "dataset `{dataset}`: class `{class}` has {found} image, `train_fraction` needs at least 2 to divide"
    )]
    TooFewToDivide {
        /// Name of the dataset.
        dataset: String,
        /// The class.
        class: String,
        /// Number of its images.
        found: usize,
    },
    /// No training image to draw shots from.
    #[error(
        "dataset `{dataset}` has no labelled training image to draw shots from; give its manifest a train split or a `train_fraction`"
    )]
    NoTrainImages {
        /// Name of the dataset.
        dataset: String,
    },
    /// A class with fewer training images than shots.
    #[error(
        "dataset `{dataset}`: class `{class}` has {found} training images, {wanted} shots were asked for"
    )]
    TooFewShots {
        /// Name of the dataset.
        dataset: String,
        /// The class.
        class: String,
        /// Number of its training images.
        found: usize,
        /// Number of shots requested.
        wanted: usize,
    },
    /// A split file that cannot be read, or that does not fit the images.
    #[error("split file {path}: {problem}", path = shown(path))]
    SplitFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A name that cannot stand in an image key.
    #[error(transparent)]
    Key(#[from] CoreError),
}

fn lacking(expected: &str) -> &'static str {
    match expected {
        "images" => "image",
        _ => "class folder",
    }
}

fn the_nearest(folder: &Option<String>) -> String {
    match folder {
        Some(folder) => format!("; the nearest folder is `{folder}`"),
        None => String::new(),
    }
}

fn in_brackets(left_out: &LeftOutCounts) -> String {
    match left_out.is_only_junk() {
        true => String::new(),
        false => format!(" ({left_out})"),
    }
}

fn unsearched(folders: &usize) -> String {
    match folders {
        0 => String::new(),
        _ => format!(" but {folders} folders, which `nested = true` would search"),
    }
}
