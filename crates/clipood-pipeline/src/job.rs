//! A [`Job`]: a recipe with everything it names opened: manifests, model, store and run directory.

use std::path::{Path, PathBuf};

use clipood_clip::checkpoint::OpenOptions;
use clipood_clip::model::{Device, Model};
use clipood_core::{DatasetManifest, Fingerprint, FingerprintBuilder, Recipe, Role, nearest};
use clipood_store::{Ledger, Run, Store};
use serde_json::json;

use crate::columns::{Candidates, ScoreColumn, score_columns, uses_patches};
use crate::error::{PipelineError, Result};
use crate::interrupt::Interrupt;
use crate::progress::Reporting;

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
    /// Where the model runs.
    pub device: Device,
    /// Progress on standard error.
    pub reporting: Reporting,
    /// Set by signals.
    pub interrupt: Interrupt,
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
    /// Folder that relative dataset roots start from.
    pub data: PathBuf,
    /// The model.
    pub model: Model,
    /// Where it runs.
    pub device: Device,
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
    /// Progress on standard error.
    pub reporting: Reporting,
    /// Set by signals.
    pub interrupt: Interrupt,
}

/// The folder of one kind of features in the store.
#[derive(Debug, Clone)]
pub struct Features {
    /// Model, preprocessing, precision, backend.
    pub fingerprint: Fingerprint,
    /// Commits of its parts; paths are relative to `features/<fingerprint>`.
    pub ledger: Ledger,
}

impl Job {
    /// Opens everything; the run directory is created, nothing is computed.
    ///
    /// # Errors
    /// A manifest or model that cannot be read, an unknown detector, a run directory of another configuration or one
    /// that cannot be written.
    pub fn open(options: JobOptions) -> Result<Self> {
        let recipe = options.recipe;
        recipe.validate()?;
        let (columns, selections) = score_columns(&recipe)?;
        let id = load_manifest(&options.manifests, &recipe.data.id, Role::Id)?;
        let ood_manifests = |names: &[String]| {
            let load = |name: &String| load_manifest(&options.manifests, name, Role::Ood);
            names.iter().map(load).collect::<Result<Vec<_>>>()
        };
        let ood = ood_manifests(&recipe.data.ood)?;
        let validation_ood = ood_manifests(&recipe.data.validation_ood)?;
        let model = open_model(&recipe.model)?;
        let fingerprint = FingerprintBuilder::new("run")
            .field("results", &RESULTS_VERSION)
            .field("recipe", &recipe)
            .field("id", &id)
            .field("ood", &ood)
            .field("validation_ood", &validation_ood)
            .field("model", &model.hash)
            .field("backend", &options.device.backend())
            .finish()?;
        let run_location = options
            .run
            .unwrap_or_else(|| format!("runs/{}-{}", recipe.name, fingerprint.short()));
        let config = json!({
            "results_version": RESULTS_VERSION,
            "recipe": recipe,
            "manifests": { "id": id, "ood": ood, "validation_ood": validation_ood },
            "model_hash": model.hash,
            "backend": options.device.backend(),
            "fingerprint": fingerprint,
        });
        let versions = json!({ "clipood": env!("CARGO_PKG_VERSION") });
        let worker = format!("pid-{}", std::process::id());
        let run = Run::open_or_create(Store::open(&run_location)?, &config, &versions, &worker)?;
        let store = Store::open(&options.store)?;
        let features = FingerprintBuilder::new("features")
            .field("results", &RESULTS_VERSION)
            .field("model", &model.hash)
            .field("preprocessing", &PREPROCESSING)
            .field("dtype", &"f32")
            .field("backend", &options.device.backend())
            .finish()?;
        let folder = store.child(&format!("features/{features}"))?;
        Ok(Self {
            features: Features {
                fingerprint: features,
                ledger: Ledger::new(folder, "_commits", &worker),
            },
            prompts: Ledger::new(store.child("prompts")?, "_commits", &worker),
            columns,
            selections,
            id,
            ood,
            validation_ood,
            data: options.data,
            model,
            device: options.device,
            run,
            run_location,
            fingerprint,
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

    /// What the side tables say about preprocessing.
    pub fn preprocessing(&self) -> String {
        format!("{PREPROCESSING}, {0}x{0}", self.model.config.image.size)
    }
}

/// Reads the manifest called `name` and checks its role.
fn load_manifest(folder: &Path, name: &str, role: Role) -> Result<DatasetManifest> {
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
    if manifest.role != role || manifest.name != name {
        return Err(PipelineError::Usage(format!(
            "{}: expected dataset `{name}` of role {role:?}, found `{}` of role {:?}",
            path.display(),
            manifest.name,
            manifest.role
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

/// [`open_model_with`] the options that a checkpoint's own files give.
pub fn open_model(name: &str) -> Result<Model> {
    open_model_with(name, &OpenOptions::default())
}

/// `demo` is the embedded model; everything else is a folder or a weight file.
pub fn open_model_with(name: &str, options: &OpenOptions) -> Result<Model> {
    if name == "demo" {
        let files = clipood_demo::model_files();
        return Ok(Model::from_open_clip(
            files.config,
            files.weights,
            "the embedded demo model",
        )?);
    }
    Ok(Model::open(Path::new(name), options)?)
}
