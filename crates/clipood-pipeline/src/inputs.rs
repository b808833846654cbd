//! The inputs of fingerprints, kept in commit records so that `clipood explain` can tell why a unit is done again.

use std::collections::BTreeMap;

use clipood_store::CommitRecord;
use serde_json::{Value, json};

/// Key of the inputs in a commit record.
const INPUTS: &str = "inputs";

/// What a commit record keeps of the inputs of a fingerprint.
pub fn recorded(inputs: &BTreeMap<String, String>) -> BTreeMap<String, Value> {
    BTreeMap::from([(INPUTS.to_string(), json!(inputs))])
}

/// The inputs that a commit record keeps; `None` if it was recovered after a crash and keeps none.
pub fn inputs_of(record: &CommitRecord) -> Option<&Value> {
    record.extra.get(INPUTS)
}
