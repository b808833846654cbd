//! Recipes, dataset manifests and word lists of the repository, embedded so that they are found in any folder.
//!
//! A file of the same name in the working directory takes precedence; the caller looks for it.

/// `pipelines/*.toml`.
const RECIPES: [(&str, &str); 12] = [
    (
        "caltech101-few-shot",
        include_str!("../../../pipelines/caltech101-few-shot.toml"),
    ),
    (
        "cifar10-vs-cifar100",
        include_str!("../../../pipelines/cifar10-vs-cifar100.toml"),
    ),
    (
        "cifar100-vs-cifar10",
        include_str!("../../../pipelines/cifar100-vs-cifar10.toml"),
    ),
    ("demo", include_str!("../../../pipelines/demo.toml")),
    (
        "detectors",
        include_str!("../../../pipelines/detectors.toml"),
    ),
    (
        "few-shot-grid",
        include_str!("../../../pipelines/few-shot-grid.toml"),
    ),
    (
        "imagenet-mos",
        include_str!("../../../pipelines/imagenet-mos.toml"),
    ),
    (
        "imagenet-ninco",
        include_str!("../../../pipelines/imagenet-ninco.toml"),
    ),
    (
        "imagenette-few-shot",
        include_str!("../../../pipelines/imagenette-few-shot.toml"),
    ),
    (
        "openood-v1.5-imagenet",
        include_str!("../../../pipelines/openood-v1.5-imagenet.toml"),
    ),
    (
        "openood-v1.5-imagenet200",
        include_str!("../../../pipelines/openood-v1.5-imagenet200.toml"),
    ),
    ("stamps", include_str!("../../../pipelines/stamps.toml")),
];

