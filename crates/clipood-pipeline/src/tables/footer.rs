//! The metadata of a file: version, fingerprint, recipe and the rows that its unit put into quarantine.

use std::collections::BTreeMap;

use bytes::Bytes;
use clipood_store::{PartFooter, blank_seal};
use parquet::file::metadata::{FileMetaData, KeyValue, ParquetMetaDataReader};
use serde::{Deserialize, Serialize};

use super::error::{Result, TableError};
use super::guard::guard;

/// Version of the tables that this build writes, and the newest that it reads.
pub const SCHEMA_VERSION: u32 = 1;

const VERSION: &str = "clipood.schema_version";
const FINGERPRINT: &str = "clipood.fingerprint";
const RECIPE: &str = "clipood.recipe";
const ROWS: &str = "clipood.rows";
const QUARANTINED: &str = "clipood.quarantined";
const QUARANTINE: &str = "clipood.quarantine";
/// Key of the [seal](clipood_store::check_seal) of a file.
pub const SEAL: &str = "clipood.seal";
const OWN: [&str; 7] = [
    VERSION,
    FINGERPRINT,
    RECIPE,
    ROWS,
    QUARANTINED,
    QUARANTINE,
    SEAL,
];
/// Key of the exact Arrow types, written by the Arrow writer.
const ARROW_SCHEMA: &str = "ARROW:schema";

/// One image that a unit left out. The footer of the unit's part contains it too, so that a run that reuses the part
/// reports it again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QuarantineRow {
    /// `dataset/split/relative/path`.
    pub image_key: String,
    /// The file, or the archive that holds it.
    pub uri: String,
    /// Stage that could not use it.
    pub stage: String,
    /// Kind of error, one word.
    pub error_kind: String,
    /// The error.
    pub message: String,
    /// BLAKE3 hash of the image's bytes, hexadecimal; empty if they could not be read.
    pub content_hash: String,
}

/// The metadata that the writer of a file gives.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FileMeta {
    /// Fingerprint of the unit that made the file.
    pub fingerprint: String,
    /// Name of the recipe.
    pub recipe: String,
    /// Rows that the unit could not compute.
    pub quarantined: Vec<QuarantineRow>,
    /// Further keys, such as `clipood.model`, except those that every table writes.
    pub extra: BTreeMap<String, String>,
}

/// The metadata of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Footer {
    /// Version of the table, at most [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Rows of the file.
    pub rows: u64,
    /// The metadata given by its writer; `extra` also contains the keys of feature tables (`clipood.dim`, ...).
    pub meta: FileMeta,
}

/// Reads the metadata of a file without its columns; `file` names it in errors.
///
/// # Errors
/// [`TableError::Unreadable`] if the bytes are not a complete Parquet file, [`TableError::Metadata`] if a key is
/// missing, does not parse, contradicts the file, or has a newer version.
pub fn read_footer(bytes: &Bytes, file: &str) -> Result<Footer> {
    guard(file, || {
        let metadata = ParquetMetaDataReader::new()
            .parse_and_finish(bytes)
            .map_err(|e| TableError::unreadable(file, e))?;
        parse_footer(metadata.file_metadata(), file)
    })
}

/// What the store's commit protocol needs to know about a part; `None` if the bytes are not a complete part.
pub fn store_footer(bytes: &Bytes) -> Option<PartFooter> {
    let footer = read_footer(bytes, "part").ok()?;
    Some(PartFooter {
        fingerprint: footer.meta.fingerprint,
        rows: footer.rows,
        quarantined: footer.meta.quarantined.len() as u64,
    })
}

