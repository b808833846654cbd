//! A run directory: created with one configuration and reopened only with the same.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::difference::differences;
use crate::error::{Error, Result};
use crate::protocol::{Ledger, claims_suffix};
use crate::record::{FORMAT_VERSION, check_version, nonce, sealed_json};
use crate::seal::{Seal, check_json_seal};
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
    /// The configuration of the caller, which is also that of `run.json` once there is one.
    config: Value,
    /// The versions of the caller, for a `run.json` that this process creates.
    versions: Value,
    /// What `run.json` contains; empty until it exists.
    standing: Arc<OnceLock<Standing>>,
    /// Suffix of the directories of claims that only the workers of this run see; unset while `standing` is.
    claims: Arc<OnceLock<String>>,
}

/// What `run.json` says besides the configuration.
#[derive(Debug)]
struct Standing {
    id: String,
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
        let run = Self::open_or_prepare(store, config, versions, worker)?;
        run.create()?;
        Ok(run)
    }

    /// Opens the run in `store` if it exists with the same configuration; otherwise the run is only prepared, and nothing is
    /// written before [`Run::create`]. So work that can still be refused leaves no directory that belongs to its configuration.
    ///
    /// # Errors
    /// As of [`Run::open_or_create`].
    pub fn open_or_prepare(
        store: Store,
        config: &Value,
        versions: &Value,
        worker: &str,
    ) -> Result<Self> {
        let run = Self {
            ledger: Self::ledger_in(store, worker),
            config: config.clone(),
            versions: versions.clone(),
            standing: Arc::default(),
            claims: Arc::default(),
        };
        let path = run.store().display(RUN_FILE);
        if let Some(found) = run.store().get(RUN_FILE)? {
            run.stands(parse(&path, &found)?)?;
        }
        Ok(run)
    }

    /// Writes `run.json` if there is none. Any number of workers may do so concurrently; all of them belong to the run of the
    /// first.
    ///
    /// # Errors
    /// As of [`Run::open_or_create`].
    pub fn create(&self) -> Result<()> {
        if self.exists() {
            return Ok(());
        }
        let path = self.store().display(RUN_FILE);
        let file = RunFile {
            format_version: FORMAT_VERSION,
            id: nonce()?,
            config: self.config.clone(),
            versions: self.versions.clone(),
        };
        let ours = sealed_json(&path, "run file", &file)?;
        match self.store().create(RUN_FILE, ours)? {
            Created::New | Created::Identical => self.stands(file),
            Created::Existed(found) => self.stands(parse(&path, &found)?),
        }
    }

    /// Whether `run.json` exists, as far as this process knows: it has opened or created it.
    pub fn exists(&self) -> bool {
        self.standing.get().is_some()
    }

    /// Takes note of the run file that exists.
    fn stands(&self, file: RunFile) -> Result<()> {
        let differences = differences(&file.config, &self.config);
        if !differences.is_empty() {
            let path = self.store().display(RUN_FILE);
            return Err(Error::OtherConfiguration { path, differences });
        }
        let claims = claims_suffix(&file.id)?;
        // Another thread may have been faster; it has read the same file.
        self.claims.get_or_init(|| claims);
        self.standing.get_or_init(|| Standing {
            id: file.id,
            versions: file.versions,
        });
        Ok(())
    }

    /// Opens an existing run with its stored configuration.
    ///
    /// # Errors
    /// [`Error::NoRun`], [`Error::Json`], [`Error::Version`], the store's errors.
    pub fn open(store: Store, worker: &str) -> Result<Self> {
        let path = store.display(RUN_FILE);
        let Some(bytes) = store.get(RUN_FILE)? else {
            return Err(Error::NoRun { path });
        };
        let file = parse(&path, &bytes)?;
        let run = Self {
            ledger: Self::ledger_in(store, worker),
            config: file.config.clone(),
            versions: file.versions.clone(),
            standing: Arc::default(),
            claims: Arc::default(),
        };
        run.stands(file)?;
        Ok(run)
    }

    /// The commits in the run directory `store`, without reading its configuration.
    pub fn ledger_in(store: Store, worker: &str) -> Ledger {
        Ledger::new(store, LEDGER_DIR, worker)
    }

    /// The run directory.
    pub fn store(&self) -> &Store {
        self.ledger.store()
    }

    /// Its commits and claims.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Identifier that distinguishes this run from others of the same configuration; empty for runs of older versions, and
    /// for one that is not created yet.
    pub fn id(&self) -> &str {
        self.standing.get().map_or("", |standing| &standing.id)
    }

    /// The configuration in `run.json`.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The versions in `run.json`, of the program that created the run.
    pub fn versions(&self) -> &Value {
        let standing = self.standing.get();
        standing.map_or(&self.versions, |standing| &standing.versions)
    }

    /// `ledger` with claims that only the workers of this run see, as [`Ledger::with_claims_of`]; the run need not be created
    /// before the first claim.
    #[must_use]
    pub fn limit_claims(&self, ledger: Ledger) -> Ledger {
        ledger.with_claims_suffix(&self.claims)
    }
}

fn parse(path: &str, bytes: &bytes::Bytes) -> Result<RunFile> {
    if let Seal::Broken { expected, found } = check_json_seal(bytes) {
        return Err(Error::RunFileDamaged {
            path: path.to_owned(),
            expected,
            found,
        });
    }
    check_version(path, "run file", bytes)?;
    serde_json::from_slice(bytes).map_err(|source| Error::Json {
        path: path.to_owned(),
        what: "run file",
        source,
    })
}
