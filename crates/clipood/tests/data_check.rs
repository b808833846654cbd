//! `clipood data check` on a small stand-in for every built-in dataset manifest.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../clipood-hub/tests/server/mod.rs"]
mod server;

use std::process::Output;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field};
use clipood_core::{DatasetManifest, Layout, Role};
use common::{World, stderr, stdout};
use parquet::arrow::ArrowWriter;
use server::Hub;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Images of each class of a split.
const EACH: usize = 2;

fn png() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 4, 3);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[90; 36]).unwrap();
    writer.finish().unwrap();
    bytes
}

/// A Parquet file with `EACH` images of two classes.
fn parquet(image: &str, label: &str) -> Vec<u8> {
    let images = 2 * EACH;
    let png = png();
    let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(vec![png; images]));
    let paths: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>; images]));
    let image_column: ArrayRef = Arc::new(StructArray::from(vec![
        (Arc::new(Field::new("bytes", DataType::Binary, true)), bytes),
        (Arc::new(Field::new("path", DataType::Utf8, true)), paths),
    ]));
    let labels: Vec<i64> = (0..images).map(|row| (row % 2) as i64).collect();
    let labels: ArrayRef = Arc::new(Int64Array::from(labels));
    let batch = RecordBatch::try_from_iter([(image, image_column), (label, labels)]).unwrap();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    file
}

/// The hub with every dataset that a manifest names.
fn hub() -> Hub {
    let mut files = Vec::new();
    for (config, splits, image, label) in [
        // CIFAR and Caltech-101, of which one configuration is asked for by no name.
        ("plain_text", &["train", "test"][..], "img", "fine_label"),
        ("320px", &["train", "validation"], "image", "label"),
        ("default", &["train", "test"], "img", "fine_label"),
    ] {
        for split in splits {
            let name = format!("{config}/{split}-00000-of-00001.parquet");
            files.push((name, parquet(image, label)));
        }
    }
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(n, c)| (n.as_str(), c.clone())).collect();
    Hub::new(COMMIT, &files)
}

/// Writes two classes of each split where the manifest looks for them, and returns the number of images of each split.
fn stand_in(world: &World, manifest: &DatasetManifest) -> Vec<(String, usize)> {
    let root = format!("data/{}", manifest.root.display());
    let images = match &manifest.images {
        Some(images) => format!("{root}/{}", images.display()),
        None => root.clone(),
    };
    let draw = |path: String| world.write(&path, png());
    let mut splits: Vec<(String, String)> = (manifest.splits.iter())
        .map(|(name, place)| (name.clone(), place.display().to_string()))
        .collect();
    if splits.is_empty() {
        splits.push(("test".to_string(), ".".to_string()));
    }
    match manifest.layout {
        Layout::ImageFolder => {
            let named = manifest.class_names.keys().take(2).cloned();
            let mut classes: Vec<String> = match manifest.include.is_empty() {
                true => named.collect(),
                false => manifest.include.clone(),
            };
            if manifest.class_list.is_some() {
                world.write(
                    &format!("{root}/classnames.txt"),
                    "n01440764 tench\nn01443537 goldfish\n",
                );
                classes = vec!["n01440764".to_string(), "n01443537".to_string()];
            }
            if classes.is_empty() {
                classes = vec!["a".to_string(), "b".to_string()];
            }
            let counts = splits.into_iter().map(|(name, folder)| {
                for class in &classes {
                    (0..EACH).for_each(|n| draw(format!("{root}/{folder}/{class}/{n}.png")));
                }
                (name, EACH * classes.len())
            });
            counts.collect()
        }
        Layout::Imglist => {
            let counts = splits.into_iter().map(|(name, list)| {
                let mut lines = String::new();
                for n in 0..2 * EACH {
                    let path = format!("stand-in/{}/{name}{n}.png", manifest.name);
                    draw(format!("{images}/{path}"));
                    let label = if manifest.role == Role::Id {
                        n as i64 % 2
                    } else {
                        -1
                    };
                    lines += &format!("{path} {label} \n");
                }
                world.write(&format!("{root}/{list}"), lines);
                (name, 2 * EACH)
            });
            counts.collect()
        }
        Layout::SplitFile => {
            let file = manifest.files.as_ref().unwrap().display().to_string();
            let mut counts = Vec::new();
            let mut json = serde_json::Map::new();
            world.write(&format!("{root}/variants.txt"), "class 0\nclass 1\n");
            for split in ["train", "val", "test"] {
                let mut rows = Vec::new();
                let mut lines = String::new();
                for n in 0..2 * EACH {
                    let name = format!("{split}{n}");
                    draw(format!("{images}/{name}.jpg"));
                    rows.push(serde_json::json!([
                        format!("{name}.jpg"),
                        n % 2,
                        format!("class {}", n % 2)
                    ]));
                    lines += &format!("{name} class {}\n", n % 2);
                }
                json.insert(split.to_string(), rows.into());
                if file.ends_with(".txt") {
                    world.write(&format!("{root}/images_variant_{split}.txt"), lines);
                }
                counts.push((split.to_string(), 2 * EACH));
            }
            if file.ends_with(".json") {
                world.write(
                    &format!("{root}/{file}"),
                    serde_json::to_vec(&json).unwrap(),
                );
            }
            counts
        }
        // On the hub.
        _ => splits
            .into_iter()
            .map(|(name, _)| (name, 2 * EACH))
            .collect(),
    }
}

