//! Every recipe and manifest of the repository parses, and every dataset of a recipe exists with the right role.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clipood_core::{DatasetManifest, Recipe, Role};

fn toml_files(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no TOML file in {}", folder.display());
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    };
    files.into_iter().map(read).collect()
}

fn stem(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

fn manifests() -> BTreeMap<String, DatasetManifest> {
    toml_files("manifests/datasets")
        .into_iter()
        .map(|(path, text)| {
            let manifest = DatasetManifest::parse(&text, &path.display().to_string());
            let manifest = manifest.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(manifest.name, stem(&path));
            (manifest.name.clone(), manifest)
        })
        .collect()
}

#[test]
fn recipes_parse_and_name_known_datasets() {
    let manifests = manifests();
    for (path, text) in toml_files("pipelines") {
        let recipe = Recipe::parse(&text, &path.display().to_string());
        let recipe = recipe.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(recipe.name, stem(&path));
        let role = |name: &String| manifests.get(name).map(|manifest| manifest.role);
        assert_eq!(role(&recipe.data.id), Some(Role::Id), "{}", recipe.name);
        for name in &recipe.data.ood {
            assert_eq!(role(name), Some(Role::Ood), "{}: {name}", recipe.name);
        }
    }
}

#[test]
fn the_demo_covers_what_the_first_page_promises() {
    let (path, text) = toml_files("pipelines")
        .into_iter()
        .find(|(path, _)| stem(path) == "demo")
        .unwrap();
    let recipe = Recipe::parse(&text, &path.display().to_string()).unwrap();
    let methods: Vec<_> = recipe.methods.iter().map(|method| method.name()).collect();
    assert_eq!(methods, ["zero-shot", "coop", "locoop"]);
    assert_eq!(recipe.shots, [16]);
    let manifests = manifests();
    let id = &manifests["demo-id"];
    assert_eq!(id.splits["train"], Path::new("train"));
    assert_eq!(id.splits["test"], Path::new("test"));
    for name in recipe.data.ood.iter().chain([&recipe.data.id]) {
        assert_eq!(manifests[name].generator.as_deref(), Some("demo"));
    }
}
