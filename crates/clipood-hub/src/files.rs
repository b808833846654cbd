//! The files of a repository that form a checkpoint.

use crate::error::{HubError, Result};
use crate::name::Name;

/// Index files of weights that are split into several files.
const INDEXES: [&str; 2] = [
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
];

/// Files with the preprocessing of a transformers checkpoint. Version 5 writes the first one, older versions the second one,
/// and beside it sometimes a first one that does not say how images are prepared.
const PREPROCESSING: [&str; 2] = ["processor_config.json", "preprocessor_config.json"];

/// Configuration and weights among `all` files of the repository. Safetensors are preferred to pickles, and an open_clip
/// checkpoint to a transformers one. Of weights in several files only the index is returned; see [`shards`].
pub(crate) fn choose(name: &Name, all: &[String]) -> Result<Vec<String>> {
    let has = |file: &str| all.iter().any(|other| other == file);
    let first = |files: &[&'static str]| files.iter().copied().find(|file| has(file));
    let missing = |problem: String| HubError::NoCheckpoint {
        name: name.to_string(),
        problem,
    };
    let open_clip = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"];
    let transformers = [
        "model.safetensors",
        INDEXES[0],
        "pytorch_model.bin",
        INDEXES[1],
    ];
    let (config, weights) = match (has("open_clip_config.json"), first(&open_clip)) {
        (true, Some(weights)) => ("open_clip_config.json", weights),
        _ if has("config.json") => {
            let weights = first(&transformers).ok_or_else(|| {
                missing(format!(
                    "found config.json, but none of {}",
                    transformers.join(", ")
                ))
            })?;
            ("config.json", weights)
        }
        _ => {
            return Err(missing(format!(
                "expected config.json with {}, or open_clip_config.json with {}",
                transformers.join(" or "),
                open_clip.join(" or ")
            )));
        }
    };
    let mut files = vec![config.to_owned()];
    if config == "config.json" {
        files.extend(
            PREPROCESSING
                .into_iter()
                .filter(|file| has(file))
                .map(str::to_owned),
        );
    }
    files.push(weights.to_owned());
    Ok(files)
}

/// Whether a file is the index of split weights.
pub(crate) fn is_index(file: &str) -> bool {
    INDEXES.contains(&file)
}

/// The weight files listed in an index, each once.
pub(crate) fn shards(index: &str) -> std::result::Result<Vec<String>, String> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_str(index).map_err(|e| e.to_string())?;
    let mut files: Vec<String> = index.weight_map.into_values().collect();
    files.sort();
    files.dedup();
    match files.iter().find(|file| !is_plain(file)) {
        Some(file) => Err(format!("names the file {file:?}")),
        None => Ok(files),
    }
}

/// Whether a file name from the hub stays below the folder in which it is placed.
pub(crate) fn is_plain(file: &str) -> bool {
    !file.is_empty()
        && !file.contains('\\')
        && file
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(all: &[&str]) -> std::result::Result<Vec<String>, String> {
        let name = Name {
            repository: "a/b".into(),
            revision: "main".into(),
            kind: crate::name::Kind::Model,
        };
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        choose(&name, &all).map_err(|e| e.to_string())
    }

    #[test]
    fn safetensors_come_first() {
        let all = [
            "README.md",
            "config.json",
            "pytorch_model.bin",
            "model.safetensors",
        ];
        assert_eq!(chosen(&all).unwrap(), ["config.json", "model.safetensors"]);
        let all = [
            "config.json",
            "open_clip_config.json",
            "open_clip_pytorch_model.bin",
            "model.safetensors",
        ];
        assert_eq!(
            chosen(&all).unwrap(),
            ["open_clip_config.json", "open_clip_pytorch_model.bin"]
        );
        let all = ["config.json", "preprocessor_config.json", INDEXES[0]];
        assert_eq!(
            chosen(&all).unwrap(),
            ["config.json", "preprocessor_config.json", INDEXES[0]]
        );
        let all = [
            "preprocessor_config.json",
            "processor_config.json",
            "config.json",
            "model.safetensors",
        ];
        assert_eq!(
            chosen(&all).unwrap(),
            [
                "config.json",
                "processor_config.json",
                "preprocessor_config.json",
                "model.safetensors"
            ]
        );
        assert!(
            chosen(&["README.md"])
                .unwrap_err()
                .contains("expected config.json")
        );
        assert!(chosen(&["config.json"]).unwrap_err().contains("none of"));
    }

    #[test]
    fn an_index_cannot_leave_its_folder() {
        let map =
            |file: &str| format!("{{\"weight_map\": {{\"a\": \"{file}\", \"b\": \"{file}\"}}}}");
        assert_eq!(
            shards(&map("model-00001-of-00002.safetensors"))
                .unwrap()
                .len(),
            1
        );
        assert!(shards(&map("../../x")).is_err());
        assert!(shards("{}").is_err());
    }
}
