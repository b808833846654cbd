//! Dataset manifests: where a dataset is stored and how to read it.

mod check;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::class_texts::spaced;
use crate::document::parse;
use crate::error::CoreError;
use crate::place::join;

pub(crate) use self::check::{SPLITS, check_name};

/// A dataset manifest, `manifests/datasets/*.toml`.
///
/// ```
/// use clipood_core::{DatasetManifest, Role};
/// let text = r#"
/// name = "textures"
/// role = "ood"
/// layout = "image-folder"
/// root = "dtd/images"
/// "#;
/// let manifest = DatasetManifest::parse(text, "manifests/datasets/textures.toml")?;
/// assert_eq!(manifest.role, Role::Ood);
/// assert!(manifest.splits.is_empty());
/// # Ok::<(), clipood_core::CoreError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetManifest {
    /// Name of the dataset, the first component of its image keys: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// In or out of distribution.
    pub role: Role,
    /// How the images are stored.
    pub layout: Layout,
    /// The dataset's folder: relative to the data root, absolute, or a URL (`s3://`, `az://`, `gs://`, `http(s)://`). Or a
    /// dataset of the Hugging Face hub, as `hub:frgfm/imagenette:320px`, with layout `parquet` and the names of its splits there
    /// in `splits`; once it is fetched, a run records the commit and the files instead.
    pub root: PathBuf,
    /// Where the files of a dataset of the hub are on this machine, as whoever has fetched them says; part of no manifest and
    /// no fingerprint.
    #[serde(skip)]
    pub fetched: Option<Fetched>,
    /// What each split (`train`, `val`, `test`) consists of, below `root`: a folder for the layouts of folders, else a file
    /// or a pattern of files, in which `*`, `?` and `[a-z]` stand for a part of a name, `{0000..1023}` for the numbers
    /// from 0000 to 1023 and `{a,b}` for one of several words. Empty: everything is the test split, unless the layout says which
    /// split an image belongs to.
    #[serde(default)]
    pub splits: BTreeMap<String, PathBuf>,
    /// The file or pattern of files (as in `splits`) of the whole dataset, for layouts of files, instead of `splits`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<PathBuf>,
    /// The folder below `root` that the paths in a list of images start from; if absent `root`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// The columns of a table, where their names are not the usual ones.
    #[serde(default, skip_serializing_if = "Columns::is_default")]
    pub columns: Columns,
    /// A file below `root` with the names of all classes, by the ids of their folders or in the order of their labels: one name
    /// per line, or the lists of CoOp, Caffe and Keras.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_list: Option<PathBuf>,
    /// Fraction of each class, above 0 and below 1, that becomes the training split, for datasets that have none. A hash of
    /// the keys decides which images are taken.
    #[serde(default)]
    pub train_fraction: Option<f64>,
    /// The class folders to read; empty reads all.
    #[serde(default)]
    pub include: Vec<String>,
    /// Readable names of class folders. The default is the name of the folder with `_` and `-` replaced by spaces. Several
    /// folders may have one name; they are classes of their own.
    #[serde(default)]
    pub class_names: BTreeMap<String, String>,
    /// Whether images in folders below a class folder are read as images of that class; if absent they are, as torchvision's
    /// `ImageFolder` does. A run records `false` where there are none.
    #[serde(default)]
    pub nested: Option<bool>,
    /// Whether an out-of-distribution dataset also reads the images that lie beside its folders, directly in the folder of
    /// the split; if absent it does. A run records `true` where there are both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loose: Option<bool>,
    /// Number of images in all splits together; the reader of the dataset reports any other number as an error.
    #[serde(default)]
    pub expected_images: Option<usize>,
    /// The program that creates the dataset on first use; the only one is `demo`.
    #[serde(default)]
    pub generator: Option<String>,
    /// Where the dataset comes from and what it should contain, for `clipood data check`; no result depends on it, so it
    /// enters no fingerprint.
    #[serde(default, skip_serializing)]
    pub about: About,
}

/// Where a dataset comes from and what it should contain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct About {
    /// Where to get it, and where to put it.
    pub source: Option<String>,
    /// Its licence or terms of use.
    pub licence: Option<String>,
    /// Number of images of the training split.
    pub train: Option<usize>,
    /// Number of images of the validation split.
    pub val: Option<usize>,
    /// Number of images of the test split.
    pub test: Option<usize>,
    /// Number of classes.
    pub classes: Option<usize>,
    /// What else to know, such as counts that were not verified.
    pub note: Option<String>,
}

