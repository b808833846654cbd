//! JSON Schemas of recipes, dataset manifests and cluster manifests, with which editors complete keys and mark mistakes.
//!
//! No key is listed here: keys, words, types, required keys and defaults are what the parser itself answers ([`probe`]), and the
//! descriptions are the doc comments of its types ([`docs`]). The schemas are of draft 7, the newest one that taplo, the TOML
//! language server of editors, supports throughout; `x-taplo` holds its descriptions of the words of a choice.
//!
//! A schema says less than the parser: ranges of numbers and dependencies between keys are in the descriptions only.

mod docs;
mod probe;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use self::probe::{Kind, Step, ask};
use crate::cluster::ClusterManifest;
use crate::manifest::{DatasetManifest, SPLITS};
use crate::recipe::{Recipe, TEMPLATE_SETS};

/// The JSON Schema of recipes, `pipelines/*.toml`.
pub fn recipe_schema() -> Value {
    document::<Recipe>("clipood recipe", "What to compute, `pipelines/*.toml`.")
}

/// The JSON Schema of dataset manifests, `manifests/datasets/*.toml`.
pub fn manifest_schema() -> Value {
    document::<DatasetManifest>(
        "clipood dataset manifest",
        "Where a dataset is stored and how to read it, `manifests/datasets/*.toml`.",
    )
}

/// The JSON Schema of cluster manifests, `manifests/clusters/*.toml`.
pub fn cluster_schema() -> Value {
    document::<ClusterManifest>(
        "clipood cluster manifest",
        "How a run is submitted to Slurm or Kubernetes, `manifests/clusters/*.toml`.",
    )
}

fn document<T: DeserializeOwned + Serialize>(title: &str, description: &str) -> Value {
    let mut schema = node::<T>(&mut Vec::new());
    let heading = [
        ("$schema", "http://json-schema.org/draft-07/schema#"),
        ("title", title),
        ("description", description),
    ];
    schema.extend(heading.map(|(key, text)| (key.to_string(), json!(text))));
    Value::Object(schema)
}

