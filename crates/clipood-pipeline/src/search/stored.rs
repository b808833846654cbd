//! [`StoredFeatures`]: the features of one model in a store, as rows to search.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use clipood_store::{CommitRecord, Ledger, Store, Unit};

use super::index::SearchIndex;
use crate::encode::EVAL_VIEW;
use crate::error::{PipelineError, Result};
use crate::extract::GLOBAL;
use crate::tables::{read_footer, read_global};

/// Name of the reader in its ledger, which it only reads.
const READER: &str = "search";

/// Committed features of one model and preprocessing.
#[derive(Debug)]
pub struct StoredFeatures {
    /// The name of the model, as the run that extracted them gave it.
    pub model: String,
    /// Hash of its weights.
    pub model_hash: String,
    ledger: Ledger,
    parts: Vec<CommitRecord>,
}

/// What a folder of features was made with.
struct Made {
    fingerprint: String,
    model: String,
    model_hash: String,
    /// Number format, backend and preprocessing.
    how: String,
}

impl StoredFeatures {
    /// Opens the features in a store: those whose fingerprint starts with `fingerprint`, of the model with the hash
    /// `model_hash` where one is given.
    ///
    /// # Errors
    /// [`PipelineError::Usage`] if there are none, or several, with a list of what there is; damaged records; the store's
    /// errors.
    pub fn open(store: &Store, fingerprint: &str, model_hash: Option<&str>) -> Result<Self> {
        let all = folders(store)?;
        let list = || {
            let line = |made: &Made| {
                let start: String = made.fingerprint.chars().take(12).collect();
                format!("\n  {start}  model {}, {}", made.model, made.how)
            };
            all.iter().map(line).collect::<String>()
        };
        let fits = |made: &&Made| {
            made.fingerprint.starts_with(fingerprint)
                && model_hash.is_none_or(|hash| made.model_hash == hash)
        };
        let chosen: Vec<&Made> = all.iter().filter(fits).collect();
        let place = store.display("features");
        let made = match chosen[..] {
            [made] => made,
            [] if all.is_empty() => {
                let text = format!("{place} holds no features: run a recipe with this store first");
                return Err(PipelineError::Usage(text));
            }
            [] => {
                let text = format!(
                    "{place} holds no features of this model; it holds:{}",
                    list()
                );
                return Err(PipelineError::Usage(text));
            }
            _ => {
                let text = format!(
                    "{place} holds several; choose one with --fingerprint:{}",
                    list()
                );
                return Err(PipelineError::Usage(text));
            }
        };
        let folder = store.child(&format!("features/{}", made.fingerprint))?;
        let ledger = Ledger::new(folder, "_commits", READER);
        let mut parts = ledger.records(GLOBAL)?;
        parts.retain(|record| record.part.is_some() && record.rows > 0);
        Ok(Self {
            model: made.model.clone(),
            model_hash: made.model_hash.clone(),
            ledger,
            parts,
        })
    }

    /// A digest of the parts: equal if and only if the features are.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for record in &self.parts {
            hasher.update(record.unit.as_bytes());
            hasher.update(b"\n");
            hasher.update(record.blake3.as_deref().unwrap_or_default().as_bytes());
            hasher.update(b"\n");
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The evaluation views of all images, one row per image, named by its key.
    ///
    /// # Errors
    /// A part that is missing or damaged, features without direction, no feature at all.
    pub fn index(&self) -> Result<SearchIndex> {
        let mut seen = HashSet::new();
        let mut names = Vec::new();
        let mut values = Vec::new();
        let mut dim = 0;
        for record in &self.parts {
            // Kept by `open` only with a part.
            let Some(path) = &record.part else { continue };
            let unit = Unit {
                key: record.unit.clone(),
                fingerprint: record.fingerprint.clone(),
            };
            let name = self.ledger.store().display(path);
            let decode = |bytes: Bytes| read_global(bytes, &name);
            let table = self.ledger.read_part_with(GLOBAL, &unit, path, decode)??;
            if dim != 0 && table.dim != dim {
                return Err(PipelineError::Inconsistent(format!(
                    "{name}: features of width {}, others have {dim}",
                    table.dim
                )));
            }
            dim = table.dim;
            let rows = table.keys.into_iter().zip(table.views);
            for ((key, view), row) in rows.zip(table.values.chunks_exact(dim)) {
                // An image that several plans shard differently is in several parts.
                if view == EVAL_VIEW && seen.insert(key.clone()) {
                    names.push(key);
                    values.extend_from_slice(row);
                }
            }
        }
        if names.is_empty() {
            return Err(PipelineError::Usage(format!(
                "{} holds no evaluation view of an image",
                self.ledger.store().display("")
            )));
        }
        SearchIndex::new(dim, names, values)
    }
}

/// The folders of features of a store that hold a part.
fn folders(store: &Store) -> Result<Vec<Made>> {
    let mut first: BTreeMap<String, String> = BTreeMap::new();
    for object in store.list("features")? {
        let parts: Vec<&str> = object.path.split('/').collect();
        if let ["features", folder, GLOBAL, part] = parts[..]
            && part.ends_with(".parquet")
        {
            first.entry(folder.to_owned()).or_insert(object.path);
        }
    }
    let mut all = Vec::with_capacity(first.len());
    for (fingerprint, path) in first {
        let Some(bytes) = store.get(&path)? else {
            continue;
        };
        let extra = read_footer(&bytes, &store.display(&path))?.meta.extra;
        let of = |key: &str| {
            extra
                .get(&format!("clipood.{key}"))
                .cloned()
                .unwrap_or_default()
        };
        all.push(Made {
            fingerprint,
            model: of("model"),
            model_hash: of("model_hash"),
            how: format!(
                "{} on {}, {}",
                of("dtype"),
                of("backend"),
                of("preprocessing")
            ),
        });
    }
    Ok(all)
}
