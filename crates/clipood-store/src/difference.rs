//! Two configurations compared field by field.

use std::fmt;

use serde_json::Value;

/// Longest value shown in a message, in characters.
const SHOWN: usize = 100;

/// One field in which two configurations differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path of the field, such as `methods[1].shots`; empty for the whole configuration.
    pub field: String,
    /// The value in the run directory, as JSON; `None` if absent.
    pub found: Option<String>,
    /// The value requested now, as JSON; `None` if absent.
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

/// Every field in which two configurations differ, in the order of their paths.
///
/// Objects are compared key by key and arrays element by element, so each difference is as small as possible.
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
