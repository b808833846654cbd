//! A [`Job`]: an experiment, the places of its data and the worker that computes it, opened together.

use std::path::PathBuf;
use std::time::Duration;

use clipood_clip::checkpoint::OpenOptions;
use clipood_clip::model::{Devices, Dtype};
use clipood_core::Recipe;
use clipood_store::{Run, Share, Store};
use serde::de::DeserializeOwned;

use crate::error::{PipelineError, Result};
use crate::experiment::{Experiment, Numerics};
use crate::interrupt::Interrupt;
use crate::journal::Journal;
use crate::manifests::Manifests;
use crate::models::open_until;
use crate::nesting::check_nesting;
use crate::places::{ChangedData, Places, Stores};
use crate::progress::Reporting;
use crate::worker::Worker;

/// Options of a run that starts from a recipe.
#[derive(Debug, Clone)]
pub struct JobOptions {
    /// The recipe, overrides applied.
    pub recipe: Recipe,
    /// Folder of the dataset manifests.
    pub manifests: PathBuf,
    /// Folder that relative dataset roots start from.
    pub data: PathBuf,
    /// Whether to go on with an existing plan although the images are not those that it was made from.
    pub accept_changed_data: bool,
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

/// Options to open an existing run directory, whose `run.json` contains recipe and manifests.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Run directory: a path or URL.
    pub run: String,
    /// Folder that relative dataset roots start from.
    pub data: PathBuf,
    /// What to do if the images there are not those that the run was planned from.
    pub changed: ChangedData,
    /// Store of features and prompts: a path or URL.
    pub store: String,
    /// Where the model runs; `None` to inspect the run, whatever it was computed with, without computing anything.
    pub device: Option<Devices>,
    /// Which units this process prefers. Its index also names the worker, so that a restarted one knows its claims.
    pub share: Share,
    /// See [`Worker::patience`].
    pub patience: Duration,
    /// Progress on standard error.
    pub reporting: Reporting,
    /// Set by signals.
    pub interrupt: Interrupt,
}

/// An experiment, its places and a worker.
#[derive(Debug)]
pub struct Job {
    /// What to compute.
    pub experiment: Experiment,
    /// Where its data are.
    pub places: Places,
    /// Who computes it.
    pub worker: Worker,
}

impl Job {
    /// Opens everything as the only worker. Computes nothing, and writes nothing: a run directory that does not exist is
    /// created with its plan.
    ///
    /// # Errors
    /// A manifest or model that cannot be read, an unknown detector, a run directory of another configuration.
    pub fn open(options: JobOptions) -> Result<Self> {
        options.recipe.validate()?;
        let mut manifests = Manifests::read(&options.recipe, &options.manifests)?;
        manifests.fetch(options.reporting, &options.interrupt)?;
        let settled = manifests.settle(&options.data);
        manifests.read_splits(&options.recipe, &options.data)?;
        let request = Request {
            computes: true,
            recipe: options.recipe,
            manifests,
            devices: options.device,
            reporting: options.reporting,
            interrupt: options.interrupt.clone(),
        };
        let experiment = request.open()?;
        let run = options.run.unwrap_or_else(|| {
            let short = experiment.fingerprint.short();
            format!("runs/{}-{short}", experiment.recipe.name)
        });
        // A run that is planned goes on without its folders, but none is begun.
        if let Err(error) = settled
            && Run::open(Store::open(&run)?, "reader").is_err()
        {
            return Err(error);
        }
        let alone = RunOptions {
            run,
            data: options.data,
            changed: match options.accept_changed_data {
                true => ChangedData::Accept,
                false => ChangedData::Refuse,
            },
            store: options.store,
            device: None,
            share: Share {
                index: 0,
                count: 1,
                backups: true,
            },
            patience: Duration::ZERO,
            reporting: options.reporting,
            interrupt: options.interrupt,
        };
        let place = Store::open(&alone.run)?;
        // A run that exists has been there before this rule.
        if !place.exists("run.json")? {
            check_nesting(&place, &Store::open(&alone.store)?)?;
        }
        Self::join(experiment, request.devices, alone)
    }