fn check(world: &World, hub: &Hub, words: &[&str]) -> Output {
    let mut command = world.clipood(&["data", "check"]);
    command
        .args(words)
        .env("HF_HUB_CACHE", world.path("cache"))
        .env("HF_ENDPOINT", hub.url())
        .env_remove("HF_HUB_OFFLINE")
        .env_remove("HF_TOKEN");
    command.output().unwrap()
}

#[test]
fn every_manifest_is_checked_against_a_small_stand_in() {
    let hub = hub();
    let world = World::empty();
    let mut checked = 0;
    for name in clipood_pipeline::builtin::manifest_names() {
        let text = clipood_pipeline::builtin::manifest(name).unwrap();
        let manifest = DatasetManifest::parse(text, name).unwrap();
        // Drawn by itself, or installed in a folder of the system.
        if manifest.generator.is_some() || manifest.root.is_absolute() {
            continue;
        }
        let missing = check(&world, &hub, &[name]);
        let is_on_hub = manifest.on_hub().is_some();
        if !is_on_hub {
            let text = stdout(&missing);
            assert_eq!(
                missing.status.code(),
                Some(1),
                "{name}: {text}{}",
                stderr(&missing)
            );
            assert!(
                text.contains("missing: ") && text.contains("get it: "),
                "{name}: {text}"
            );
        }
        let counts = stand_in(&world, &manifest);
        let found = check(&world, &hub, &[name]);
        let text = stdout(&found);
        assert!(
            !stderr(&found).contains("panicked"),
            "{name}: {}",
            stderr(&found)
        );
        for (split, count) in counts {
            let expected = match manifest.about.images(&split) {
                Some(expected) => format!("{split} images: {count}, EXPECTED {expected}\n"),
                None => format!("{split} images: {count}\n"),
            };
            assert!(
                text.contains(&expected),
                "{name}: no `{expected}` in {text}{}",
                stderr(&found)
            );
        }
        let is_whole = manifest.about.train.is_none()
            && manifest.about.test.is_none()
            && manifest.expected_images.is_none()
            && manifest.about.classes.is_none();
        let code = if is_whole { 0 } else { 1 };
        assert_eq!(
            found.status.code(),
            Some(code),
            "{name}: {text}{}",
            stderr(&found)
        );
        // Stand-ins of other datasets in the same folders would be counted too.
        let root = world.path("data");
        if root.exists() {
            std::fs::remove_dir_all(root).unwrap();
        }
        checked += 1;
    }
    assert!(checked > 35, "{checked}");
}

