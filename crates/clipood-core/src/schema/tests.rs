use std::path::Path;

use serde::de::DeserializeOwned;

use super::*;

/// The first mistake of a document, with its place: only the keywords that the schemas use are known, any other ends the test.
fn mistake(schema: &Value, value: &Value) -> Option<String> {
    let keywords = schema.as_object().unwrap();
    keywords.iter().find_map(|(keyword, wanted)| {
        let holds = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "x-taplo" => true,
            "type" => match wanted.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                other => panic!("unknown type {other}"),
            },
            "enum" => wanted.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().unwrap_or(f64::INFINITY) >= wanted.as_f64().unwrap(),
            "minItems" => value
                .as_array()
                .is_none_or(|v| v.len() as u64 >= wanted.as_u64().unwrap()),
            "maxItems" => value
                .as_array()
                .is_none_or(|v| v.len() as u64 <= wanted.as_u64().unwrap()),
            "anyOf" => {
                let mut all = wanted.as_array().unwrap().iter();
                all.any(|one| mistake(one, value).is_none())
            }
            "required" => {
                let mut all = wanted.as_array().unwrap().iter();
                !value.is_object() || all.all(|key| value.get(key.as_str().unwrap()).is_some())
            }
            "items" => {
                let entries = value.as_array().into_iter().flatten();
                return entries.into_iter().find_map(|entry| mistake(wanted, entry));
            }
            "properties" => {
                return wanted.as_object().unwrap().iter().find_map(|(key, one)| {
                    let found = mistake(one, value.get(key)?)?;
                    Some(format!("{key}: {found}"))
                });
            }
            "additionalProperties" => {
                let known = schema.get("properties");
                let mut others =
                    value.as_object().into_iter().flatten().filter(|(key, _)| {
                        known.is_none_or(|known| known.get(key.as_str()).is_none())
                    });
                return match wanted {
                    Value::Bool(false) => others.next().map(|(key, _)| format!("unknown {key}")),
                    each => others.find_map(|(_, one)| mistake(each, one)),
                };
            }
            other => panic!("unknown keyword {other}"),
        };
        (!holds).then(|| format!("{keyword} {wanted}, found {value}"))
    })
}

/// Every table of a schema with the steps to it, in which `*` stands for an entry of a list or a map.
fn tables<'s>(schema: &'s Value, steps: Vec<String>, all: &mut Vec<(Vec<String>, &'s Value)>) {
    let inside = |step: &str| [steps.clone(), vec![step.to_string()]].concat();
    for (key, one) in schema["properties"].as_object().into_iter().flatten() {
        tables(one, inside(key), all);
    }
    for entries in ["items", "additionalProperties"] {
        if schema[entries].is_object() {
            tables(&schema[entries], inside("*"), all);
        }
    }
    if schema["properties"].is_object() {
        all.push((steps, schema));
    }
}

/// A document with nothing in it but `value` at the end of the steps.
fn only(schema: &Value, steps: &[String], value: Value) -> Value {
    match steps {
        [] => value,
        [first, rest @ ..] if first != "*" => {
            let inner = only(&schema["properties"][first], rest, value);
            json!({first.as_str(): inner})
        }
        [_, rest @ ..] if schema["type"] == "array" => json!([only(&schema["items"], rest, value)]),
        [_, rest @ ..] => json!({"x": only(&schema["additionalProperties"], rest, value)}),
    }
}

/// What the parser says about the shape of a document; content that is out of range, and keys that are missing, do not matter.
fn complaint<T: DeserializeOwned>(document: Value) -> Option<String> {
    let message = serde_json::from_value::<T>(document).err()?.to_string();
    let shapes = [
        "invalid type",
        "invalid length",
        "invalid value",
        "unknown variant",
        "unknown field",
    ];
    let about_shape = shapes.iter().any(|shape| message.starts_with(shape));
    about_shape.then_some(message)
}

/// The words in backticks but for the first, which is the one that was found.
fn valid_words(message: &str) -> Vec<&str> {
    let mut words: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
    words.sort_unstable();
    words
}

