//! A [`Job`]: a recipe with everything it names opened: manifests, model, store and run directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clipood_clip::checkpoint::OpenOptions;
use clipood_clip::model::{Device, Devices, Dtype, Model};
use clipood_core::{DatasetManifest, Fingerprint, FingerprintBuilder, Recipe, Role, nearest};
use clipood_store::{Ledger, Run, Share, Store};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::columns::{Candidates, ScoreColumn, score_columns, uses_patches};
use crate::error::{PipelineError, Result};
use crate::interrupt::Interrupt;
use crate::journal::Journal;
use crate::models::{NamedModel, open_named};
use crate::negative::{WordList, read_word_lists};
use crate::progress::{Reporting, StageProgress};

/// Version of what the stages compute; a change that alters results raises it, and with it every fingerprint.
pub const RESULTS_VERSION: u32 = 1;

/// How the pixels of the evaluation view are made, as fingerprints hold it.
const PREPROCESSING: &str = "rgb, pillow bicubic short side, centre crop";

/// What a user asks for.
#[derive(Debug, Clone)]
pub struct JobOptions {
    /// The recipe, overrides applied.
    pub recipe: Recipe,
    /// Folder of the dataset manifests.
    pub manifests: PathBuf,
    /// Folder that relative dataset roots start from.
    pub data: PathBuf,
    /// Store of features and prompts: a path or URL.
    pub store: String,
    /// Run directory: a path or URL; by default `runs/<recipe>-<short fingerprint>`.
    pub run: Option<String>,
    /// Where the model runs, and in which number format.
    pub device: Devices,
    /// Progress on standard error.
    pub reporting: Reporting,
    /// Set by signals.
    pub interrupt: Interrupt,
}

/// What a user asks for who names a run directory that exists: its `run.json` holds recipe and manifests.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Run directory: a path or URL.
    pub run: String,
    /// Folder that relative dataset roots start from.
    pub data: PathBuf,
    /// Store of features and prompts: a path or URL.
    pub store: String,
    /// Where the model runs; `None` to look at the run, whatever it was made with, and to compute nothing.
    pub device: Option<Devices>,
    /// Which units this process prefers. Its index also names the worker, so that a restarted one knows its claims.
    pub share: Share,
    /// Whether a prompt training that another worker has claimed is done again once nothing else is left. Without it the
    /// worker waits for the other one.
    pub backup_training: bool,
    /// Progress on standard error.
    pub reporting: Reporting,
    /// Set by signals.
    pub interrupt: Interrupt,
}

/// The datasets of a recipe, as `run.json` keeps them.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Manifests {
    id: DatasetManifest,
    ood: Vec<DatasetManifest>,
    validation_ood: Vec<DatasetManifest>,
    /// Words that negative labels are mined from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    words: Vec<WordList>,
}

/// [`RunOptions`] with a run directory that may still get its default name.
struct Place {
    /// Whether the devices will be used, so that they have to be able to.
    computes: bool,
    run: Option<String>,
    data: PathBuf,
    store: String,
    device: Devices,
    share: Share,
    backup_training: bool,
    reporting: Reporting,
    interrupt: Interrupt,
}

/// An opened recipe.
#[derive(Debug)]
pub struct Job {
    /// The recipe.
    pub recipe: Recipe,
    /// The score columns.
    pub columns: Vec<ScoreColumn>,
    /// What hyperparameters are chosen among.
    pub selections: Vec<Candidates>,
    /// Manifest of the in-distribution dataset.
    pub id: DatasetManifest,
    /// Manifests of the out-of-distribution datasets, in the recipe's order.
    pub ood: Vec<DatasetManifest>,
    /// Manifests of the OOD datasets that hyperparameters are chosen on.
    pub validation_ood: Vec<DatasetManifest>,
    /// Words that negative labels are mined from.
    pub words: Vec<WordList>,
    /// Folder that relative dataset roots start from.
    pub data: PathBuf,
    /// The model.
    pub model: Model,
    /// Where it runs when one device is enough.
    pub device: Device,
    /// The workers of extraction, and the number format.
    pub devices: Devices,
    /// The run directory.
    pub run: Run,
    /// Where the run directory lies, for people.
    pub run_location: String,
    /// Features of this model, preprocessing, precision and backend.
    pub features: Features,
    /// Trained and hand-written prompt sets.
    pub prompts: Ledger,
    /// Fingerprint of recipe, manifests and model.
    pub fingerprint: Fingerprint,
    /// Which units this process prefers.
    pub share: Share,
    /// Whether trainings that others have claimed are done again at the end.
    pub backup_training: bool,
    /// Progress on standard error.
    pub reporting: Reporting,
    /// Progress for `clipood status`.
    pub journal: Journal,
    /// Set by signals.
    pub interrupt: Interrupt,
}

