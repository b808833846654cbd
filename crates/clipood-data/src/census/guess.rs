//! Manifests that may fit a place, by the names that lie there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clipood_core::{DatasetManifest, Role, is_url};

use crate::error::DataError;
use crate::extensions::is_image;
use crate::folder::{Kind, entries, is_junk};
use crate::split_file::SplitFile;

/// Folders and files of a split, in lower case: the split, and its names.
const SPLITS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("val", &["val", "valid", "validation", "dev"]),
    ("test", &["test", "testing"]),
];

/// Texts of manifests that may describe the dataset at `place` (a folder or a file), the likeliest first, without name and role.
/// Whoever asks tries them in turn ([`census`](super::census)).
///
/// # Errors
/// A folder that cannot be read.
pub fn candidates(place: &Path) -> Result<Vec<Guess>, DataError> {
    let mut guesses = Vec::new();
    let is_named_file = is_url(place) && !extension(place).is_empty();
    if place.is_file() || is_named_file {
        of_file(place, &mut guesses);
    } else {
        of_folder(place, &mut guesses)?;
    }
    Ok(guesses)
}

/// A manifest that may fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guess {
    /// Name of the layout.
    pub layout: &'static str,
    /// The root.
    pub root: PathBuf,
    /// Other keys, as lines of TOML; tables last.
    pub keys: Vec<String>,
    /// The role, if only one is possible.
    pub role: Option<Role>,
}

impl Guess {
    fn new(layout: &'static str, root: &Path) -> Self {
        Self {
            layout,
            root: root.to_path_buf(),
            keys: Vec::new(),
            role: None,
        }
    }

    fn key(mut self, key: &str, value: &str) -> Self {
        self.keys.push(format!("{key} = {}", quoted(value)));
        self
    }

    fn splits(mut self, splits: &[(&str, String)]) -> Self {
        if !splits.is_empty() {
            self.keys.push("\n[splits]".to_string());
            for (split, place) in splits {
                self.keys.push(format!("{split} = {}", quoted(place)));
            }
        }
        self
    }

    fn only(mut self, role: Role) -> Self {
        self.role = Some(role);
        self
    }

    /// The text of the manifest.
    pub fn toml(&self, name: &str, role: Role) -> String {
        let role = match role {
            Role::Id => "id",
            Role::Ood => "ood",
        };
        let mut lines = vec![
            format!("name = {}", quoted(name)),
            format!("role = {}", quoted(role)),
            format!("layout = {}", quoted(self.layout)),
            format!("root = {}", quoted(&self.root.to_string_lossy())),
        ];
        lines.extend(self.keys.iter().cloned());
        lines.join("\n") + "\n"
    }

    /// The manifest.
    ///
    /// # Errors
    /// As [`DatasetManifest::parse`], for a root that is not UTF-8 among others.
    pub fn manifest(&self, name: &str, role: Role) -> Result<DatasetManifest, DataError> {
        Ok(DatasetManifest::parse(
            &self.toml(name, role),
            "the guessed manifest",
        )?)
    }
}

/// A text as a TOML string, which JSON's are but for a few control characters that no manifest needs.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn of_file(file: &Path, guesses: &mut Vec<Guess>) {
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let name = name_of(file);
    let guess = |layout| Guess::new(layout, folder);
    match extension(file).as_str() {
        "json" | "pkl" => of_split_file(file, folder, guesses),
        "parquet" => {
            guesses.push(guess("parquet").key("files", &name));
            guesses.push(guess("table").key("files", &name));
            of_split_file(file, folder, guesses);
        }
        "csv" | "tsv" => guesses.push(guess("table").key("files", &name)),
        "tar" => guesses.push(guess("webdataset").key("files", &name)),
        "bin" => guesses.push(guess("cifar-binary").key("files", &name)),
        "txt" => guesses.push(guess("imglist").key("files", &name)),
        _ => {}
    }
}

/// A split file, whose images may lie in any folder beside it.
fn of_split_file(file: &Path, folder: &Path, guesses: &mut Vec<Guess>) {
    let Ok(split) = SplitFile::read(file) else {
        return;
    };
    let guess = || Guess::new("split-file", folder).key("files", &name_of(file));
    let lies = |below: &Path| {
        let exists = |path: &str| std::fs::symlink_metadata(below.join(path)).is_ok();
        crate::split_file::Reroot::find(&split, exists).is_some()
    };
    if lies(folder) {
        guesses.push(guess());
    }
    for entry in entries(folder).unwrap_or_default() {
        if entry.kind == Kind::Folder && lies(&entry.path) {
            guesses.push(guess().key("images", &name_of(&entry.path)));
        }
    }
}