/// Holds what the messages of the parser say against the schema: the keys of every table, the words of every choice, and which
/// values have the right type. Returns the number of tables and choices.
fn agrees<T: DeserializeOwned>(schema: &Value) -> (usize, usize) {
    let mut all = Vec::new();
    tables(schema, Vec::new(), &mut all);
    let (mut count, mut choices) = (0, 0);
    for (steps, table) in &all {
        let properties = table["properties"].as_object().unwrap();
        if steps.join(".") == "splits" {
            continue; // a map to serde; see `splits_of_a_manifest`
        }
        count += 1;
        let unknown = only(schema, steps, json!({"zzz": 1}));
        let message = complaint::<T>(unknown).unwrap();
        assert!(message.starts_with("unknown field"), "{steps:?}: {message}");
        let keys: Vec<&str> = properties.keys().map(String::as_str).collect();
        assert_eq!(valid_words(&message), keys, "{steps:?}");
        for (key, property) in properties {
            let place = [steps.clone(), vec![key.clone()]].concat();
            let with = |value: &Value| only(schema, &place, value.clone());
            if let Some(words) = property["enum"].as_array() {
                choices += 1;
                let mut words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
                let message = complaint::<T>(with(&json!("zzz"))).unwrap();
                words.sort_unstable();
                assert_eq!(valid_words(&message), words, "{place:?}");
                let described = &property["x-taplo"]["docs"]["enumValues"];
                let described = described.as_array().unwrap().iter();
                let described = described.filter(|text| text.as_str().is_some_and(|t| t.len() > 5));
                assert_eq!(described.count(), words.len(), "{place:?}");
            }
            for value in [
                json!(1),
                json!(-1),
                json!(0.5),
                json!("zzz"),
                json!(true),
                json!([]),
                json!(["a {}"]),
                json!([1]),
                json!([0.5, 1.0]),
                json!({"x": 1}),
                json!({"x": "y"}),
                json!({"x": ["y"]}),
            ] {
                if key == "splits" && value.is_object() {
                    continue; // see `splits_of_a_manifest`
                }
                if value.is_array() && property["type"] == "object" {
                    continue; // serde also reads the values of a table from a list, which no schema invites to
                }
                let refused = complaint::<T>(with(&value));
                // Nothing that is required may be missing in an entry that is a table.
                let found = mistake(property, &value).filter(|text| !text.starts_with("required"));
                assert_eq!(
                    found.is_some(),
                    refused.is_some(),
                    "{place:?} = {value}: the schema says {found:?}, the parser {refused:?}"
                );
            }
        }
    }
    (count, choices)
}

#[test]
fn schemas_have_the_keys_words_and_types_of_the_parser() {
    assert_eq!(agrees::<Recipe>(&recipe_schema()), (16, 6));
    assert_eq!(agrees::<DatasetManifest>(&manifest_schema()), (3, 2));
    assert_eq!(agrees::<ClusterManifest>(&cluster_schema()), (10, 1));
}

#[test]
fn splits_of_a_manifest() {
    let schema = manifest_schema();
    let text = "name = \"a\"\nrole = \"ood\"\nlayout = \"image-folder\"\nroot = \"a\"\n[splits]\nzzz = \"b\"\n";
    let message = DatasetManifest::parse(text, "m.toml").unwrap_err();
    let message = message.to_string();
    let words: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    for split in schema["properties"]["splits"]["properties"]
        .as_object()
        .unwrap()
        .keys()
    {
        assert!(words.contains(&split.as_str()), "{split}: {message}");
    }
    let read: Value = toml::from_str(text).unwrap();
    assert_eq!(mistake(&schema, &read).unwrap(), "splits: unknown zzz");
}

/// Every default: a document that writes it out means the same as one that leaves it out. Returns their number.
fn defaults_hold<T>(schema: &Value) -> usize
where
    T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug,
{
    fn walk<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(
        steps: &mut Vec<Step>,
        schema: &Value,
    ) -> usize {
        let Some(Kind::Table { keys, .. }) = ask::<T>(steps, None).kind else {
            let inner = ["items", "additionalProperties"].map(|key| &schema[key]);
            let Some(inner) = inner.into_iter().find(|inner| inner.is_object()) else {
                return 0;
            };
            steps.push(Step::Entry);
            let count = walk::<T>(steps, inner);
            steps.pop();
            return count;
        };
        let mut count = 0;
        let table = least::<T>(steps);
        let read = |table: &Map<String, Value>| -> T {
            serde_json::from_value(around::<T>(steps, json!(table))).unwrap()
        };
        for key in keys {
            if let Some(default) = schema["properties"][*key].get("default") {
                let mut full = table.clone();
                full.insert(key.to_string(), default.clone());
                assert_eq!(read(&full), read(&table), "{steps:?} {key}");
                count += 1;
            }
        }
        for key in keys {
            steps.push(Step::Key(key));
            count += walk::<T>(steps, &schema["properties"][*key]);
            steps.pop();
        }
        count
    }
    walk::<T>(&mut Vec::new(), schema)
}

