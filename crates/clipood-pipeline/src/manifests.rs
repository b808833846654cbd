//! The datasets of a recipe: their manifests and roles.

use std::collections::BTreeSet;
use std::path::Path;

use clipood_core::text_file::read_text;
use clipood_core::{DatasetManifest, Fingerprint, Layout, Recipe, Role, join, nearest};
use clipood_data::{SplitFile, settle};
use clipood_hub::DatasetName;
use serde::{Deserialize, Serialize};

use crate::builtin;
use crate::error::{PipelineError, Result};
use crate::hub::fetch_dataset;
use crate::interrupt::Interrupt;
use crate::progress::Reporting;
use crate::words::{WordList, read_word_lists};

/// What a run uses a dataset for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatasetRole {
    /// In-distribution: its classes become the prompts, its training images the shots.
    Id,
    /// Out-of-distribution, tested against the in-distribution dataset.
    Ood,
    /// Out-of-distribution; hyperparameters are selected on it and no result is reported on it.
    ValidationOod,
}

/// The datasets and word lists of a recipe, as `run.json` keeps them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifests {
    /// The in-distribution dataset.
    pub id: DatasetManifest,
    /// The out-of-distribution datasets, in the recipe's order.
    pub ood: Vec<DatasetManifest>,
    /// The out-of-distribution datasets that hyperparameters are selected on.
    pub validation_ood: Vec<DatasetManifest>,
    /// Words that negative labels are mined from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<WordList>,
    /// Files that say which images are used for what, with the hash of what they say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub splits: Vec<NamedSplit>,
}

/// A split file that the recipe or a manifest names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedSplit {
    /// Its path as it is named, relative to the data folder or absolute.
    pub file: String,
    /// [`SplitFile::hash`] of its images.
    pub hash: Fingerprint,
}

impl Manifests {
    /// Reads everything that `recipe` names. `folder` contains the dataset manifests, the folder `words` beside it the
    /// word lists.
    ///
    /// # Errors
    /// A manifest or word list that is missing or cannot be read, a dataset with the wrong role.
    pub fn read(recipe: &Recipe, folder: &Path) -> Result<Self> {
        let ood = |names: &[String]| {
            let load = |name: &String| load_manifest(folder, name, Role::Ood);
            names.iter().map(load).collect::<Result<Vec<_>>>()
        };
        let parent = folder.parent().unwrap_or(Path::new("."));
        Ok(Self {
            id: load_manifest(folder, &recipe.data.id, Role::Id)?,
            ood: ood(&recipe.data.ood)?,
            validation_ood: ood(&recipe.data.validation_ood)?,
            words: read_word_lists(recipe, &parent.join("words"))?,
            splits: Vec::new(),
        })
    }

