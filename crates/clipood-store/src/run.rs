//! A run directory: made from one configuration, opened again only with the same.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::protocol::Ledger;
use crate::record::{FORMAT_VERSION, check_version, nonce, to_json};
use crate::store::{Created, Store};

/// Where a run keeps its bookkeeping.
const LEDGER_DIR: &str = "_run";

/// The file that makes a directory a run.
const RUN_FILE: &str = "run.json";

/// Longest value shown in a difference, in characters.
const SHOWN: usize = 100;

#[derive(Serialize, Deserialize)]
struct RunFile {
    format_version: u32,
    /// 128 random bits in hexadecimal digits: tells this run from others of the same configuration.
    #[serde(default)]
    id: String,
    config: Value,
    versions: Value,
}

/// One field in which two configurations differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path of the field, such as `methods[1].shots`; empty for the whole.
    pub field: String,
    /// The value in the run directory as JSON; `None` if absent.
    pub found: Option<String>,
    /// The value wanted now as JSON; `None` if absent.
    pub wanted: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<String>| match value {
            None => "absent".to_owned(),
            Some(text) if text.chars().count() > SHOWN => {
                format!("{}...", text.chars().take(SHOWN).collect::<String>())
            }
            Some(text) => text.clone(),
        };
        let field = match &*self.field {
            "" => "the whole configuration",
            field => field,
        };
        write!(
            f,
            "{field}: {} there, {} here",
            show(&self.found),
            show(&self.wanted)
        )
    }
}

/// An open run directory: `run.json` and the ledger in `_run`.
///
/// ```text
/// run.json                                   the configuration, created once
/// _run/commits/<stage>/<unit>.<digits>.json  one record a unit
/// _run/claims/<stage>/<unit>.json            hints: somebody started this
/// _run/quarantine/<stage>@<unit>.parquet     rows that could not be used, written by the stages
/// ```
#[derive(Clone, Debug)]
pub struct Run {
    ledger: Ledger,
    id: String,
    config: Value,
    versions: Value,
}

impl Run {
    /// Creates the run in `store`, or opens it if its configuration is the same. Any number of workers may do so at once.
    ///
    /// `config` is everything that decides results; it is compared field by field. `versions` is kept for the record as
    /// the first caller gave it and never compared.
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
        let standing = match store.create(RUN_FILE, ours)? {
            Created::New | Created::Identical => file,
            Created::Existed(found) => parse(&path, &found)?,
        };
        let differences = differences(&standing.config, config);
        if !differences.is_empty() {
            return Err(Error::OtherConfiguration { path, differences });
        }
        Ok(Self::with(store, standing, worker))
    }

    /// Opens an existing run with the configuration it was made from.
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

    /// What tells this run from others of the same configuration.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The configuration in `run.json`.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The versions in `run.json`: those of the program that created the run.
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

/// Every field in which two configurations differ, in the order of their paths.
///
/// Objects are compared key by key and arrays element by element, so that each difference is as small as it can be.
pub fn differences(found: &Value, wanted: &Value) -> Vec<Difference> {
    let mut all = Vec::new();
    compare("", Some(found), Some(wanted), &mut all);
    all
}

fn compare(field: &str, found: Option<&Value>, wanted: Option<&Value>, all: &mut Vec<Difference>) {
    match (found, wanted) {
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            let mut keys: Vec<&String> = left.keys().chain(right.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                let inner = match field {
                    "" => key.clone(),
                    _ => format!("{field}.{key}"),
                };
                compare(&inner, left.get(key), right.get(key), all);
            }
        }
        (Some(Value::Array(left)), Some(Value::Array(right))) => {
            for index in 0..left.len().max(right.len()) {
                let inner = format!("{field}[{index}]");
                compare(&inner, left.get(index), right.get(index), all);
            }
        }
        _ if found == wanted => {}
        _ => all.push(Difference {
            field: field.to_owned(),
            found: found.map(Value::to_string),
            wanted: wanted.map(Value::to_string),
        }),
    }
}