#[test]
fn what_is_missing_is_listed_file_by_file() {
    let hub = hub();
    let world = World::empty();
    world.write(
        "manifests/listed.toml",
        "name = \"listed\"\nrole = \"ood\"\nlayout = \"imglist\"\nroot = \"set\"\n[splits]\ntest = \"list.txt\"\n[about]\ntest = 14\n",
    );
    let lines: String = (0..14).map(|n| format!("a/{n:02}.png -1\n")).collect();
    world.write("data/set/list.txt", lines);
    for n in 0..2 {
        world.write(&format!("data/set/a/{n:02}.png"), png());
    }
    world.write("data/set/a/02.png", "");
    let words = ["listed", "--manifests", "manifests"];
    let found = check(&world, &hub, &words);
    let text = stdout(&found);
    assert_eq!(found.status.code(), Some(1), "{text}");
    for line in [
        "test images: 14, as expected",
        "listed files that do not exist: 11",
        "a/03.png",
        "... (--all lists more)",
        "empty files: 1",
        "1 of 1 are not as expected",
    ] {
        assert!(text.contains(line), "no `{line}` in {text}");
    }
    assert!(!text.contains("a/13.png"), "{text}");
    let all = check(&world, &hub, &[&words[..], &["--all"]].concat());
    assert!(stdout(&all).contains("a/13.png"), "{}", stdout(&all));
    for n in 2..14 {
        world.write(&format!("data/set/a/{n:02}.png"), png());
    }
    let whole = check(&world, &hub, &words);
    assert_eq!(whole.status.code(), Some(0), "{}", stdout(&whole));
    assert!(stdout(&whole).contains("all 1 are as expected"));
    // A file that is no image is found by decoding a few.
    world.write("data/set/a/05.png", "<html>404</html>");
    let broken = check(&world, &hub, &words);
    assert_eq!(broken.status.code(), Some(1));
    assert!(
        stdout(&broken).contains("cannot be decoded"),
        "{}",
        stdout(&broken)
    );
}

#[test]
fn a_recipe_is_checked_dataset_by_dataset() {
    let hub = hub();
    let world = World::new();
    let found = check(&world, &hub, &["recipe.toml", "--manifests", "manifests"]);
    let text = stdout(&found);
    assert_eq!(found.status.code(), Some(0), "{text}{}", stderr(&found));
    for line in [
        "id (image-folder)",
        "train images: 16",
        "test images: 24",
        "classes: 4",
        "scenes (",
        "textures (",
        "all 3 are as expected",
    ] {
        assert!(text.contains(line), "no `{line}` in {text}");
    }
    // The files of its shots belong to it.
    let recipe = common::RECIPE.replace(
        "id = \"id\"",
        "id = \"id\"\nfew_shot = \"shots_{seed}.json\"",
    );
    world.write("shots.toml", recipe);
    let words = ["shots.toml", "--manifests", "manifests"];
    let missing = check(&world, &hub, &words);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        stdout(&missing).contains("shots shots_1.json\n  missing: "),
        "{}",
        stdout(&missing)
    );
    world.write(
        "data/shots_1.json",
        r#"{"train": [["fish/00.png", 0, "fish"]]}"#,
    );
    let there = check(&world, &hub, &words);
    assert_eq!(there.status.code(), Some(0), "{}", stdout(&there));
    assert!(
        stdout(&there).contains("1 images to train on, hash "),
        "{}",
        stdout(&there)
    );
    let unknown = check(&world, &hub, &["imagenet-moss"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        stderr(&unknown).contains("imagenet-mos"),
        "{}",
        stderr(&unknown)
    );
    let demo = check(&world, &hub, &["demo"]);
    assert_eq!(
        demo.status.code(),
        Some(0),
        "{}{}",
        stdout(&demo),
        stderr(&demo)
    );
}
