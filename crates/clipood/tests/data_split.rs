//! Splits as files: shown, compared, exported, imported, and used by runs.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{RECIPE, World, refused, stderr, stdout, succeeds};

/// CoOp's pickle of two shots for each class of [`World::new`], with paths of another machine.
const SHOTS: &[u8] =
    include_bytes!("../../clipood-data/tests/data/splits/shot_2-seed_1.protocol4.pkl");

fn split(world: &World, words: &[&str]) -> (Option<i32>, String) {
    let output = world
        .clipood(&[&["data", "split"], words].concat())
        .output()
        .unwrap();
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    (output.status.code(), stdout(&output) + &stderr(&output))
}

fn line<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines()
        .find(|line| line.starts_with(start))
        .unwrap_or_else(|| panic!("no {start} in {text}"))
}

#[test]
fn splits_are_exported_imported_and_compared() {
    let world = World::new();
    let (code, text) = split(
        &world,
        &["id", "--manifests", "manifests", "--out", "split.json"],
    );
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("train  16 images of 4 classes, 4 of each"),
        "{text}"
    );
    assert!(
        text.contains("test   24 images of 4 classes, 6 of each"),
        "{text}"
    );
    let hash = line(&text, "hash").to_string();
    // Every format says the same, wherever the images lie.
    let (_, text) = split(&world, &["split.json", "--out", "split.parquet"]);
    assert_eq!(line(&text, "hash"), hash);
    let (_, text) = split(&world, &["split.parquet", "--compare", "split.json"]);
    assert!(text.contains("same as split.json"), "{text}");
    let json = std::fs::read_to_string(world.path("split.json")).unwrap();
    let moved = json.replace("[\"t", "[\"/elsewhere/id/t");
    world.write("moved.json", moved);
    let (code, text) = split(
        &world,
        &["moved.json", "--compare", "split.json", "--root", "data/id"],
    );
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(line(&text, "hash"), hash);
    assert!(text.contains("paths begin with no common folder"), "{text}");
    // What differs is named.
    let without_hash: String = json.lines().filter(|l| !l.contains("hash")).collect();
    let changed = without_hash.replacen("train/fish/00.png", "train/fish/09.png", 1);
    world.write("changed.json", changed);
    let (code, text) = split(&world, &["split.json", "--compare", "changed.json"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("1 images only in the first: train/fish/00.png (train)"),
        "{text}"
    );
    assert!(
        text.contains("1 images only in the second: train/fish/09.png (train)"),
        "{text}"
    );
    let (code, text) = split(&world, &["changed.json", "--root", "data/id"]);
    assert_eq!(code, Some(2), "{text}");
    let (code, text) = split(&world, &["split.json", "--root", "data"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("is not in data"), "{text}");
    world.write(
        "edited.json",
        json.replacen("train/fish/00.png", "train/fish/09.png", 1),
    );
    let (code, text) = split(&world, &["edited.json"]);
    assert_eq!(code, Some(2));
    assert!(
        text.contains("edited.json") && text.contains("changed after it was written"),
        "{text}"
    );
    // A pickle is data.
    world.write("shots.pkl", SHOTS);
    let (code, text) = split(
        &world,
        &[
            "shots.pkl",
            "--root",
            "data/id",
            "--classes",
            "base",
            "--out",
            "base.json",
        ],
    );
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("train  4 images of 2 classes, 2 of each"),
        "{text}"
    );
    let base = std::fs::read_to_string(world.path("base.json")).unwrap();
    assert!(
        base.contains("[\"train/fish/03.png\",0,\"fish\"]"),
        "{base}"
    );
    let (code, text) = split(&world, &["shots.pkl", "--out", "shots.txt"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("expected .json or .parquet"), "{text}");
}

#[test]
fn a_split_file_is_a_dataset() {
    let world = World::new();
    let run = |name: &str| {
        let more = [
            "--methods",
            "zero-shot",
            "--detectors",
            "mcm",
            "--store",
            name,
        ];
        succeeds(&world.run(name, &more))
    };
    let figures = |text: &str| -> String {
        text.lines()
            .filter(|line| line.starts_with("zero-shot"))
            .collect()
    };
    let folders = figures(&run("folders"));
    split(
        &world,
        &["id", "--manifests", "manifests", "--out", "data/split.json"],
    );
    world.write(
        "manifests/id.toml",
        "name = \"id\"\nrole = \"id\"\nlayout = \"split-file\"\nroot = \".\"\nfiles = \"split.json\"\nimages = \"id\"\n",
    );
    assert_eq!(figures(&run("file")), folders);
    let config = std::fs::read_to_string(world.path("file/run.json")).unwrap();
    assert!(
        config.contains("\"splits\"") && config.contains("split.json"),
        "{config}"
    );
    // Other images under the same name are another run.
    let json = std::fs::read_to_string(world.path("data/split.json")).unwrap();
    let fewer: Vec<&str> = json
        .lines()
        .filter(|line| !line.contains("hash") && !line.contains("test/fish/05.png"))
        .collect();
    world.write("data/split.json", fewer.join("\n"));
    let more = ["--methods", "zero-shot", "--detectors", "mcm"];
    refused(&world, "file", &more, 2, &["splits", "hash"]);
}

#[test]
fn shots_are_those_that_a_file_names() {
    let world = World::new();
    world.write("data/shots/shot_2-seed_1.pkl", SHOTS);
    let recipe = RECIPE.replace(
        "id = \"id\"",
        "id = \"id\"\nfew_shot = \"shots/shot_{shots}-seed_{seed}.pkl\"",
    );
    world.write("recipe.toml", &recipe);
    let more = [
        "--methods",
        "linear-probe",
        "--detectors",
        "msp",
        "--store",
        "store",
    ];
    succeeds(&world.run("run", &more));
    let classes = std::fs::read(world.path("run/_run/classes.json")).unwrap();
    let classes: serde_json::Value = serde_json::from_slice(&classes).unwrap();
    let shots = &classes["splits"]["1"]["classes"];
    assert_eq!(
        shots["fish"],
        serde_json::json!(["id/train/fish/03.png", "id/train/fish/01.png"]),
        "{classes}"
    );
    assert_eq!(shots.as_object().unwrap().len(), 4);
    // The same images from another machine are the same run; others are not.
    let fingerprint = |run: &str| {
        let text = std::fs::read(world.path(&format!("{run}/run.json"))).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        json["config"]["fingerprint"].clone()
    };
    let elsewhere = [
        ("train/fish/03.png", 0, "fish"),
        ("train/fish/01.png", 0, "fish"),
        ("train/house/03.png", 1, "house"),
        ("train/house/01.png", 1, "house"),
        ("train/star/03.png", 2, "star"),
        ("train/star/01.png", 2, "star"),
        ("train/tree/03.png", 3, "tree"),
        ("train/tree/01.png", 3, "tree"),
    ];
    let json = serde_json::json!({ "train": elsewhere });
    world.write("data/shots/shot_2-seed_1.pkl", json.to_string());
    succeeds(&world.run("again", &more));
    assert_eq!(fingerprint("again"), fingerprint("run"));
    assert!(!fingerprint("run").is_null());
    let other = json
        .to_string()
        .replacen("train/fish/03.png", "train/fish/00.png", 1);
    world.write("data/shots/shot_2-seed_1.pkl", other);
    refused(&world, "run", &more, 2, &["splits", "hash"]);
    // Images that are not there, too few shots, and a file that is not there are told before anything is encoded.
    let gone = json
        .to_string()
        .replacen("train/fish/03.png", "train/fish/77.png", 1);
    world.write("data/shots/shot_2-seed_1.pkl", gone);
    refused(
        &world,
        "gone",
        &more,
        2,
        &["1 of its 8 training images", "train/fish/77.png"],
    );
    let fewer = [
        "--shots",
        "3",
        "--methods",
        "linear-probe",
        "--detectors",
        "msp",
    ];
    refused(&world, "three", &fewer, 2, &["shot_3-seed_1.pkl"]);
    let two = [
        "--shots",
        "1,2",
        "--methods",
        "linear-probe",
        "--detectors",
        "msp",
    ];
    refused(&world, "two", &two, 2, &["data.few_shot", "--shots"]);
    world.write(
        "data/shots/shot_2-seed_1.pkl",
        include_bytes!("../../clipood-data/tests/data/splits/evil.pkl"),
    );
    refused(&world, "evil", &more, 2, &["which is refused"]);
    assert!(!Path::new("EXECUTED").exists() && !world.path("EXECUTED").exists());
}
