//! Dataset manifests: where a dataset is stored and how to read it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::class_texts::spaced;
use crate::document::{Problem, parse};
use crate::error::CoreError;
use crate::nearest::{hint, hint_with_list};

/// The splits that a manifest may name.
const SPLITS: [&str; 3] = ["train", "val", "test"];
/// The programs of this workspace that can create a dataset.
const GENERATORS: [&str; 1] = ["demo"];

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
    /// The dataset's folder: relative to the data root, or absolute.
    pub root: PathBuf,
    /// Folder below `root` of each split (`train`, `val`, `test`). Empty: `root` itself is the test split.
    #[serde(default)]
    pub splits: BTreeMap<String, PathBuf>,
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

    /// The readable name of a class folder: that of `class_names`, or else the folder with `_` and `-` replaced by spaces.
    pub fn class_name(&self, folder: &str) -> String {
        match self.class_names.get(folder) {
            Some(name) => name.clone(),
            None => spaced(folder),
        }
    }

    fn check(&self) -> Result<(), Problem> {
        check_name("name", &self.name)?;
        if self.root.as_os_str().is_empty() {
            let text =
                "found an empty path, allowed: a folder, relative to the data root or absolute";
            return Err(Problem::new("root", text));
        }
        self.check_splits()?;
        self.check_classes()?;
        if self.loose.is_some() && self.role == Role::Id {
            let text = "found with role `id`, allowed: role `ood` (an image of no class folder has no label)";
            return Err(Problem::new("loose", text));
        }
        if self.expected_images == Some(0) {
            return Err(Problem::new(
                "expected_images",
                "found 0, allowed: at least 1",
            ));
        }
        match &self.generator {
            Some(name) if !GENERATORS.contains(&name.as_str()) => {
                let text = format!("found `{name}`; {}", hint_with_list(name, &GENERATORS));
                Err(Problem::new("generator", text))
            }
            _ => Ok(()),
        }
    }

    fn check_splits(&self) -> Result<(), Problem> {
        let mut folders = BTreeMap::new();
        for (split, folder) in &self.splits {
            let key = format!("splits.{split}");
            if !SPLITS.contains(&split.as_str()) {
                let text = format!("no such split; {}", hint_with_list(split, &SPLITS));
                return Err(Problem::new(key, text));
            }
            let inside = |part: Component<'_>| matches!(part, Component::Normal(_));
            if folder.as_os_str().is_empty() || !folder.components().all(inside) {
                let found = folder.display();
                let text = format!(
                    "found `{found}`, allowed: a relative path below `root`, without `.` and `..`"
                );
                return Err(Problem::new(key, text));
            }
            // Compared by components, so that `a/` and `a` are the same folder.
            let components: Vec<_> = Path::new(folder).components().collect();
            if let Some(other) = folders.insert(components, split) {
                let text = format!("found the folder of split `{other}`, allowed: one of its own");
                return Err(Problem::new(key, text));
            }
        }
        if !self.splits.is_empty() && !self.splits.contains_key("test") {
            return Err(Problem::new(
                "splits",
                "found no `test`, which every run scores",
            ));
        }
        let Some(fraction) = self.train_fraction else {
            return Ok(());
        };
        if !(fraction > 0.0 && fraction < 1.0) {
            let text = format!("found {fraction}, allowed: above 0 and below 1");
            return Err(Problem::new("train_fraction", text));
        }
        if self.role == Role::Ood {
            let text = "found with role `ood`, allowed: role `id` (nothing trains on OOD images)";
            return Err(Problem::new("train_fraction", text));
        }
        if self.splits.contains_key("train") {
            let text = "found beside `splits.train`, allowed: one of the two";
            return Err(Problem::new("train_fraction", text));
        }
        Ok(())
    }

    fn check_classes(&self) -> Result<(), Problem> {
        let mut seen = BTreeSet::new();
        for folder in &self.include {
            check_folder("include", folder)?;
            if !seen.insert(folder) {
                return Err(Problem::new(
                    "include",
                    format!("found `{folder}` twice, allowed: once"),
                ));
            }
        }
        for (folder, name) in &self.class_names {
            let key = format!("class_names.{folder}");
            check_folder(&key, folder)?;
            if name.trim().is_empty() {
                return Err(Problem::new(key, "found an empty name, allowed: any other"));
            }
            if !self.include.is_empty() && !seen.contains(folder) {
                let included: Vec<_> = self.include.iter().map(String::as_str).collect();
                let text = format!(
                    "not among the folders of `include`; {}",
                    hint(folder, &included)
                );
                return Err(Problem::new(key, text));
            }
        }
        Ok(())
    }
}

fn check_folder(key: &str, folder: &str) -> Result<(), Problem> {
    if matches!(folder, "" | "." | "..") || folder.contains(['/', '\\']) {
        let text = format!("found `{folder}`, allowed: the name of a folder, not a path");
        return Err(Problem::new(key, text));
    }
    Ok(())
}

/// Checks the name of a recipe or dataset, which becomes a file name and a component of image keys on every system.
pub(crate) fn check_name(key: &str, name: &str) -> Result<(), Problem> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(allowed) {
        let text = format!(
            "found `{name}`, allowed: letters, digits, `-`, `_` and `.`, the first of them not `.`"
        );
        return Err(Problem::new(key, text));
    }
    Ok(())
}
