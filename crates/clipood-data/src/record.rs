//! The images of a dataset, as every layout lists them.

use std::path::PathBuf;

use crate::left_out::LeftOut;
use crate::source::Source;

/// The part of a dataset that an image belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// Few-shot images are drawn from it.
    Train,
    /// Hyperparameters are chosen on it.
    Val,
    /// Detectors are evaluated on it.
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

    /// The split of this name.
    pub(crate) fn named(name: &str) -> Option<Split> {
        [Split::Train, Split::Val, Split::Test]
            .into_iter()
            .find(|split| split.name() == name)
    }
}

/// One image of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// `dataset/split/` and what identifies the image in its split, such as `class folder/file`, the same on every machine; the names as [`clipood_core::key_part`] writes them.
    pub image_key: String,
    /// Where its bytes lie on this machine.
    pub source: Source,
    /// The part of the dataset.
    pub split: Split,
    /// The number that the layout has for the class, or else its index among all, sorted by the bytes of their folders' names;
    /// `None` for out-of-distribution datasets.
    pub label: Option<u32>,
    /// Readable name of the class.
    pub class_name: Option<String>,
}

/// The images of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Sorted by the bytes of `image_key`.
    pub records: Vec<ImageRecord>,
    /// Files and folders that were left out, sorted by path.
    pub left_out: Vec<LeftOut>,
    /// What a user should know about the folders.
    pub notes: Vec<String>,
}

/// What a reader finds in the folders of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An image of the dataset.
    Image(ImageRecord),
    /// Something else, as in [`Listing::left_out`].
    LeftOut(LeftOut),
    /// A file that holds several images.
    File(PathBuf),
    /// A file that describes images: a list of them, or of the names of classes.
    List(PathBuf),
    /// What a user should know about the folders, such as names in the manifest that no folder has.
    Note(String),
}
