//! What can be wrong with a dataset.

use std::path::PathBuf;

use clipood_core::CoreError;

/// A dataset that cannot be listed or split.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A folder that the manifest names does not exist.
    #[error("dataset `{dataset}`: {problem} at {path} (manifest key `{key}`)", path = path.display())]
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
    #[error("cannot read {path}: {source}", path = path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A split without a single class folder.
    #[error(
        "dataset `{dataset}`: no class folder in {path} (manifest key `{key}`), {files} files lie directly in it; expected one folder for each class",
        path = path.display()
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
    },
    /// A class folder without an image.
    #[error(
        "dataset `{dataset}`: class folder {path} holds no image{}; expected files named {extensions}",
        unsearched(.folders),
        path = path.display(),
        extensions = crate::extensions::EXTENSIONS.join(", ")
    )]
    EmptyClass {
        /// Name of the dataset.
        dataset: String,
        /// The folder.
        path: PathBuf,
        /// Number of folders in it that were not searched.
        folders: usize,
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
    #[error("dataset `{dataset}`: {found} images found in {path}, `expected_images` says {expected}", path = path.display())]
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
    /// A file or folder whose path is not UTF-8, so that it has no portable key and cannot be stored as a uri.
    #[error("the name of {path} is not UTF-8", path = path.display())]
    NotUtf8 {
        /// The path; messages show a replacement character for bytes that are not UTF-8.
        path: PathBuf,
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
    /// A name that cannot stand in an image key.
    #[error(transparent)]
    Key(#[from] CoreError),
}

fn the_nearest(folder: &Option<String>) -> String {
    match folder {
        Some(folder) => format!("; the nearest folder is `{folder}`"),
        None => String::new(),
    }
}

fn unsearched(folders: &usize) -> String {
    match folders {
        0 => String::new(),
        _ => format!(" but {folders} folders, which `nested = true` would search"),
    }
}