    /// Opens an existing run directory, with the recipe and the manifests that it was made from.
    ///
    /// # Errors
    /// No run in the directory, a `run.json` of another program version, a model that is missing or has changed since.
    pub fn reopen(options: RunOptions) -> Result<Self> {
        let run = Run::open(Store::open(&options.run)?, "reader")?;
        let recipe: Recipe = configured(&run, "recipe")?;
        recipe.validate()?;
        let mut manifests: Manifests = configured(&run, "manifests")?;
        // A run that is only looked at needs no images.
        if options.device.is_some() {
            manifests.fetch(options.reporting, &options.interrupt)?;
        }
        let request = Request {
            computes: options.device.is_some(),
            recipe,
            manifests,
            devices: match options.device.clone() {
                Some(devices) => devices,
                None => recorded_devices(&run)?,
            },
            reporting: options.reporting,
            interrupt: options.interrupt.clone(),
        };
        let experiment = request.open()?;
        Self::join(experiment, request.devices, options)
    }

    /// Opens the stores of an experiment, for the worker that `options` describes, on `devices`.
    fn join(experiment: Experiment, devices: Devices, options: RunOptions) -> Result<Self> {
        let name = format!("worker-{}", options.share.index);
        let stores = Stores {
            run: Store::open(&options.run)?,
            shared: Store::open(&options.store)?,
        };
        let places = Places::open(
            &experiment,
            stores,
            options.run,
            (options.data, options.changed),
            &name,
        )?;
        Ok(Self {
            worker: Worker {
                devices,
                share: options.share,
                patience: options.patience,
                waits: false,
                reporting: options.reporting,
                journal: Journal::new(places.run.store(), &name),
                judge: None,
                interrupt: options.interrupt,
            },
            experiment,
            places,
        })
    }
}

/// Refuses a run directory that a worker of this program must not work on, before anything else of it is looked at: one that
/// another version has planned, or, where a `fingerprint` is expected, another run.
///
/// # Errors
/// [`PipelineError::Usage`] with what was expected and found; no run in the directory.
pub fn check_run(run: &str, fingerprint: Option<&str>) -> Result<()> {
    let opened = Run::open(Store::open(run)?, "reader")?;
    let (ours, file) = (
        env!("CARGO_PKG_VERSION"),
        opened.store().display("run.json"),
    );
    let planned = opened
        .versions()
        .get("clipood")
        .and_then(|version| version.as_str());
    match planned {
        Some(theirs) if theirs != ours => {
            return Err(PipelineError::Usage(format!(
                "{file}: planned by clipood {theirs}, and this worker is clipood {ours}: workers of two versions may compute \
                 different things; start {theirs} on every node, or plan again with {ours} in another run directory, which finds \
                 the features in the store"
            )));
        }
        _ => {}
    }
    let found: String = configured(&opened, "fingerprint")?;
    match fingerprint {
        Some(expected) if expected != found => Err(PipelineError::Usage(format!(
            "{file}: this worker was started for the run with fingerprint {expected}, found {found}: another recipe has been \
             planned there since; submit it again"
        ))),
        _ => Ok(()),
    }
}

/// Reports for `clipood status` that worker `index` has failed before its job was opened; nothing where no run is.
pub fn report_failure<T>(run: &str, index: usize, outcome: &Result<T>) {
    let opened = Store::open(run).and_then(|store| Run::open(store, "reader"));
    if let (Err(_), Ok(opened)) = (outcome, opened) {
        Journal::new(opened.store(), &format!("worker-{index}")).end(outcome);
    }
}

/// Everything that is needed to open an experiment.
struct Request {
    /// Whether the devices will be used, so that it is checked that they can run the model.
    computes: bool,
    recipe: Recipe,
    manifests: Manifests,
    devices: Devices,
    reporting: Reporting,
    interrupt: Interrupt,
}

impl Request {
    fn open(&self) -> Result<Experiment> {
        let options = OpenOptions::default();
        let named = open_until(
            &self.recipe.model,
            &options,
            self.reporting,
            &self.interrupt,
        )?;
        if self.computes {
            named
                .model
                .check_dtype(self.devices.first(), self.devices.dtype)
                .map_err(|e| PipelineError::Usage(e.to_string()))?;
        }
        if let Some(note) = &self.devices.note {
            self.reporting.say(note);
        }
        let numerics = Numerics::of(&self.devices);
        Experiment::new(self.recipe.clone(), self.manifests.clone(), named, numerics)
    }
}

/// The devices that a run was computed with, according to its `run.json`.
fn recorded_devices(run: &Run) -> Result<Devices> {
    let backend: String = configured(run, "backend")?;
    // Runs in f32 have no such field.
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
        let file = run.store().display("run.json");
        PipelineError::Inconsistent(format!("{file}: `{field}`: {e}"))
    })
}
