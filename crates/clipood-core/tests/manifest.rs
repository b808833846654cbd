//! Dataset manifests: all keys, and common mistakes.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::path::Path;

use clipood_core::{DatasetManifest, Layout, Role};
use proptest::prelude::*;

const FULL: &str = r#"name = "pets"
role = "id"
layout = "image-folder"
root = "/data/pets"
train_fraction = 0.5
include = ["cats", "big_dogs"]
nested = true
expected_images = 100
generator = "demo"

[splits]
test = "images/all"
val = "val"

[class_names]
cats = "cat"
"#;

fn message(toml: &str) -> String {
    DatasetManifest::parse(toml, "m.toml")
        .unwrap_err()
        .to_string()
}

fn broken(from: &str, to: &str) -> String {
    assert!(FULL.contains(from), "{from}");
    message(&FULL.replacen(from, to, 1))
}

#[test]
fn every_key_is_read() {
    let manifest = DatasetManifest::parse(FULL, "m.toml").unwrap();
    assert_eq!(
        (manifest.role, manifest.layout),
        (Role::Id, Layout::ImageFolder)
    );
    assert_eq!(manifest.root, Path::new("/data/pets"));
    assert_eq!(manifest.splits["test"], Path::new("images/all"));
    assert_eq!(
        (manifest.train_fraction, manifest.nested),
        (Some(0.5), Some(true))
    );
    assert_eq!(manifest.include, ["cats", "big_dogs"]);
    assert_eq!(manifest.expected_images, Some(100));
    assert_eq!(manifest.generator.as_deref(), Some("demo"));
    assert_eq!(manifest.class_name("cats"), "cat");
    assert_eq!(manifest.class_name("big_dogs"), "big dogs");
    let json = serde_json::to_string(&manifest).unwrap();
    assert_eq!(
        serde_json::from_str::<DatasetManifest>(&json).unwrap(),
        manifest
    );
}

