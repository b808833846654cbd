//! `clipood data inspect`: the layout of what lies in a folder or on the hub, and a manifest that can be planned; zero-shot on
//! datasets of the hub.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../clipood-hub/tests/server/mod.rs"]
mod server;

use std::process::{Command, Output};
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field, Schema};
use common::{CLASSES, TEST, World, stderr, stdout, succeeds};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use server::{CONVERTED, Hub};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The images of a split of [`World::new`] as `datasets` writes them.
fn parquet(world: &World, split: &str) -> Vec<u8> {
    let (mut bytes, mut paths, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for (label, class) in (0..).zip(CLASSES) {
        let folder = world.path(&format!("data/id/{split}/{class}"));
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|f| f.unwrap().path())
            .collect();
        files.sort();
        for file in files {
            bytes.push(std::fs::read(&file).unwrap());
            paths.push(file.file_name().unwrap().to_str().unwrap().to_string());
            labels.push(label);
        }
    }
    let field = |name: &str, kind| Arc::new(Field::new(name, kind, true));
    let image: ArrayRef = Arc::new(StructArray::from(vec![
        (
            field("bytes", DataType::Binary),
            Arc::new(BinaryArray::from_iter_values(bytes)) as ArrayRef,
        ),
        (
            field("path", DataType::Utf8),
            Arc::new(StringArray::from(paths)) as ArrayRef,
        ),
    ]));
    let labels: ArrayRef = Arc::new(Int64Array::from(labels));
    let schema = Arc::new(Schema::new(vec![
        Field::new("image", image.data_type().clone(), true),
        Field::new("label", DataType::Int64, true),
    ]));
    let features = serde_json::json!({ "info": { "features": { "label": { "names": CLASSES, "_type": "ClassLabel" } } } });
    let properties = WriterProperties::builder()
        .set_key_value_metadata(Some(vec![KeyValue::new(
            "huggingface".to_string(),
            features.to_string(),
        )]))
        .build();
    let batch = RecordBatch::try_new(schema.clone(), vec![image, labels]).unwrap();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    file
}

fn on_hub(world: &World, hub: &Hub, command: &mut Command) -> Output {
    command
        .env("HF_HUB_CACHE", world.path("cache"))
        .env("HF_ENDPOINT", hub.url())
        .env_remove("HF_HUB_OFFLINE")
        .env_remove("HF_TOKEN")
        .output()
        .unwrap()
}

/// A dataset with two configurations; `validation` is asked for as `val` too.
fn hub(world: &World) -> Hub {
    let (train, test) = (parquet(world, "train"), parquet(world, "test"));
    Hub::new(
        COMMIT,
        &[
            ("README.md", b"drawings".to_vec()),
            ("64px/train-00000-of-00001.parquet", train.clone()),
            ("64px/validation-00000-of-00001.parquet", test.clone()),
            ("full/train-00000-of-00001.parquet", train),
            ("full/validation-00000-of-00001.parquet", test),
        ],
    )
}

/// Plans a recipe with the manifest that `inspect` prints for `place`.
fn plans(world: &World, place: &str, hub: Option<&Hub>) -> String {
    let run = |command: &mut Command| match hub {
        Some(hub) => on_hub(world, hub, command),
        None => command.output().unwrap(),
    };
    let words = ["data", "inspect", place, "--name", "id"];
    let shown = succeeds(&run(&mut world.clipood(&words)));
    let manifest = succeeds(&run(
        &mut world.clipood(&[&words[..], &["--manifest"]].concat())
    ));
    assert!(shown.contains(&manifest), "{shown}");
    world.write("manifests/id.toml", &manifest);
    let name = place.replace(['/', ':', '.'], "-");
    let mut plan = world.clipood(&[
        "plan",
        "recipe.toml",
        "--manifests",
        "manifests",
        "--run",
        &name,
    ]);
    let planned = run(plan.args(["--methods", "zero-shot"]));
    assert!(
        planned.status.success(),
        "{place}: {manifest}{}",
        stderr(&planned)
    );
    shown
}