#[test]
fn defaults_mean_what_a_key_that_is_left_out_means() {
    let recipe = recipe_schema();
    assert!(defaults_hold::<Recipe>(&recipe) > 30);
    assert_eq!(defaults_hold::<DatasetManifest>(&manifest_schema()), 0);
    let cluster = cluster_schema();
    assert_eq!(defaults_hold::<ClusterManifest>(&cluster), 7);
    let of = |path: &str| recipe.pointer(path).and_then(|key| key.get("default"));
    for (path, default) in [
        ("prompt/properties/n_ctx", json!(16)),
        ("prompt/properties/templates", json!("simple")),
        ("train/properties/crop_scale", json!([0.08, 1.0])),
        ("data/properties/overlap", json!("report")),
        ("data/properties/validation_per_class", json!(8)),
        ("linear_probe/properties/c", json!(0.316)),
        (
            "negative_labels/properties/lists/items/properties/template",
            json!("a photo of a {}"),
        ),
    ] {
        assert_eq!(of(&format!("/properties/{path}")), Some(&default), "{path}");
    }
    assert_eq!(of("/properties/train/properties/epochs"), None);
    assert_eq!(cluster["properties"]["retries"]["default"], json!(2));
    assert_eq!(
        recipe["required"],
        json!(["data", "detectors", "methods", "model", "name"])
    );
}

#[test]
fn every_key_is_described_without_links_of_the_code() {
    for schema in [recipe_schema(), manifest_schema(), cluster_schema()] {
        let mut all = Vec::new();
        tables(&schema, Vec::new(), &mut all);
        for (steps, table) in all {
            if steps.join(".") == "splits" {
                continue; // its keys are not fields of a type
            }
            for (key, property) in table["properties"].as_object().unwrap() {
                let text = property["description"].as_str().unwrap_or_default();
                assert!(
                    text.len() > 3 && text.ends_with('.'),
                    "{steps:?} {key}: {text}"
                );
                for mark in ["](", "[`", "::", "erialised"] {
                    assert!(!text.contains(mark), "{steps:?} {key}: {text}");
                }
                let says = ["type", "enum", "anyOf"].iter();
                assert!(
                    says.clone().any(|word| property.get(word).is_some()),
                    "{key}"
                );
            }
        }
    }
}

/// The TOML files of a folder of the repository.
fn shipped(folder: &str) -> Vec<(String, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(folder);
    let entries = std::fs::read_dir(root).unwrap().map(Result::unwrap);
    let files = entries.map(|entry| {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, toml::from_str(&text).unwrap())
    });
    files.collect()
}

#[test]
fn shipped_files_fit_their_schema() {
    for (folder, schema, least) in [
        ("pipelines", recipe_schema(), 10),
        ("manifests/datasets", manifest_schema(), 40),
        ("manifests/clusters", cluster_schema(), 2),
    ] {
        let files = shipped(folder);
        assert!(files.len() >= least, "{folder}: {}", files.len());
        for (name, value) in files {
            assert_eq!(mistake(&schema, &value), None, "{folder}/{name}");
            let mut unknown = value.clone();
            unknown["zzz"] = json!(1);
            assert_eq!(mistake(&schema, &unknown).unwrap(), "unknown zzz");
            for required in schema["required"].as_array().unwrap() {
                let mut less = value.clone();
                less.as_object_mut()
                    .unwrap()
                    .remove(required.as_str().unwrap());
                assert!(mistake(&schema, &less).unwrap().starts_with("required"));
            }
        }
    }
}

#[test]
fn a_recipe_with_an_unknown_key_or_a_wrong_type_does_not_fit() {
    let schema = recipe_schema();
    let (_, demo) = shipped("pipelines")
        .into_iter()
        .find(|(name, _)| name == "demo.toml")
        .unwrap();
    for (path, key, value, expected) in [
        ("", "shot", json!([1]), "unknown shot"),
        ("/data", "oods", json!([]), "data: unknown oods"),
        ("", "shots", json!([1, -1]), "shots: minimum"),
        ("", "shots", json!(16), "shots: type"),
        ("", "methods", json!(["locop"]), "methods: enum"),
        ("/data", "overlap", json!("ignore"), "data: overlap: enum"),
    ] {
        let mut wrong = demo.clone();
        wrong.pointer_mut(path).unwrap()[key] = value;
        let found = mistake(&schema, &wrong).unwrap();
        assert!(found.starts_with(expected), "{path}/{key}: {found}");
    }
}