fn of_folder(folder: &Path, guesses: &mut Vec<Guess>) -> Result<(), DataError> {
    let all = entries(folder)?;
    let all: Vec<_> = all
        .into_iter()
        .filter(|entry| !is_junk(&entry.path))
        .collect();
    let files: Vec<&Path> = (all.iter())
        .filter(|entry| entry.kind == Kind::File)
        .map(|entry| entry.path.as_path())
        .collect();
    let folders: Vec<&Path> = (all.iter())
        .filter(|entry| entry.kind == Kind::Folder)
        .map(|entry| entry.path.as_path())
        .collect();
    let with = |wanted: &str| -> Vec<&Path> {
        let named = files.iter().copied();
        named.filter(|file| extension(file) == wanted).collect()
    };
    for wanted in ["json", "pkl"] {
        for file in with(wanted) {
            if name_of(file).starts_with("split") || wanted == "pkl" {
                of_split_file(file, folder, guesses);
            }
        }
    }
    of_archives(folder, &with("parquet"), "parquet", guesses);
    of_archives(folder, &with("tar"), "webdataset", guesses);
    if with("bin")
        .iter()
        .any(|file| name_of(file).contains("batch") || name_of(file) == "train.bin")
    {
        guesses.push(Guess::new("cifar-binary", folder));
    }
    for inner in &folders {
        // `data/train-00000-of-00001.parquet`, `train/0000.parquet`
        of_inner(folder, inner, guesses)?;
    }
    for table in with("csv").into_iter().chain(with("tsv")) {
        guesses.push(Guess::new("table", folder).key("files", &name_of(table)));
    }
    let splits = split_folders(&folders);
    if splits.iter().any(|(split, _)| *split == "test") {
        guesses.push(Guess::new("image-folder", folder).splits(&splits));
    }
    if folders.len() > 1 && splits.is_empty() {
        guesses.push(Guess::new("image-folder", folder).only(Role::Id));
    }
    if files.iter().any(|file| is_image(file)) || !folders.is_empty() {
        guesses.push(Guess::new("image-folder", folder).only(Role::Ood));
        guesses.push(Guess::new("flat-folder", folder).only(Role::Ood));
    }
    Ok(())
}

/// Archives in a folder of the dataset; of splits, if the names of the archives or of their folders say so.
fn of_inner(root: &Path, inner: &Path, guesses: &mut Vec<Guess>) -> Result<(), DataError> {
    let name = name_of(inner);
    if split_named(&name).is_some() {
        // Together with the folders of the other splits.
        for (ending, layout) in [("parquet", "parquet"), ("tar", "webdataset")] {
            let mut splits = Vec::new();
            for entry in entries(root)? {
                let folder = name_of(&entry.path);
                let Some(split) = split_named(&folder).filter(|_| entry.kind == Kind::Folder)
                else {
                    continue;
                };
                let has = entries(&entry.path)?;
                if has.iter().any(|file| extension(&file.path) == ending) {
                    splits.push((split, format!("{folder}/*.{ending}")));
                }
            }
            let guess = Guess::new(layout, root).splits(&with_test(splits.clone()));
            if !splits.is_empty() && !guesses.contains(&guess) {
                guesses.push(guess);
            }
        }
        return Ok(());
    }
    let files = entries(inner)?;
    for (ending, layout) in [("parquet", "parquet"), ("tar", "webdataset")] {
        let found: Vec<&Path> = (files.iter())
            .filter(|entry| entry.kind == Kind::File && extension(&entry.path) == ending)
            .map(|entry| entry.path.as_path())
            .collect();
        of_archives(inner, &found, layout, guesses);
    }
    Ok(())
}

/// Files of one kind in a folder.
fn of_archives(folder: &Path, files: &[&Path], layout: &'static str, guesses: &mut Vec<Guess>) {
    let Some(first) = files.first() else {
        return;
    };
    let ending = extension(first);
    let mut splits: Vec<(&str, String)> = Vec::new();
    let mut unnamed = false;
    for file in files {
        let name = name_of(file);
        let head: String = name
            .chars()
            .take_while(|c| c.is_ascii_alphabetic())
            .collect();
        let tail = ["train", "validation", "val", "test"].iter();
        let inner = tail
            .copied()
            .find(|word| name.contains(&format!("-{word}-")));
        match (split_named(&head), inner.and_then(split_named)) {
            (Some(split), _) => splits.push((split, format!("{head}*.{ending}"))),
            (None, Some(split)) => {
                let word = inner.unwrap_or_default();
                splits.push((split, format!("*-{word}-*.{ending}")));
            }
            (None, None) => unnamed = true,
        }
    }
    splits.sort();
    splits.dedup();
    let distinct: BTreeSet<&str> = splits.iter().map(|(split, _)| *split).collect();
    if !unnamed && !splits.is_empty() && distinct.len() == splits.len() {
        guesses.push(Guess::new(layout, folder).splits(&with_test(splits)));
    }
    guesses.push(Guess::new(layout, folder).key("files", &format!("*.{ending}")));
    if layout == "parquet" {
        guesses.push(Guess::new("table", folder).key("files", &format!("*.{ending}")));
    }
}

/// A dataset without a test split is tested on its validation split, or on what it has.
fn with_test(mut splits: Vec<(&str, String)>) -> Vec<(&str, String)> {
    if !splits.iter().any(|(split, _)| *split == "test") {
        let of = |name: &str| splits.iter().position(|(split, _)| *split == name);
        if let Some(place) = of("val").or_else(|| of("train")) {
            splits[place].0 = "test";
        }
    }
    splits
}

/// The folders of splits, in the order of the splits; those that lie together.
fn split_folders(folders: &[&Path]) -> Vec<(&'static str, String)> {
    let mut splits: Vec<(&str, String)> = Vec::new();
    for folder in folders {
        let name = name_of(folder);
        if let Some(split) = split_named(&name)
            && !splits.iter().any(|(other, _)| *other == split)
        {
            splits.push((split, name));
        }
    }
    with_test(splits)
}

fn split_named(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let mut all = SPLITS.iter();
    let found = all.find(|(_, names)| names.contains(&name.as_str()))?;
    Some(found.0)
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn extension(path: &Path) -> String {
    let extension = path.extension().unwrap_or_default();
    extension.to_string_lossy().to_ascii_lowercase()
}