/// `manifests/datasets/*.toml`.
const MANIFESTS: [(&str, &str); 51] = [
    (
        "caltech101",
        include_str!("../../../manifests/datasets/caltech101.toml"),
    ),
    (
        "cifar10",
        include_str!("../../../manifests/datasets/cifar10.toml"),
    ),
    (
        "cifar10-ood",
        include_str!("../../../manifests/datasets/cifar10-ood.toml"),
    ),
    (
        "cifar100",
        include_str!("../../../manifests/datasets/cifar100.toml"),
    ),
    (
        "cifar100-ood",
        include_str!("../../../manifests/datasets/cifar100-ood.toml"),
    ),
    (
        "coop-caltech101",
        include_str!("../../../manifests/datasets/coop-caltech101.toml"),
    ),
    (
        "coop-dtd",
        include_str!("../../../manifests/datasets/coop-dtd.toml"),
    ),
    (
        "coop-eurosat",
        include_str!("../../../manifests/datasets/coop-eurosat.toml"),
    ),
    (
        "coop-fgvc-aircraft",
        include_str!("../../../manifests/datasets/coop-fgvc-aircraft.toml"),
    ),
    (
        "coop-food101",
        include_str!("../../../manifests/datasets/coop-food101.toml"),
    ),
    (
        "coop-imagenet",
        include_str!("../../../manifests/datasets/coop-imagenet.toml"),
    ),
    (
        "coop-oxford-flowers",
        include_str!("../../../manifests/datasets/coop-oxford-flowers.toml"),
    ),
    (
        "coop-oxford-pets",
        include_str!("../../../manifests/datasets/coop-oxford-pets.toml"),
    ),
    (
        "coop-stanford-cars",
        include_str!("../../../manifests/datasets/coop-stanford-cars.toml"),
    ),
    (
        "coop-sun397",
        include_str!("../../../manifests/datasets/coop-sun397.toml"),
    ),
    (
        "coop-ucf101",
        include_str!("../../../manifests/datasets/coop-ucf101.toml"),
    ),
    (
        "demo-glyphs",
        include_str!("../../../manifests/datasets/demo-glyphs.toml"),
    ),
    (
        "demo-id",
        include_str!("../../../manifests/datasets/demo-id.toml"),
    ),
    (
        "demo-near",
        include_str!("../../../manifests/datasets/demo-near.toml"),
    ),
    (
        "demo-scenes",
        include_str!("../../../manifests/datasets/demo-scenes.toml"),
    ),
    (
        "demo-textures",
        include_str!("../../../manifests/datasets/demo-textures.toml"),
    ),
    (
        "demo-validation",
        include_str!("../../../manifests/datasets/demo-validation.toml"),
    ),
    (
        "imagenet",
        include_str!("../../../manifests/datasets/imagenet.toml"),
    ),
    (
        "imagenette",
        include_str!("../../../manifests/datasets/imagenette.toml"),
    ),
    (
        "inaturalist",
        include_str!("../../../manifests/datasets/inaturalist.toml"),
    ),
    (
        "ninco",
        include_str!("../../../manifests/datasets/ninco.toml"),
    ),
    (
        "ninco-clean-360openset",
        include_str!("../../../manifests/datasets/ninco-clean-360openset.toml"),
    ),
    (
        "ninco-clean-cood",
        include_str!("../../../manifests/datasets/ninco-clean-cood.toml"),
    ),
    (
        "ninco-clean-imagenet-1k-ood",
        include_str!("../../../manifests/datasets/ninco-clean-imagenet-1k-ood.toml"),
    ),
    (
        "ninco-clean-imagenet-o",
        include_str!("../../../manifests/datasets/ninco-clean-imagenet-o.toml"),
    ),
    (
        "ninco-clean-inaturalist",
        include_str!("../../../manifests/datasets/ninco-clean-inaturalist.toml"),
    ),
    (
        "ninco-clean-openimage-o",
        include_str!("../../../manifests/datasets/ninco-clean-openimage-o.toml"),
    ),
    (
        "ninco-clean-places",
        include_str!("../../../manifests/datasets/ninco-clean-places.toml"),
    ),
    (
        "ninco-clean-species",
        include_str!("../../../manifests/datasets/ninco-clean-species.toml"),
    ),
    (
        "ninco-clean-ssb-easy",
        include_str!("../../../manifests/datasets/ninco-clean-ssb-easy.toml"),
    ),
    (
        "ninco-clean-ssb-hard",
        include_str!("../../../manifests/datasets/ninco-clean-ssb-hard.toml"),
    ),
    (
        "ninco-clean-textures",
        include_str!("../../../manifests/datasets/ninco-clean-textures.toml"),
    ),
    (
        "openood-imagenet",
        include_str!("../../../manifests/datasets/openood-imagenet.toml"),
    ),
    (
        "openood-imagenet200",
        include_str!("../../../manifests/datasets/openood-imagenet200.toml"),
    ),
    (
        "openood-inaturalist",
        include_str!("../../../manifests/datasets/openood-inaturalist.toml"),
    ),
    (
        "openood-ninco",
        include_str!("../../../manifests/datasets/openood-ninco.toml"),
    ),
    (
        "openood-openimage-o",
        include_str!("../../../manifests/datasets/openood-openimage-o.toml"),
    ),
    (
        "openood-openimage-o-val",
        include_str!("../../../manifests/datasets/openood-openimage-o-val.toml"),
    ),
    (
        "openood-ssb-hard",
        include_str!("../../../manifests/datasets/openood-ssb-hard.toml"),
    ),
    (
        "openood-textures",
        include_str!("../../../manifests/datasets/openood-textures.toml"),
    ),
    (
        "places",
        include_str!("../../../manifests/datasets/places.toml"),
    ),
    (
        "stamps-id",
        include_str!("../../../manifests/datasets/stamps-id.toml"),
    ),
    (
        "stamps-objects",
        include_str!("../../../manifests/datasets/stamps-objects.toml"),
    ),
    (
        "stamps-symbols",
        include_str!("../../../manifests/datasets/stamps-symbols.toml"),
    ),
    ("sun", include_str!("../../../manifests/datasets/sun.toml")),
    (
        "textures",
        include_str!("../../../manifests/datasets/textures.toml"),
    ),
];

/// `manifests/words/*.txt`.
const WORDS: [(&str, &str); 3] = [
    (
        "demo-adjectives",
        include_str!("../../../manifests/words/demo-adjectives.txt"),
    ),
    (
        "demo-imagined",
        include_str!("../../../manifests/words/demo-imagined.txt"),
    ),
    (
        "demo-nouns",
        include_str!("../../../manifests/words/demo-nouns.txt"),
    ),
];

