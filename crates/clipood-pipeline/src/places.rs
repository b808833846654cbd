//! [`Places`]: the locations of images, of the run directory, and of the store of features and prompts that runs share.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clipood_core::Fingerprint;
use clipood_store::{Ledger, Run, Store};
use serde_json::json;

use crate::error::Result;
use crate::experiment::Experiment;

/// What to do if the images are not those that the run was planned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangedData {
    /// Other files, or other folders, are an error.
    Refuse,
    /// Other files are an error; the same files may be in other folders, as on another machine.
    AllowMoved,
    /// The changes are reported, and the plan is used as it is.
    Accept,
}

/// The locations of everything that a run reads and writes.
#[derive(Debug)]
pub struct Places {
    /// Folder that relative dataset roots start from.
    pub data: PathBuf,
    /// What to do if the images there are not those that the run was planned from.
    pub changed: ChangedData,
    /// The run directory.
    pub run: Run,
    /// Path or URL of the run directory, as messages name it.
    pub run_location: String,
    /// Features of this model, preprocessing, number format and backend.
    pub features: Features,
    /// Trained and hand-written prompt sets, linear probes and negative labels.
    pub prompts: Ledger,
}

/// The folder of features of one model and preprocessing in the store.
#[derive(Debug, Clone)]
pub struct Features {
    /// Fingerprint of model, preprocessing, number format and backend.
    pub fingerprint: Fingerprint,
    /// What the fingerprint was made from.
    pub inputs: BTreeMap<String, String>,
    /// Commits of its parts; paths are relative to `features/<fingerprint>`.
    pub ledger: Ledger,
}

/// Which ledger records the commits of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// The ledger of the run directory.
    Run,
    /// The ledger of the features in the store.
    Features,
    /// The ledger of the prompts in the store.
    Prompts,
}

/// The stores of a run.
#[derive(Debug)]
pub struct Stores {
    /// The run directory.
    pub run: Store,
    /// Features and prompts.
    pub shared: Store,
}

impl Places {
    /// Opens the run directory as the worker called `worker`; one that does not exist is created with its plan, so that a
    /// plan that is refused leaves none. `location` names it in messages.
    ///
    /// # Errors
    /// A run directory of another configuration, a store that cannot be written.
    pub fn open(
        experiment: &Experiment,
        stores: Stores,
        location: String,
        (data, changed): (PathBuf, ChangedData),
        worker: &str,
    ) -> Result<Self> {
        let versions = json!({ "clipood": env!("CARGO_PKG_VERSION") });
        let run = Run::open_or_prepare(stores.run, &experiment.config(), &versions, worker)?;
        let features = experiment.feature_inputs();
        let inputs = features.inputs().clone();
        let fingerprint = features.finish()?;
        let folder = stores.shared.child(&format!("features/{fingerprint}"))?;
        let prompts = Ledger::new(stores.shared.child("prompts")?, "_commits", worker);
        Ok(Self {
            data,
            changed,
            prompts: run.limit_claims(prompts),
            run,
            run_location: location,
            features: Features {
                fingerprint,
                inputs,
                ledger: Ledger::new(folder, "_commits", worker),
            },
        })
    }

    /// The ledger of a shelf.
    pub fn ledger(&self, shelf: Shelf) -> &Ledger {
        match shelf {
            Shelf::Run => self.run.ledger(),
            Shelf::Features => &self.features.ledger,
            Shelf::Prompts => &self.prompts,
        }
    }
}