/// The key-value pairs of a file of `rows` rows; `own` are the keys of this kind of table.
pub(super) fn key_values(
    table: &str,
    meta: &FileMeta,
    own: &[(&str, String)],
    rows: usize,
) -> Result<Vec<KeyValue>> {
    let reserved = |key: &str| {
        OWN.contains(&key) || key == ARROW_SCHEMA || own.iter().any(|(name, _)| *name == key)
    };
    if let Some(key) = meta.extra.keys().find(|key| reserved(key)) {
        let expected = "a key that the table does not write itself";
        return Err(TableError::metadata(table, key, expected, "the same key"));
    }
    let quarantine = serde_json::to_string(&meta.quarantined)
        .map_err(|e| TableError::metadata(table, QUARANTINE, "JSON", e.to_string()))?;
    let every = [
        (VERSION, SCHEMA_VERSION.to_string()),
        (FINGERPRINT, meta.fingerprint.clone()),
        (RECIPE, meta.recipe.clone()),
        (ROWS, rows.to_string()),
        (QUARANTINED, meta.quarantined.len().to_string()),
        (QUARANTINE, quarantine),
    ];
    let pair = |key: &str, value: &str| KeyValue::new(key.to_owned(), value.to_owned());
    Ok(every
        .iter()
        .chain(own)
        .map(|(key, value)| pair(key, value))
        .chain(meta.extra.iter().map(|(key, value)| pair(key, value)))
        // The last text of this kind in the file is the seal.
        .chain([pair(SEAL, &blank_seal())])
        .collect())
}

/// Reads and checks what [`key_values`] wrote.
pub(super) fn parse_footer(metadata: &FileMetaData, file: &str) -> Result<Footer> {
    let mut pairs: BTreeMap<String, String> = metadata
        .key_value_metadata()
        .into_iter()
        .flatten()
        .map(|pair| (pair.key.clone(), pair.value.clone().unwrap_or_default()))
        .collect();
    let mut take = |key: &str| {
        pairs
            .remove(key)
            .ok_or_else(|| TableError::metadata(file, key, "a value", "none"))
    };
    let schema_version = number(file, VERSION, &take(VERSION)?)?;
    if schema_version > u64::from(SCHEMA_VERSION) {
        let expected = format!("at most {SCHEMA_VERSION} (a newer clipood wrote the file)");
        let found = schema_version.to_string();
        return Err(TableError::metadata(file, VERSION, expected, found));
    }
    let rows = number(file, ROWS, &take(ROWS)?)?;
    if i64::try_from(rows) != Ok(metadata.num_rows()) {
        let expected = format!("the file's {} rows", metadata.num_rows());
        return Err(TableError::metadata(file, ROWS, expected, rows.to_string()));
    }
    let quarantine = take(QUARANTINE)?;
    let quarantined: Vec<QuarantineRow> = serde_json::from_str(&quarantine).map_err(|e| {
        TableError::metadata(file, QUARANTINE, "a JSON list of rows", e.to_string())
    })?;
    let count = number(file, QUARANTINED, &take(QUARANTINED)?)?;
    if count != quarantined.len() as u64 {
        let expected = format!("the {} listed rows", quarantined.len());
        let found = count.to_string();
        return Err(TableError::metadata(file, QUARANTINED, expected, found));
    }
    let (fingerprint, recipe) = (take(FINGERPRINT)?, take(RECIPE)?);
    pairs.remove(ARROW_SCHEMA);
    pairs.remove(SEAL);
    Ok(Footer {
        schema_version: schema_version as u32,
        rows,
        meta: FileMeta {
            fingerprint,
            recipe,
            quarantined,
            extra: pairs,
        },
    })
}

/// The integer under `key` of a table's metadata.
pub(super) fn extra_number(footer: &Footer, file: &str, key: &str) -> Result<u64> {
    match footer.meta.extra.get(key) {
        Some(text) => number(file, key, text),
        None => Err(TableError::metadata(file, key, "a value", "none")),
    }
}

fn number(file: &str, key: &str, text: &str) -> Result<u64> {
    text.parse()
        .map_err(|_| TableError::metadata(file, key, "a whole number", format!("`{text}`")))
}