/// The TOML of the embedded recipe called `name`.
pub fn recipe(name: &str) -> Option<&'static str> {
    text_of(&RECIPES, name)
}

/// Name and TOML of every embedded recipe, in the order of their names.
pub fn recipes() -> impl Iterator<Item = (&'static str, &'static str)> {
    RECIPES.into_iter()
}

/// The TOML of the embedded dataset manifest called `name`.
pub fn manifest(name: &str) -> Option<&'static str> {
    text_of(&MANIFESTS, name)
}

/// Names of the embedded dataset manifests, in order.
pub fn manifest_names() -> impl Iterator<Item = &'static str> {
    MANIFESTS.into_iter().map(|(name, _)| name)
}

/// The embedded word list called `name`, without its ending `.txt`: one word per line.
pub fn words(name: &str) -> Option<&'static str> {
    text_of(&WORDS, name)
}

/// Names of the embedded word lists, in order.
pub fn words_names() -> impl Iterator<Item = &'static str> {
    WORDS.into_iter().map(|(name, _)| name)
}

fn text_of(files: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    let found = files.iter().find(|(other, _)| *other == name)?;
    Some(found.1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use clipood_core::{DatasetManifest, Recipe};

    use super::*;

    /// Name and content of every file in a folder of the repository; all must have this ending.
    fn folder(path: &str, ending: &str) -> BTreeMap<String, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(path);
        let entries = std::fs::read_dir(root).unwrap().map(Result::unwrap);
        let files = entries.map(|entry| {
            let file = entry.file_name().into_string().unwrap();
            let name = file
                .strip_suffix(ending)
                .unwrap_or_else(|| panic!("{path}/{file}: expected {ending}"));
            (
                name.to_string(),
                std::fs::read_to_string(entry.path()).unwrap(),
            )
        });
        files.collect()
    }

    fn same(files: &[(&str, &str)], path: &str, ending: &str) {
        let on_disk = folder(path, ending);
        let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            on_disk.keys().collect::<Vec<_>>(),
            "files of {path} that are embedded"
        );
        for (name, text) in files {
            assert!(
                on_disk[*name] == *text,
                "{path}/{name}{ending} is not the embedded file"
            );
        }
    }

    #[test]
    fn every_file_of_the_folders_is_embedded_under_its_own_name() {
        same(&RECIPES, "pipelines", ".toml");
        same(&MANIFESTS, "manifests/datasets", ".toml");
        same(&WORDS, "manifests/words", ".txt");
    }

    #[test]
    fn embedded_files_are_found_by_name_and_name_themselves_so() {
        for (name, text) in recipes() {
            assert_eq!(recipe(name), Some(text));
            assert_eq!(Recipe::parse(text, name).unwrap().name, name);
            let summary = text.lines().next().unwrap();
            assert!(
                summary.starts_with("# ") && summary.ends_with('.'),
                "{name}: no sentence in its first line: {summary}"
            );
        }
        for name in manifest_names() {
            let text = manifest(name).unwrap();
            assert_eq!(DatasetManifest::parse(text, name).unwrap().name, name);
        }
        for name in words_names() {
            assert!(words(name).unwrap().lines().count() > 10, "{name}");
        }
        assert_eq!(recipe("no such recipe"), None);
    }

    /// `clipood data check NAME` takes both.
    #[test]
    fn no_recipe_is_called_as_a_manifest() {
        for (name, _) in recipes() {
            assert_eq!(manifest(name), None, "{name}");
        }
    }

    #[test]
    fn what_an_embedded_recipe_names_is_embedded() {
        for (name, text) in recipes() {
            let recipe = Recipe::parse(text, name).unwrap();
            let data = &recipe.data;
            for dataset in [&data.id]
                .into_iter()
                .chain(&data.ood)
                .chain(&data.validation_ood)
            {
                assert!(manifest(dataset).is_some(), "{name}: dataset `{dataset}`");
            }
            for list in recipe
                .negative_labels
                .iter()
                .flat_map(|section| &section.lists)
            {
                assert!(
                    words(&list.words).is_some(),
                    "{name}: words `{}`",
                    list.words
                );
            }
        }
    }
}