#[test]
fn mistakes_name_line_key_and_what_is_allowed() {
    let cases = [
        (
            "root =",
            "rot =",
            "m.toml:4: unknown key `rot`; did you mean `root`?",
        ),
        (
            "layout = \"image-folder\"\n",
            "",
            "m.toml: missing key `layout`",
        ),
        (
            "\"pets\"",
            "\"pe ts\"",
            "m.toml:1: key `name`: found `pe ts`",
        ),
        (
            "\"id\"",
            "\"oood\"",
            "m.toml:2: key `role`: found `oood`; did you mean `ood`? valid: `id`, `ood`",
        ),
        (
            "\"id\"",
            "\"ood\"",
            "m.toml:5: key `train_fraction`: found with role `ood`",
        ),
        (
            "\"image-folder\"",
            "\"imagefolder\"",
            "m.toml:3: key `layout`: found `imagefolder`; did you mean `image-folder`?",
        ),
        (
            "\"/data/pets\"",
            "\"\"",
            "m.toml:4: key `root`: found an empty path",
        ),
        (
            "= 0.5",
            "= 0",
            "m.toml:5: key `train_fraction`: found 0, allowed: above 0 and below 1",
        ),
        (
            "= 0.5",
            "= nan",
            "m.toml:5: key `train_fraction`: found NaN",
        ),
        (
            "\"big_dogs\"",
            "\"cats\"",
            "m.toml:6: key `include`: found `cats` twice",
        ),
        (
            "\"big_dogs\"",
            "\"a/b\"",
            "m.toml:6: key `include`: found `a/b`, allowed: the name of a folder",
        ),
        (
            "nested = true",
            "loose = true",
            "m.toml:7: key `loose`: found with role `id`, allowed: role `ood`",
        ),
        ("= 100", "= 0", "m.toml:8: key `expected_images`: found 0"),
        (
            "\"demo\"",
            "\"dmeo\"",
            "m.toml:9: key `generator`: found `dmeo`; did you mean `demo`? valid: `demo`",
        ),
        (
            "test =",
            "tets =",
            "m.toml:12: key `splits.tets`: no such split; did you mean `test`?",
        ),
        (
            "test = \"images/all\"\n",
            "",
            "m.toml:11: key `splits`: found no `test`",
        ),
        (
            "\"images/all\"",
            "\"../all\"",
            "m.toml:12: key `splits.test`: found `../all`",
        ),
        (
            "\"images/all\"",
            "\"/all\"",
            "m.toml:12: key `splits.test`: found `/all`",
        ),
        (
            "\"images/all\"",
            "\"val/\"",
            "m.toml:13: key `splits.val`: found the folder of split `test`",
        ),
        (
            "val =",
            "train =",
            "m.toml:5: key `train_fraction`: found beside `splits.train`",
        ),
        (
            "cats = \"cat\"",
            "cast = \"cat\"",
            "m.toml:16: key `class_names.cast`: not among the folders of `include`; did you mean `cats`?",
        ),
        (
            "cats = \"cat\"",
            "cats = \" \"",
            "m.toml:16: key `class_names.cats`: found an empty name",
        ),
    ];
    for (from, to, expected) in cases {
        let found = broken(from, to);
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn every_layout_has_its_keys() {
    let parsed = |layout: &str, rest: &str| {
        let head = format!(
            "name = \"a\"\nrole = \"id\"\nlayout = \"{layout}\"\nroot = \"s3://bucket/a\"\n"
        );
        DatasetManifest::parse(&(head + rest), "m.toml").map_err(|error| error.to_string())
    };
    let all = "files = \"{a,b}.csv\"\nimages = \"images\"\nclass_list = \"names.txt\"\n[columns]\nimage = \"p\"\nlabel = \"l\"\nsplit = \"s\"\n";
    let manifest = parsed("table", all).unwrap();
    assert_eq!(manifest.layout, Layout::Table);
    assert_eq!(manifest.files.as_deref(), Some(Path::new("{a,b}.csv")));
    assert_eq!(manifest.columns.label.as_deref(), Some("l"));
    assert_eq!(
        manifest.root_in(Path::new("/data")),
        Path::new("s3://bucket/a")
    );
    let json = serde_json::to_string(&manifest).unwrap();
    assert_eq!(
        serde_json::from_str::<DatasetManifest>(&json).unwrap(),
        manifest
    );
    for (layout, rest) in [
        ("image-folder", "class_list = \"classnames.txt\"\n"),
        ("imglist", "[splits]\ntest = \"test.txt\"\n"),
        ("parquet", "columns.label = \"fine_label\"\n"),
        ("cifar-binary", ""),
        ("webdataset", "files = \"{0000..1023}.tar\"\n"),
    ] {
        let manifest = parsed(layout, rest).unwrap();
        assert_eq!(manifest.layout.name(), layout);
    }
    for (layout, rest, expected) in [
        (
            "imglist",
            "",
            "key `splits`: found neither `splits` nor `files`, which name the files of layout `imglist`",
        ),
        (
            "table",
            "files = \"a\"\n[splits]\ntest = \"b\"\n",
            "m.toml:5: key `files`: found beside `splits`",
        ),
        (
            "parquet",
            "files = \"../a\"\n",
            "m.toml:5: key `files`: found `../a`, allowed: a relative path below `root`",
        ),
        (
            "parquet",
            "images = \"a\"\n",
            "m.toml:5: key `images`: found with layout `parquet`, allowed: with `imglist`, `table`",
        ),
        (
            "webdataset",
            "nested = true\n",
            "m.toml:5: key `nested`: found with layout `webdataset`, allowed: with `image-folder`",
        ),
        (
            "image-folder",
            "files = \"a\"\n",
            "m.toml:5: key `files`: found with layout `image-folder`",
        ),
        (
            "flat-folder",
            "",
            "m.toml:3: key `layout`: found with role `id`",
        ),
        ("parquet", "columns.lable = \"x\"\n", "lable"),
        (
            "parquet",
            "columns.label = \" \"\n",
            "m.toml:5: key `columns.label`: found an empty name",
        ),
    ] {
        let error = parsed(layout, rest).unwrap_err();
        assert!(error.contains(expected), "{layout} {rest}: {error}");
    }
    for (root, expected) in [
        (
            "ftp://host/a",
            "key `root`: found a URL of scheme `ftp`; did you mean `http`?",
        ),
        (
            "s3:///a",
            "key `root`: found `s3:///a`, allowed: a URL with a bucket",
        ),
    ] {
        let text =
            format!("name = \"a\"\nrole = \"id\"\nlayout = \"parquet\"\nroot = \"{root}\"\n");
        let error = message(&text);
        assert!(error.contains(expected), "{root}: {error}");
    }
}

proptest! {
    #[test]
    fn mutated_text_never_panics_and_is_placed(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..6, "[ -~\\n\\[\\]=\"#.é\\x00]{0,4}"), 1..6),
    ) {
        let mut characters: Vec<char> = FULL.chars().collect();
        for (at, cut, insert) in edits {
            let start = at.index(characters.len() + 1);
            let end = (start + cut).min(characters.len());
            characters.splice(start..end, insert.chars());
        }
        let text: String = characters.into_iter().collect();
        if let Err(error) = DatasetManifest::parse(&text, "m.toml") {
            prop_assert!(error.to_string().starts_with("m.toml"), "{}", error);
        }
    }
}

