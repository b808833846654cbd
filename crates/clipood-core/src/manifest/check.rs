//! What a manifest may contain.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use super::{Columns, DatasetManifest, Layout, Role};
use crate::document::Problem;
use crate::nearest::{hint, hint_with_list};
use crate::place::{SCHEMES, is_url};

/// The splits that a manifest may name.
pub(crate) const SPLITS: [&str; 3] = ["train", "val", "test"];
/// The programs of this workspace that can create a dataset.
const GENERATORS: [&str; 1] = ["demo"];
/// The layouts whose classes are folders.
const OF_CLASS_FOLDERS: &[Layout] = &[Layout::ImageFolder];
/// The layouts that consist of files that describe or hold several images.
const OF_FILES: &[Layout] = &[
    Layout::Imglist,
    Layout::Parquet,
    Layout::SplitFile,
    Layout::CifarBinary,
    Layout::Webdataset,
    Layout::Table,
];
/// The layouts that are lists of files.
const OF_LISTS: &[Layout] = &[Layout::Imglist, Layout::Table];
/// The layouts whose paths start from the folder `images`.
const OF_PATHS: &[Layout] = &[Layout::Imglist, Layout::Table, Layout::SplitFile];
/// The layouts whose classes have a column, a key or a file of their own to choose.
const OF_LABELS: &[Layout] = &[
    Layout::Imglist,
    Layout::Parquet,
    Layout::CifarBinary,
    Layout::Webdataset,
    Layout::Table,
];
/// The layouts of rows with columns.
const OF_COLUMNS: &[Layout] = &[Layout::Parquet, Layout::Table];

impl DatasetManifest {
    pub(super) fn check(&self) -> Result<(), Problem> {
        check_name("name", &self.name)?;
        if self.root.as_os_str().is_empty() {
            let text =
                "found an empty path, allowed: a folder, relative to the data root or absolute";
            return Err(Problem::new("root", text));
        }
        self.check_root()?;
        self.check_splits()?;
        self.check_files()?;
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
            check_below(&key, folder)?;
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

    /// A root that is a URL, with a scheme that can be read.
    fn check_root(&self) -> Result<(), Problem> {
        if !is_url(&self.root) {
            return Ok(());
        }
        let text = self.root.to_string_lossy();
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        if !SCHEMES.contains(&scheme) {
            let text = format!(
                "found a URL of scheme `{scheme}`; {}",
                hint_with_list(scheme, &SCHEMES)
            );
            return Err(Problem::new("root", text));
        }
        if rest.split('/').next().is_none_or(str::is_empty) {
            let text = format!("found `{text}`, allowed: a URL with a bucket, container or host");
            return Err(Problem::new("root", text));
        }
        Ok(())
    }

    /// Keys that only some layouts have.
    fn check_files(&self) -> Result<(), Problem> {
        for (key, path) in [
            ("files", &self.files),
            ("images", &self.images),
            ("class_list", &self.class_list),
        ] {
            path.as_deref().map_or(Ok(()), |p| check_below(key, p))?;
        }
        if self.files.is_some() && !self.splits.is_empty() {
            let text = "found beside `splits`, allowed: one of the two";
            return Err(Problem::new("files", text));
        }
        if OF_LISTS.contains(&self.layout) && self.files.is_none() && self.splits.is_empty() {
            let text = format!(
                "found neither `splits` nor `files`, which name the files of layout `{}`",
                self.layout.name()
            );
            return Err(Problem::new("splits", text));
        }
        if self.layout == Layout::SplitFile {
            let problem = match (&self.files, self.splits.keys().next()) {
                (None, None) => Some(("files", "found no `files`, which names the split file")),
                (_, Some(_)) => Some((
                    "splits",
                    "found with layout `split-file`, allowed: `files`, the file that says which image belongs to which split",
                )),
                (Some(_), None) => None,
            };
            if let Some((key, text)) = problem {
                return Err(Problem::new(key, text));
            }
        }
        if self.on_hub().is_some() && (self.layout != Layout::Parquet || self.files.is_some()) {
            let text = "found a dataset of the hub, allowed: with layout `parquet` and the names of its splits in `splits`";
            return Err(Problem::new("root", text));
        }
        if self.layout == Layout::FlatFolder && self.role == Role::Id {
            let text = "found with role `id`, allowed: role `ood` (images of a flat folder have no classes)";
            return Err(Problem::new("layout", text));
        }
        let is_folder = self.layout == Layout::ImageFolder;
        let Columns {
            image,
            label,
            split,
        } = &self.columns;
        for (key, is_given, layouts) in [
            ("files", self.files.is_some(), OF_FILES),
            ("images", self.images.is_some(), OF_PATHS),
            ("columns.image", image.is_some(), OF_COLUMNS),
            ("columns.label", label.is_some(), OF_LABELS),
            ("columns.split", split.is_some(), OF_COLUMNS),
            ("include", !self.include.is_empty(), OF_CLASS_FOLDERS),
            (
                "nested",
                self.nested.is_some() && !is_folder,
                OF_CLASS_FOLDERS,
            ),
            ("loose", self.loose.is_some(), OF_CLASS_FOLDERS),
            (
                "train_fraction",
                self.train_fraction.is_some(),
                OF_CLASS_FOLDERS,
            ),
            ("generator", self.generator.is_some(), OF_CLASS_FOLDERS),
        ] {
            if is_given && !layouts.contains(&self.layout) {
                let names: Vec<_> = layouts.iter().map(|l| format!("`{}`", l.name())).collect();
                let text = format!(
                    "found with layout `{}`, allowed: with {}",
                    self.layout.name(),
                    names.join(", ")
                );
                return Err(Problem::new(key, text));
            }
        }
        for (key, name) in [("image", image), ("label", label), ("split", split)] {
            if name.as_deref().is_some_and(|name| name.trim().is_empty()) {
                let text = "found an empty name, allowed: the name of a column";
                return Err(Problem::new(format!("columns.{key}"), text));
            }
        }
        if self.class_list.is_some() && !self.class_names.is_empty() {
            let text = "found beside `class_names`, allowed: one of the two";
            return Err(Problem::new("class_list", text));
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

/// A path that stays below `root`.
fn check_below(key: &str, path: &Path) -> Result<(), Problem> {
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_));
    if path.as_os_str().is_empty() || !path.components().all(inside) || is_url(path) {
        let found = path.display();
        let text =
            format!("found `{found}`, allowed: a relative path below `root`, without `.` and `..`");
        return Err(Problem::new(key, text));
    }
    Ok(())
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