#[test]
fn the_manifest_that_is_printed_can_be_planned() {
    let world = World::new();
    let shown = plans(&world, "data/id", None);
    for line in [
        "layout: image-folder",
        "images: 40",
        "  train: 16",
        "  test: 24",
        "formats of 40 images: 40 PNG",
        "pixels: ",
        "classes: 4, with 10 to 10 images",
        "0 fish",
    ] {
        assert!(shown.contains(line), "no `{line}` in {shown}");
    }
    // One folder for each class.
    let shown = plans(&world, "data/id/test", None);
    assert!(
        shown.contains("layout: image-folder") && shown.contains("images: 24"),
        "{shown}"
    );
    // Parquet files in folders of splits, and a file alone.
    world.write(
        "data/hf/data/train-00000-of-00001.parquet",
        parquet(&world, "train"),
    );
    world.write(
        "data/hf/data/test-00000-of-00001.parquet",
        parquet(&world, "test"),
    );
    let shown = plans(&world, "data/hf", None);
    assert!(
        shown.contains("layout: parquet") && shown.contains("  train: 16"),
        "{shown}"
    );
    assert!(shown.contains("3 tree"), "{shown}");
    let shown = plans(&world, "data/hf/data/test-00000-of-00001.parquet", None);
    assert!(
        shown.contains("layout: parquet") && shown.contains("images: 24"),
        "{shown}"
    );
    // CoOp's split file beside the folder of the images.
    let words = [
        "data",
        "split",
        "id",
        "--manifests",
        "manifests2",
        "--out",
        "data/coop/split_zhou_Set.json",
    ];
    world.write(
        "manifests2/id.toml",
        "name = \"id\"\nrole = \"id\"\nlayout = \"image-folder\"\nroot = \"id\"\n[splits]\ntrain = \"train\"\ntest = \"test\"\n",
    );
    world.write("data/coop/readme", "");
    succeeds(&world.clipood(&words).output().unwrap());
    std::fs::rename(world.path("data/id"), world.path("data/coop/images")).unwrap();
    let shown = plans(&world, "data/coop", None);
    assert!(
        shown.contains("layout: split-file") && shown.contains("images = \"images\""),
        "{shown}"
    );
}

#[test]
fn places_without_a_dataset_are_answered_with_the_reason() {
    let world = World::empty();
    world.write("empty/readme.txt", "hello world");
    world.write("odd/x.parquet", "PAR1 no parquet PAR1");
    for (place, words) in [
        ("gone", &["no such file or folder"][..]),
        ("empty", &["nothing there looks like a dataset"]),
        ("odd", &["no layout fits", "x.parquet"]),
    ] {
        let output = world.clipood(&["data", "inspect", place]).output().unwrap();
        let log = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{place}: {log}");
        for word in words {
            assert!(log.contains(word), "{place}: no `{word}` in {log}");
        }
    }
    // A folder of photographs without classes is out of distribution.
    let world = World::new();
    let output = world
        .clipood(&["data", "inspect", "data/scenes/any"])
        .output()
        .unwrap();
    let shown = succeeds(&output);
    assert!(
        shown.contains("role = \"ood\"") && shown.contains("images: 8"),
        "{shown}"
    );
}

#[test]
fn zero_shot_classifies_a_dataset_of_the_hub() {
    let world = World::new();
    let hub = hub(&world);
    let classify = |dataset: &str| {
        let mut command = world.clipood(&["zero-shot", "--dataset", dataset, "--model", "demo"]);
        on_hub(&world, &hub, &mut command)
    };
    let output = classify("hub:org/drawings:64px:validation");
    let shown = succeeds(&output);
    let images = CLASSES.len() * TEST;
    assert!(
        shown.contains(&format!("accuracy on {images} images of a known class")),
        "{shown}"
    );
    for line in [
        "images of each class:",
        "images predicted as each class:",
        "fish",
        "█",
    ] {
        assert!(shown.contains(line), "no `{line}` in {shown}");
    }
    // As the same images in folders.
    let folders = world
        .clipood(&["zero-shot", "--images", "data/id/test"])
        .output()
        .unwrap();
    let accuracy = |text: &str| {
        text.lines()
            .find(|l| l.starts_with("accuracy"))
            .unwrap()
            .to_string()
    };
    assert_eq!(accuracy(&shown), accuracy(&succeeds(&folders)));
    // Only the split that is classified is fetched, and nothing twice.
    assert_eq!(hub.other_requests().len(), 1);
    let again = classify("hub:org/drawings:64px");
    assert_eq!(accuracy(&succeeds(&again)), accuracy(&shown));
    assert_eq!(hub.other_requests().len(), 1);
    for (dataset, words) in [
        (
            "hub:org/drawings",
            &["several configurations", "64px, full"][..],
        ),
        (
            "hub:org/drawings:32px",
            &["no configuration `32px`", "64px"],
        ),
        (
            "hub:org/drawings:64px:test",
            &["no split `test`", "train, validation"],
        ),
        ("hub:drawings", &["organisation/name"]),
        ("hub:org/drawings:64px:train[:10%]", &["without slices"]),
    ] {
        let output = classify(dataset);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{dataset}: {}",
            stderr(&output)
        );
        for word in words {
            assert!(
                stderr(&output).contains(word),
                "{dataset}: no `{word}` in {}",
                stderr(&output)
            );
        }
    }
    // Without a network: what is in the cache is used, what is not is named with its place.
    let offline = |dataset: &str| {
        let mut command = world.clipood(&["zero-shot", "--dataset", dataset, "--model", "demo"]);
        command
            .env("HF_HUB_CACHE", world.path("cache"))
            .env("HF_HUB_OFFLINE", "1");
        command.output().unwrap()
    };
    assert_eq!(
        accuracy(&succeeds(&offline("hub:org/drawings:64px:validation"))),
        accuracy(&shown)
    );
    for dataset in ["hub:org/other", "hub:org/drawings:64px:train"] {
        let output = offline(dataset);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        let log = stderr(&output);
        assert!(
            log.contains("HF_HUB_OFFLINE") && log.contains("datasets--org--"),
            "{log}"
        );
    }
}