/// The folder of one kind of features in the store.
#[derive(Debug, Clone)]
pub struct Features {
    /// Model, preprocessing, precision, backend.
    pub fingerprint: Fingerprint,
    /// What the fingerprint was made from.
    pub inputs: BTreeMap<String, String>,
    /// Commits of its parts; paths are relative to `features/<fingerprint>`.
    pub ledger: Ledger,
}

impl Job {
    /// Opens everything as the only worker; the run directory is created, nothing is computed.
    ///
    /// # Errors
    /// A manifest or model that cannot be read, an unknown detector, a run directory of another configuration or one
    /// that cannot be written.
    pub fn open(options: JobOptions) -> Result<Self> {
        let recipe = options.recipe;
        recipe.validate()?;
        let id = load_manifest(&options.manifests, &recipe.data.id, Role::Id)?;
        let ood_manifests = |names: &[String]| {
            let load = |name: &String| load_manifest(&options.manifests, name, Role::Ood);
            names.iter().map(load).collect::<Result<Vec<_>>>()
        };
        let ood = ood_manifests(&recipe.data.ood)?;
        let validation_ood = ood_manifests(&recipe.data.validation_ood)?;
        let folder = options.manifests.parent().unwrap_or(Path::new("."));
        let manifests = Manifests {
            id,
            ood,
            validation_ood,
            words: read_word_lists(&recipe, &folder.join("words"))?,
        };
        let place = Place {
            computes: true,
            run: options.run,
            data: options.data,
            store: options.store,
            device: options.device,
            share: Share {
                index: 0,
                count: 1,
                backups: true,
            },
            backup_training: true,
            reporting: options.reporting,
            interrupt: options.interrupt,
        };
        Self::assemble(recipe, manifests, place)
    }

    /// Opens a run directory that exists, with the recipe and the manifests that it was made from.
    ///
    /// # Errors
    /// No run there, a `run.json` of another program version, a model that is missing or was changed since.
    pub fn reopen(options: RunOptions) -> Result<Self> {
        let run = Run::open(Store::open(&options.run)?, "reader")?;
        let recipe: Recipe = configured(&run, "recipe")?;
        recipe.validate()?;
        let manifests: Manifests = configured(&run, "manifests")?;
        let computes = options.device.is_some();
        let device = match options.device {
            Some(device) => device,
            None => recorded_devices(&run)?,
        };
        let place = Place {
            computes,
            run: Some(options.run),
            data: options.data,
            store: options.store,
            device,
            share: options.share,
            backup_training: options.backup_training,
            reporting: options.reporting,
            interrupt: options.interrupt,
        };
        Self::assemble(recipe, manifests, place)
    }

    fn assemble(recipe: Recipe, manifests: Manifests, options: Place) -> Result<Self> {
        let (columns, selections) = score_columns(&recipe)?;
        let NamedModel { model, revision } =
            open_named(&recipe.model, &OpenOptions::default(), options.reporting)?;
        let (device, dtype) = (options.device.first(), options.device.dtype);
        let backend = options.device.backend();
        if options.computes {
            model
                .check_dtype(device, dtype)
                .map_err(|e| PipelineError::Usage(e.to_string()))?;
        }
        if let Some(note) = &options.device.note {
            options.reporting.say(note);
        }
        let mut fingerprint = FingerprintBuilder::new("run")
            .field("results", &RESULTS_VERSION)
            .field("recipe", &recipe)
            .field("id", &manifests.id)
            .field("ood", &manifests.ood)
            .field("validation_ood", &manifests.validation_ood)
            .field("model", &model.hash)
            .field("backend", &backend);
        if dtype != Dtype::F32 {
            fingerprint = fingerprint.field("dtype", &dtype.name());
        }
        if let Some(revision) = &revision {
            fingerprint = fingerprint.field("model_revision", revision);
        }
        if !manifests.words.is_empty() {
            fingerprint = fingerprint.field("words", &manifests.words);
        }
        let fingerprint = fingerprint.finish()?;
        let run_location = options
            .run
            .unwrap_or_else(|| format!("runs/{}-{}", recipe.name, fingerprint.short()));
        let mut config = json!({
            "results_version": RESULTS_VERSION,
            "recipe": recipe,
            "manifests": manifests,
            "model_hash": model.hash,
            "backend": backend,
            "fingerprint": fingerprint,
        });
        if dtype != Dtype::F32 {
            config["dtype"] = json!(dtype.name());
        }
        if let Some(revision) = &revision {
            config["model_revision"] = json!(revision);
        }
        let versions = json!({ "clipood": env!("CARGO_PKG_VERSION") });
        let worker = format!("worker-{}", options.share.index);
        let run = Run::open_or_create(Store::open(&run_location)?, &config, &versions, &worker)?;
        let store = Store::open(&options.store)?;
        let features = FingerprintBuilder::new("features")
            .field("results", &RESULTS_VERSION)
            .field("model", &model.hash)
            .field("preprocessing", &PREPROCESSING)
            .field("dtype", &dtype.name())
            .field("backend", &backend);
        let inputs = features.inputs().clone();
        let features = features.finish()?;
        let folder = store.child(&format!("features/{features}"))?;
        Ok(Self {
            features: Features {
                fingerprint: features,
                inputs,
                ledger: Ledger::new(folder, "_commits", &worker),
            },
            prompts: Ledger::new(store.child("prompts")?, "_commits", &worker)
                .with_claims_of(run.id())?,
            columns,
            selections,
            id: manifests.id,
            ood: manifests.ood,
            validation_ood: manifests.validation_ood,
            words: manifests.words,
            data: options.data,
            model,
            device,
            devices: options.device,
            run_location,
            journal: Journal::new(run.store(), &worker),
            run,
            fingerprint,
            share: options.share,
            backup_training: options.backup_training,
            reporting: options.reporting,
            interrupt: options.interrupt,
            recipe,
        })
    }