    /// Fetches the datasets of the hub ([`fetch_dataset`]).
    ///
    /// # Errors
    /// As [`fetch_dataset`].
    pub fn fetch(&mut self, reporting: Reporting, interrupt: &Interrupt) -> Result<()> {
        for manifest in self.all_mut() {
            fetch_dataset(manifest, reporting, interrupt)?;
        }
        Ok(())
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut DatasetManifest> {
        std::iter::once(&mut self.id)
            .chain(&mut self.ood)
            .chain(&mut self.validation_ood)
    }

    /// Reads the split files that `recipe` and the manifests name, below the data folder, and keeps their hashes.
    ///
    /// # Errors
    /// A split file that cannot be read.
    pub fn read_splits(&mut self, recipe: &Recipe, data: &Path) -> Result<()> {
        let mut files: BTreeSet<String> = BTreeSet::new();
        // Some detectors take shots where no method does.
        if let Some(shots) = recipe.shots.iter().copied().max() {
            let seeds = recipe.seeds.iter();
            files.extend(seeds.filter_map(|seed| recipe.data.few_shot_file(shots, *seed)));
        }
        for (_, manifest) in self.all() {
            if let (Layout::SplitFile, Some(file)) = (manifest.layout, &manifest.files) {
                files.insert(manifest.root.join(file).to_string_lossy().into_owned());
            }
        }
        self.splits = files
            .into_iter()
            .map(|file| {
                let hash = SplitFile::read(&join(data, Path::new(&file)))?.hash();
                Ok(NamedSplit { file, hash })
            })
            .collect::<Result<_>>()?;
        Ok(())
    }

    /// Reads a split file whose hash is kept here.
    ///
    /// # Errors
    /// A file that cannot be read, or that says something else now.
    pub fn open_split(&self, file: &str, data: &Path) -> Result<SplitFile> {
        let path = join(data, Path::new(file));
        let split = SplitFile::read(&path)?;
        let (found, known) = (split.hash(), self.splits.iter().find(|s| s.file == file));
        match known {
            Some(known) if known.hash != found => Err(PipelineError::Usage(format!(
                "split file {}: expected hash {}, found {found}: it is not the one that this run was configured with",
                path.display(),
                known.hash
            ))),
            _ => Ok(split),
        }
    }

    /// Writes into each manifest how its images lie, where it leaves that open ([`settle`]).
    ///
    /// # Errors
    /// The first error of a dataset; the others are settled nevertheless.
    pub fn settle(&mut self, data: &Path) -> Result<()> {
        let datasets = self.all_mut();
        let outcomes: Vec<_> = datasets.map(|manifest| settle(manifest, data)).collect();
        outcomes
            .into_iter()
            .collect::<std::result::Result<(), _>>()
            .map_err(PipelineError::from)
    }

    /// Every dataset with its role: the in-distribution one, the OOD sets, the validation OOD sets.
    pub fn all(&self) -> impl Iterator<Item = (DatasetRole, &DatasetManifest)> {
        let ood = self.ood.iter().map(|m| (DatasetRole::Ood, m));
        let validation = self.validation_ood.iter();
        let validation = validation.map(|m| (DatasetRole::ValidationOod, m));
        std::iter::once((DatasetRole::Id, &self.id))
            .chain(ood)
            .chain(validation)
    }

    /// Whether hyperparameters are selected on validation data.
    pub fn validates(&self) -> bool {
        !self.validation_ood.is_empty()
    }
}

/// The largest number of shots that a method of the recipe takes.
pub fn largest_shots(recipe: &Recipe) -> Option<usize> {
    let trains = recipe.methods.iter().any(|method| method.uses_shots());
    recipe.shots.iter().copied().max().filter(|_| trains)
}

/// Reads the manifest called `name` and checks its role.
fn load_manifest(folder: &Path, name: &str, role: Role) -> Result<DatasetManifest> {
    let manifest = open_manifest(folder, name)?;
    if manifest.role != role {
        return Err(PipelineError::Usage(format!(
            "{}: expected dataset `{name}` of role {role:?}, found role {:?}",
            folder.join(format!("{name}.toml")).display(),
            manifest.role
        )));
    }
    Ok(manifest)
}

/// Reads the dataset manifest called `name`: a file in `folder`, or else the one that is built in.
///
/// # Errors
/// [`PipelineError::Usage`] with the nearest name or all names if it does not exist, or if it describes a dataset of
/// another name; a manifest that cannot be read.
pub fn open_manifest(folder: &Path, name: &str) -> Result<DatasetManifest> {
    let path = folder.join(format!("{name}.toml"));
    let (text, origin) = match read_text(&path) {
        Ok(text) => (text, path.display().to_string()),
        Err(error) if error.is_missing() => match builtin::manifest(name) {
            Some(text) => (text.to_string(), format!("built-in manifest {name}.toml")),
            None => return Err(no_manifest(folder, name)),
        },
        Err(error) => return Err(error.into()),
    };
    let manifest = DatasetManifest::parse(&text, &origin)?;
    if manifest.name != name {
        return Err(PipelineError::Usage(format!(
            "{origin}: expected dataset `{name}`, found `{}`",
            manifest.name
        )));
    }
    Ok(manifest)
}

/// The manifest of a dataset of the hub that is named without one, as `frgfm/imagenette:320px:validation`: in-distribution,
/// with the name of its repository; and the split, if one is named.
///
/// # Errors
/// A name that cannot be on the hub.
pub fn manifest_of_hub(text: &str) -> Result<(DatasetManifest, Option<String>)> {
    let mut name = DatasetName::parse(text)?;
    let split = name.split.take();
    let repository = name.name.repository.rsplit('/').next().unwrap_or_default();
    let toml = format!(
        "name = {}\nrole = \"id\"\nlayout = \"parquet\"\nroot = {}\n",
        serde_json::json!(repository),
        serde_json::json!(format!("hub:{name}"))
    );
    let manifest = DatasetManifest::parse(&toml, &format!("hub:{text}"))?;
    Ok((manifest, split))
}

fn no_manifest(folder: &Path, name: &str) -> PipelineError {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_suffix(".toml").map(String::from)
    });
    let known: BTreeSet<String> = files
        .chain(builtin::manifest_names().map(String::from))
        .collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let hint = match nearest(name, known.iter().copied()) {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("known: {}", known.join(", ")),
    };
    let path = folder.join(format!("{name}.toml"));
    PipelineError::Usage(format!("no dataset manifest {}; {hint}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_before_the_built_in_manifest_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let built_in = open_manifest(folder.path(), "demo-id").unwrap();
        assert_eq!(built_in.role, Role::Id);
        let text = "name = \"demo-id\"\nrole = \"ood\"\nlayout = \"image-folder\"\nroot = \"x\"\n";
        std::fs::write(folder.path().join("demo-id.toml"), text).unwrap();
        let own = open_manifest(folder.path(), "demo-id").unwrap();
        assert_eq!(own.role, Role::Ood);
        let error = open_manifest(folder.path(), "demo-idd").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error.to_string().contains("did you mean `demo-id`?"),
            "{error}"
        );
    }
}