/// `ClassLabel` may name two classes alike, as ImageNet's missiles.
#[test]
fn classes_of_one_name_stay_apart() {
    let world = World::new();
    world.write("data/table/test.parquet", parquet(&world, "test"));
    world.write(
        "manifests/alike.toml",
        "name = \"alike\"\nrole = \"id\"\nlayout = \"parquet\"\nroot = \"table\"\nclass_list = \"names.txt\"\n",
    );
    world.write("data/table/names.txt", "fish\nstar\nstar\ntree\n");
    let words = [
        "zero-shot",
        "--dataset",
        "alike",
        "--manifests",
        "manifests",
    ];
    let output = world.clipood(&words).output().unwrap();
    let shown = succeeds(&output);
    let images = CLASSES.len() * TEST;
    assert!(
        shown.contains(&format!("accuracy on {images} images of a known class")),
        "{shown}"
    );
    assert!(
        shown.contains("star (class 1)") && shown.contains("star (class 2)"),
        "{shown}"
    );
}

#[test]
fn a_manifest_names_a_dataset_of_the_hub() {
    let world = World::new();
    let test = parquet(&world, "test");
    // The repository has images only; the hub has converted them.
    let converted = Hub::new(
        COMMIT,
        &[
            ("images.zip", b"zip".to_vec()),
            (
                &format!("{CONVERTED}default/train/0000.parquet"),
                parquet(&world, "train"),
            ),
            (&format!("{CONVERTED}default/test/0000.parquet"), test),
        ],
    );
    let shown = plans(&world, "hub:org/drawings", Some(&converted));
    assert!(
        shown.contains("images: 40") && shown.contains("root = \"hub:org/drawings\""),
        "{shown}"
    );
    let run = |name: &str| {
        let more = [
            "--methods",
            "zero-shot",
            "--detectors",
            "mcm",
            "--store",
            "store",
        ];
        on_hub(&world, &converted, &mut world.command(name, &more))
    };
    let first = run("run");
    assert!(
        succeeds(&first).contains("test images: 40 planned = 40 scored"),
        "{}",
        stdout(&first)
    );
    let config = std::fs::read_to_string(world.path("run/run.json")).unwrap();
    assert!(
        config.contains(&format!("hub:org/drawings@{COMMIT}:default")),
        "{config}"
    );
    succeeds(&run("run"));
    // A worker opens it from run.json, without a network.
    let mut report = world.clipood(&["worker", "run", "--store", "store", "--devices", "cpu"]);
    report
        .env("HF_HUB_CACHE", world.path("cache"))
        .env("HF_HUB_OFFLINE", "1");
    let output = report.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    // A role of its own for each split of the hub.
    world.write(
        "manifests/id.toml",
        "name = \"id\"\nrole = \"id\"\nlayout = \"parquet\"\nroot = \"hub:org/drawings\"\n[splits]\ntest = \"train\"\n",
    );
    let other = run("other");
    assert!(
        succeeds(&other).contains("test images: 32 planned"),
        "{}",
        stdout(&other)
    );
}