const HEAD: &str = "name = \"set\"\nrole = \"id\"\n";

#[test]
fn a_split_file_is_named_by_files() {
    let with = |keys: &str| {
        let toml = format!("{HEAD}layout = \"split-file\"\nroot = \"set\"\n{keys}");
        DatasetManifest::parse(&toml, "m.toml").map_err(|e| e.to_string())
    };
    let manifest = with("files = \"split.json\"\nimages = \"jpg\"\n").unwrap();
    assert_eq!(manifest.layout, Layout::SplitFile);
    let error = with("").unwrap_err();
    assert!(error.contains("found no `files`"), "{error}");
    let error = with("files = \"split.json\"\n[splits]\ntest = \"x\"\n").unwrap_err();
    assert!(
        error.contains("`splits`") || error.contains("`files`"),
        "{error}"
    );
}

#[test]
fn what_a_dataset_is_about_enters_no_fingerprint() {
    let plain = format!("{HEAD}layout = \"image-folder\"\nroot = \"set\"\n");
    let about = "[about]\nsource = \"a page\"\nlicence = \"MIT\"\ntrain = 3\ntest = 2\nclasses = 2\nnote = \"x\"\n";
    let parse = |text: &str| DatasetManifest::parse(text, "m.toml").unwrap();
    let (without, with) = (parse(&plain), parse(&(plain.clone() + about)));
    assert_eq!(with.about.images("train"), Some(3));
    assert_eq!(with.about.images("val"), None);
    let json = |manifest: &DatasetManifest| serde_json::to_string(manifest).unwrap();
    assert_eq!(json(&with), json(&without));
    let error = message(&(plain + "[about]\nlicense = \"MIT\"\n"));
    assert!(error.contains("did you mean `licence`?"), "{error}");
}

#[test]
fn a_dataset_of_the_hub_has_parquet_files() {
    let with = |layout: &str, keys: &str| {
        let toml = format!("{HEAD}layout = \"{layout}\"\nroot = \"hub:a/b:c\"\n{keys}");
        DatasetManifest::parse(&toml, "m.toml").map_err(|e| e.to_string())
    };
    let manifest = with("parquet", "[splits]\ntest = \"validation\"\n").unwrap();
    assert_eq!(manifest.on_hub(), Some("a/b:c"));
    assert_eq!(manifest.place(), manifest.root);
    for (layout, keys) in [("image-folder", ""), ("parquet", "files = \"x.parquet\"\n")] {
        let error = with(layout, keys).unwrap_err();
        assert!(error.contains("found a dataset of the hub"), "{error}");
    }
}