    /// Whether any detector of the recipe scores patches.
    ///
    /// # Errors
    /// None for a job that was opened.
    pub fn detectors_use_patches(&self) -> Result<bool> {
        for column in &self.columns {
            for method in &self.recipe.methods {
                if column
                    .spec(*method)?
                    .is_some_and(|spec| uses_patches(&spec))
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Begins to report a stage of `total` pieces called `unit`.
    pub(crate) fn stage(
        &self,
        name: &'static str,
        unit: &'static str,
        total: u64,
    ) -> StageProgress {
        let progress = self.reporting.stage(name, unit, total);
        progress.with_journal(&self.journal)
    }

    /// What the side tables say about preprocessing.
    pub fn preprocessing(&self) -> String {
        format!("{PREPROCESSING}, {0}x{0}", self.model.config.image.size)
    }
}

/// What a run was made with, by its `run.json`.
fn recorded_devices(run: &Run) -> Result<Devices> {
    let backend: String = configured(run, "backend")?;
    // A run in f32 does not name it.
    let dtype = match run.config().get("dtype") {
        Some(_) => configured(run, "dtype")?,
        None => Dtype::F32.name().to_string(),
    };
    Devices::recorded(&backend, &dtype).map_err(|e| {
        let file = run.store().display("run.json");
        PipelineError::Inconsistent(format!("{file}: {e}"))
    })
}

/// One field of a run's configuration.
fn configured<T: DeserializeOwned>(run: &Run, field: &str) -> Result<T> {
    let value = run.config().get(field).cloned().unwrap_or_default();
    serde_json::from_value(value).map_err(|e| {
        PipelineError::Inconsistent(format!(
            "{}: `{field}`: {e}",
            run.store().display("run.json")
        ))
    })
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

/// Reads the dataset manifest called `name` in `folder`.
///
/// # Errors
/// [`PipelineError::Usage`] with the nearest or all names if there is none, or if it names another dataset; a manifest
/// that cannot be read.
pub fn open_manifest(folder: &Path, name: &str) -> Result<DatasetManifest> {
    let path = folder.join(format!("{name}.toml"));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let known = manifest_names(folder);
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let hint = match nearest(name, known.iter().copied()) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("known: {}", known.join(", ")),
            };
            return Err(PipelineError::Usage(format!(
                "no dataset manifest {}; {hint}",
                path.display()
            )));
        }
        Err(source) => {
            return Err(PipelineError::File {
                path: path.display().to_string(),
                action: "cannot read the dataset manifest",
                source,
            });
        }
    };
    let manifest = DatasetManifest::parse(&text, &path.display().to_string())?;
    if manifest.name != name {
        return Err(PipelineError::Usage(format!(
            "{}: expected dataset `{name}`, found `{}`",
            path.display(),
            manifest.name
        )));
    }
    Ok(manifest)
}

fn manifest_names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_suffix(".toml").map(String::from)
        })
        .collect();
    names.sort();
    names
}