impl About {
    /// The expected number of images of `train`, `val` or `test`, if it is known.
    pub fn images(&self, split: &str) -> Option<usize> {
        match split {
            "train" => self.train,
            "val" => self.val,
            "test" => self.test,
            _ => None,
        }
    }
}

/// The files of a dataset of the hub on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Their folder.
    pub folder: PathBuf,
    /// The pattern of the files of each split, below the folder.
    pub splits: BTreeMap<String, PathBuf>,
}

/// The role of a dataset in a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// In-distribution: prompts are made for its classes.
    Id,
    /// Out-of-distribution.
    Ood,
}

/// How the images of a dataset are stored. Each layout has a reader of its own in `clipood-data`, whose documentation says
/// how to add one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// One folder per class, as in torchvision's `ImageFolder`.
    ImageFolder,
    /// Text files with a path and a label on each line, as OpenOOD's `benchmark_imglist`.
    Imglist,
    /// Parquet files that hold the encoded images, as the image datasets of the Hugging Face hub.
    Parquet,
    /// A file that says which images are trained, validated and tested on, as CoOp's `split_zhou_*.json`.
    SplitFile,
    /// The binary version of CIFAR-10 or CIFAR-100.
    CifarBinary,
    /// Tar files of samples, as WebDataset has them.
    Webdataset,
    /// Images without classes in a folder and those below it.
    FlatFolder,
    /// CSV or Parquet files with the path or URL of an image, its class and its split in each row.
    Table,
}

impl Layout {
    /// The name in manifests, such as `image-folder`.
    pub fn name(self) -> &'static str {
        match self {
            Layout::ImageFolder => "image-folder",
            Layout::Imglist => "imglist",
            Layout::Parquet => "parquet",
            Layout::SplitFile => "split-file",
            Layout::CifarBinary => "cifar-binary",
            Layout::Webdataset => "webdataset",
            Layout::FlatFolder => "flat-folder",
            Layout::Table => "table",
        }
    }

    /// Whether `splits` names folders, not files.
    pub fn is_of_folders(self) -> bool {
        match self {
            Layout::ImageFolder | Layout::FlatFolder => true,
            Layout::Imglist
            | Layout::Parquet
            | Layout::SplitFile
            | Layout::CifarBinary
            | Layout::Webdataset
            | Layout::Table => false,
        }
    }
}

/// Names of columns, for layouts that have some; see the reader of each layout for its usual names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// The column of the images or of their paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The column, or the key of a dictionary, of the classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The column of the splits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
}

impl Columns {
    fn is_default(&self) -> bool {
        *self == Columns::default()
    }
}

impl DatasetManifest {
    /// Reads and checks a manifest; `origin` (the file's path) names it in errors.
    ///
    /// # Errors
    /// The first mistake, with its line: TOML that does not parse, an unknown or a missing key, a value of the wrong
    /// type, or one that is not allowed.
    pub fn parse(toml: &str, origin: &str) -> Result<DatasetManifest, CoreError> {
        parse(toml, origin, DatasetManifest::check)
    }

    /// The folder of the dataset: a path, or a URL; `data` is the folder that a relative root starts from.
    pub fn root_in(&self, data: &Path) -> PathBuf {
        join(data, self.place())
    }

    /// The root as it is looked up: the folder of a dataset of the hub that was fetched, else [`root`](Self::root).
    pub fn place(&self) -> &Path {
        match &self.fetched {
            Some(fetched) => &fetched.folder,
            None => &self.root,
        }
    }

    /// What each split consists of: for a dataset of the hub that was fetched its files, else [`splits`](Self::splits).
    pub fn split_places(&self) -> &BTreeMap<String, PathBuf> {
        match &self.fetched {
            Some(fetched) => &fetched.splits,
            None => &self.splits,
        }
    }

    /// What follows `hub:` in the root of a dataset of the Hugging Face hub.
    pub fn on_hub(&self) -> Option<&str> {
        self.root.to_str()?.strip_prefix("hub:")
    }

    /// The readable name of a class folder: that of `class_names`, or else the folder with `_` and `-` replaced by spaces.
    pub fn class_name(&self, folder: &str) -> String {
        match self.class_names.get(folder) {
            Some(name) => name.clone(),
            None => spaced(folder),
        }
    }
}