/// The schema of what is at the end of `steps`.
fn node<T: DeserializeOwned + Serialize>(steps: &mut Vec<Step>) -> Map<String, Value> {
    let schema = match ask::<T>(steps, None).kind {
        Some(Kind::Table { name, keys }) => table::<T>(steps, name, keys),
        Some(Kind::Choice { name, words }) => json!({
            "type": "string",
            "enum": words,
            "x-taplo": {"docs": {"enumValues": docs::of_variants(name)}},
        }),
        Some(Kind::List { length }) => {
            let mut list = json!({"type": "array", "items": entry::<T>(steps)});
            if let Some(length) = length {
                list["minItems"] = json!(length);
                list["maxItems"] = json!(length);
            }
            list
        }
        Some(Kind::Map) => json!({"type": "object", "additionalProperties": entry::<T>(steps)}),
        Some(Kind::Text) => json!({"type": "string"}),
        Some(Kind::Bool) => json!({"type": "boolean"}),
        Some(Kind::Integer { unsigned: true }) => json!({"type": "integer", "minimum": 0}),
        Some(Kind::Integer { unsigned: false }) => json!({"type": "integer"}),
        Some(Kind::Number) => json!({"type": "number"}),
        Some(Kind::Any) | None => json!({}),
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

fn entry<T: DeserializeOwned + Serialize>(steps: &mut Vec<Step>) -> Map<String, Value> {
    steps.push(Step::Entry);
    let schema = node::<T>(steps);
    steps.pop();
    schema
}

fn table<T: DeserializeOwned + Serialize>(
    steps: &mut Vec<Step>,
    name: &str,
    keys: &'static [&'static str],
) -> Value {
    let required = least::<T>(steps);
    let mut properties = Map::new();
    for key in keys {
        let default = match required.contains_key(*key) {
            true => None,
            false => default::<T>(steps, &required, key),
        };
        steps.push(Step::Key(key));
        let mut property = by_hand(name, key).unwrap_or_else(|| node::<T>(steps));
        steps.pop();
        if let Some(text) = docs::of_field(name, key) {
            property.insert("description".to_string(), json!(text));
        }
        if let Some(default) = default {
            property.insert("default".to_string(), default);
        }
        properties.insert(key.to_string(), Value::Object(property));
    }
    let mut table =
        json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !required.is_empty() {
        table["required"] = required.keys().map(String::as_str).collect();
    }
    table
}

/// The schema of the few keys whose types say too little.
fn by_hand(table: &str, key: &str) -> Option<Map<String, Value>> {
    let schema = match (table, key) {
        ("PromptSection", "templates") => json!({"anyOf": [
            {"type": "string", "enum": TEMPLATE_SETS},
            {"type": "array", "items": {"type": "string"}},
        ]}),
        ("DatasetManifest", "splits") => {
            let text = json!({"type": "string"});
            let splits: Map<String, Value> = SPLITS
                .iter()
                .map(|split| (split.to_string(), text.clone()))
                .collect();
            json!({"type": "object", "properties": splits, "additionalProperties": false})
        }
        _ => return None,
    };
    schema.as_object().cloned()
}

/// The smallest table that the parser takes at a place: the required keys, with some value each.
fn least<T: DeserializeOwned>(steps: &[Step]) -> Map<String, Value> {
    let mut table = Map::new();
    loop {
        let offered = Value::Object(table.clone());
        let answer = ask::<T>(steps, Some(&offered));
        let (Some(Kind::Table { keys, .. }), Some(problem)) = (answer.kind, answer.problem) else {
            return table;
        };
        let mut missing = keys
            .iter()
            .filter(|key| problem == format!("missing field `{key}`"));
        match missing.next() {
            Some(key) if !table.contains_key(*key) => {
                let value = sample::<T>(&[steps, &[Step::Key(key)]].concat());
                table.insert(key.to_string(), value);
            }
            _ => return table,
        }
    }
}

/// Some value that the parser takes at a place.
fn sample<T: DeserializeOwned>(steps: &[Step]) -> Value {
    match ask::<T>(steps, None).kind {
        Some(Kind::Table { .. }) => Value::Object(least::<T>(steps)),
        Some(Kind::Choice { words, .. }) => json!(words.first()),
        Some(Kind::List { length }) => {
            let value = sample_of_entry::<T>(steps, length.unwrap_or(0));
            Value::Array(value)
        }
        Some(Kind::Map) => json!({}),
        Some(Kind::Text) => json!("x"),
        Some(Kind::Bool) => json!(false),
        Some(Kind::Integer { .. }) => json!(1),
        Some(Kind::Number) => json!(0.5),
        Some(Kind::Any) | None => Value::Null,
    }
}

fn sample_of_entry<T: DeserializeOwned>(steps: &[Step], count: usize) -> Vec<Value> {
    let inside = [steps, &[Step::Entry]].concat();
    (0..count).map(|_| sample::<T>(&inside)).collect()
}

/// The smallest document with `value` at the end of `steps`.
fn around<T: DeserializeOwned>(steps: &[Step], value: Value) -> Value {
    let Some((last, before)) = steps.split_last() else {
        return value;
    };
    let outer = match last {
        Step::Key(key) => {
            let mut table = least::<T>(before);
            table.insert(key.to_string(), value);
            Value::Object(table)
        }
        Step::Entry => match ask::<T>(before, None).kind {
            Some(Kind::Map) => json!({"x": value}),
            _ => json!([value]),
        },
    };
    around::<T>(before, outer)
}

/// The table at the end of `steps` with all defaults filled in, as the parsed document writes it; `None` if it writes none there.
fn written<T: DeserializeOwned + Serialize>(
    steps: &[Step],
    table: Map<String, Value>,
) -> Option<Map<String, Value>> {
    let parsed: T = serde_json::from_value(around::<T>(steps, Value::Object(table))).ok()?;
    let mut value = serde_json::to_value(parsed).ok()?;
    for step in steps {
        value = match (step, value) {
            (Step::Key(key), Value::Object(mut table)) => table.remove(*key)?,
            (Step::Entry, Value::Object(table)) => table.into_iter().next()?.1,
            (Step::Entry, Value::Array(list)) => list.into_iter().next()?,
            _ => return None,
        };
    }
    match value {
        Value::Object(table) => Some(table),
        _ => None,
    }
}

/// The default of an optional key, unless it is nothing, an empty list or a table.
fn default<T: DeserializeOwned + Serialize>(
    steps: &[Step],
    required: &Map<String, Value>,
    key: &'static str,
) -> Option<Value> {
    match written::<T>(steps, required.clone())?.remove(key) {
        Some(Value::Null | Value::Object(_)) => None,
        Some(Value::Array(list)) if list.is_empty() => None,
        Some(value) => Some(value),
        None => unwritten_word::<T>(steps, required, key),
    }
}

/// The word that is not written because it is the default.
fn unwritten_word<T: DeserializeOwned + Serialize>(
    steps: &[Step],
    required: &Map<String, Value>,
    key: &'static str,
) -> Option<Value> {
    let kind = ask::<T>(&[steps, &[Step::Key(key)]].concat(), None).kind;
    let Some(Kind::Choice { words, .. }) = kind else {
        return None;
    };
    let unwritten = |word: &&&str| {
        let mut table = required.clone();
        table.insert(key.to_string(), json!(word));
        written::<T>(steps, table).is_some_and(|table| !table.contains_key(key))
    };
    words.iter().find(unwritten).map(|word| json!(word))
}

#[cfg(test)]
mod tests;
