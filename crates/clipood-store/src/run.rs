//! A run directory: created with one configuration and reopened only with the same.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::difference::differences;
use crate::error::{Error, Result};
use crate::protocol::Ledger;
use crate::record::{FORMAT_VERSION, check_version, nonce, to_json};
use crate::store::{Created, Store};

/// Directory of the bookkeeping of a run.
const LEDGER_DIR: &str = "_run";

/// The file that makes a directory a run.
const RUN_FILE: &str = "run.json";

#[derive(Serialize, Deserialize)]
struct RunFile {
    format_version: u32,
    /// 128 random bits in hexadecimal digits, which distinguish this run from others of the same configuration.
    #[serde(default)]
    id: String,
    config: Value,
    versions: Value,
}

/// An open run directory: `run.json` and the ledger in `_run`.
///
/// ```text
/// run.json                                   the configuration, created once
/// _run/commits/<stage>/<unit>.<digits>.json  one record per unit
/// _run/claims/<stage>/<unit>.json            hints: a worker has started this unit
/// _run/...                                   other files of the pipeline
/// ```
#[derive(Clone, Debug)]
pub struct Run {
    ledger: Ledger,
    id: String,
    config: Value,
    versions: Value,
}

impl Run {
    /// Creates the run in `store`, or opens it if it exists with the same configuration. Any number of workers may do so
    /// concurrently.
    ///
    /// `config` contains everything that affects results; it is compared field by field. The `versions` of the first caller
    /// are stored for information and never compared.
    ///
    /// # Errors
    /// [`Error::OtherConfiguration`] with every field that differs, [`Error::Json`], [`Error::Version`], the store's errors.
    pub fn open_or_create(
        store: Store,
        config: &Value,
        versions: &Value,
        worker: &str,
    ) -> Result<Self> {
        let path = store.display(RUN_FILE);
        let file = RunFile {
            format_version: FORMAT_VERSION,
            id: nonce()?,
            config: config.clone(),
            versions: versions.clone(),
        };
        let ours = to_json(&path, "run file", &file)?;
        // Read first: looking at a run needs no permission to write.
        let standing = match store.get(RUN_FILE)? {
            Some(found) => parse(&path, &found)?,
            None => match store.create(RUN_FILE, ours)? {
                Created::New | Created::Identical => file,
                Created::Existed(found) => parse(&path, &found)?,
            },
        };
        let differences = differences(&standing.config, config);
        if !differences.is_empty() {
            return Err(Error::OtherConfiguration { path, differences });
        }
        Ok(Self::with(store, standing, worker))
    }

    /// Opens an existing run with its stored configuration.
    ///
    /// # Errors
    /// [`Error::NoRun`], [`Error::Json`], [`Error::Version`], the store's errors.
    pub fn open(store: Store, worker: &str) -> Result<Self> {
        let path = store.display(RUN_FILE);
        match store.get(RUN_FILE)? {
            Some(bytes) => Ok(Self::with(store, parse(&path, &bytes)?, worker)),
            None => Err(Error::NoRun { path }),
        }
    }

    fn with(store: Store, file: RunFile, worker: &str) -> Self {
        Self {
            ledger: Ledger::new(store, LEDGER_DIR, worker),
            id: file.id,
            config: file.config,
            versions: file.versions,
        }
    }

    /// The run directory.
    pub fn store(&self) -> &Store {
        self.ledger.store()
    }

    /// Its commits and claims.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Identifier that distinguishes this run from others of the same configuration; empty for runs of older versions.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The configuration in `run.json`.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The versions in `run.json`, of the program that created the run.
    pub fn versions(&self) -> &Value {
        &self.versions
    }
}

fn parse(path: &str, bytes: &bytes::Bytes) -> Result<RunFile> {
    check_version(path, "run file", bytes)?;
    serde_json::from_slice(bytes).map_err(|source| Error::Json {
        path: path.to_owned(),
        what: "run file",
        source,
    })
}
