//! Names of classes are texts: what identifies a class is its folder, or its line in a list.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may panic as tests may"
)]

mod common;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Int32Type};
use common::{CLASSES, TEST, World, stderr, stdout};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

/// `clipood zero-shot --model demo <words> --out out`, and what it wrote.
fn zero_shot(world: &World, words: &[&str]) -> (Output, RecordBatch) {
    let all = [&["zero-shot", "--model", "demo", "--out", "out"], words].concat();
    let output = world.clipood(&all).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    let file = File::open(world.path("out/predictions.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    (output, concat_batches(&schema, &batches).unwrap())
}

fn fails(world: &World, words: &[&str], code: i32, parts: &[&str]) {
    let output = world.clipood(words).output().unwrap();
    let errors = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {errors}");
    for part in parts {
        assert!(errors.contains(part), "{words:?}: no `{part}` in: {errors}");
    }
}

fn numbers(rows: &RecordBatch, column: &str) -> Vec<Option<i32>> {
    let column = rows.column_by_name(column).unwrap();
    column.as_primitive::<Int32Type>().iter().collect()
}

fn words(rows: &RecordBatch, column: &str) -> Vec<String> {
    let plain = cast(rows.column_by_name(column).unwrap(), &DataType::Utf8).unwrap();
    let texts = plain.as_string::<i32>().iter();
    texts
        .map(|word| word.unwrap_or_default().to_owned())
        .collect()
}

/// The folder of the class of each image.
fn folders(rows: &RecordBatch) -> Vec<String> {
    let folder = |path: &String| {
        let parent = Path::new(path).parent().unwrap();
        parent.file_name().unwrap().to_str().unwrap().to_owned()
    };
    words(rows, "image").iter().map(folder).collect()
}

/// Asserts that the label of each image is the place of its folder among `order`.
fn assert_labels(rows: &RecordBatch, order: &[&str]) {
    for (folder, label) in folders(rows).iter().zip(numbers(rows, "label")) {
        let expected = order.iter().position(|other| other == folder);
        assert_eq!(label, expected.map(|class| class as i32), "{folder}");
    }
}

fn rename(world: &World, from: &str, to: &str) {
    for split in ["train", "test"] {
        let folder = |name: &str| world.path(&format!("data/id/{split}/{name}"));
        std::fs::rename(folder(from), folder(to)).unwrap();
    }
}

#[test]
fn two_folders_of_one_text_are_planned_trained_and_scored() {
    let world = World::new();
    let manifest = "name = \"id\"\nrole = \"id\"\nlayout = \"image-folder\"\nroot = \"id\"\n\
        [splits]\ntrain = \"train\"\ntest = \"test\"\n\
        [class_names]\nfish = \"missile\"\nstar = \"missile\"\nfihs = \"nothing\"\n";
    world.write("manifests/id.toml", manifest);
    let recipe = common::RECIPE
        .replace("\"locoop\"]", "\"locoop\", \"linear-probe\"]")
        .replace("\"gl_mcm\"]", "\"gl_mcm\", \"energy\"]");
    assert!(recipe.contains("linear-probe") && recipe.contains("energy"));
    // As Windows saves it.
    let recipe = format!("\u{feff}{}", recipe.replace('\n', "\r\n"));
    world.write("recipe.toml", recipe);
    let run = world.run("run", &["--store", "store"]);
    let log = stderr(&run);
    assert!(run.status.success(), "{log}");
    for part in [
        "id: 1 class name is shared by several classes: `missile` (classes 0, 2)",
        "id: 1 of 3 names in `class_names` are of no folder: the first is `fihs`",
    ] {
        assert!(log.contains(part), "no `{part}` in: {log}");
    }
    let classes = std::fs::read(world.path("run/_run/classes.json")).unwrap();
    let classes: Value = serde_json::from_slice(&classes).unwrap();
    assert_eq!(classes["classes"][0], classes["classes"][2]);
    let drawn = classes["splits"]["1"]["classes"].as_array().unwrap();
    assert_eq!(drawn.len(), CLASSES.len());
    assert!(
        drawn
            .iter()
            .all(|class| class["keys"].as_array().unwrap().len() == 2)
    );
    // A linear probe learns from labels and sees no text, so with distinct names it predicts the same.
    let probe = |run: &Output| -> String {
        let printed = stdout(run);
        let accuracy = printed.split("ID top-1").nth(1).unwrap();
        let mut lines = accuracy.lines();
        let line = lines.find(|line| line.starts_with("linear-probe"));
        // Columns are as wide as the rows of other methods need.
        line.unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let distinct = manifest.replace("star = \"missile\"", "star = \"rocket\"");
    world.write("manifests/id.toml", distinct);
    let other = world.run("other", &["--store", "store"]);
    assert!(other.status.success(), "{}", stderr(&other));
    assert!(!stderr(&other).contains("shared by several"));
    assert_eq!(probe(&run), probe(&other));
    world.write("manifests/id.toml", manifest);

    let dataset = [
        "--dataset",
        "id",
        "--data",
        "data",
        "--manifests",
        "manifests",
    ];
    let (output, rows) = zero_shot(&world, &dataset);
    assert!(stderr(&output).contains("`missile` (classes 0, 2)"));
    assert_labels(&rows, &CLASSES);
    let predicted = numbers(&rows, "pred");
    assert!(predicted.contains(&Some(0)) && !predicted.contains(&Some(2)));
    assert_eq!(
        words(&rows, "class_name")
            .iter()
            .filter(|n| *n == "missile")
            .count(),
        2 * TEST
    );

    // The names of the manifest as a list: the first folder is the first line.
    world.write("names.txt", "missile\nhouse\nmissile\ntree\n");
    let (_, listed) = zero_shot(
        &world,
        &[&dataset[..], &["--classes", "names.txt"]].concat(),
    );
    assert_labels(&listed, &CLASSES);
}

#[test]
fn folders_that_are_read_as_one_text_are_two_classes() {
    let world = World::new();
    rename(&world, "fish", "great white");
    rename(&world, "star", "great_white");
    let (output, rows) = zero_shot(&world, &["--images", "data/id/test"]);
    let note = "note: 1 class name is shared by several classes: `great white` (classes 0, 1)";
    assert!(stderr(&output).contains(note), "{}", stderr(&output));
    assert_labels(&rows, &["great white", "great_white", "house", "tree"]);
    let page = std::fs::read_to_string(world.path("out/index.html")).unwrap();
    assert!(page.contains("great white (class 1)"));

    let planned = world.clipood(&[
        "plan",
        "recipe.toml",
        "--manifests",
        "manifests",
        "--data",
        "data",
        "--store",
        "store",
        "--run",
        "r",
    ]);
    let planned = { planned }.output().unwrap();
    assert!(planned.status.success(), "{}", stderr(&planned));
}

#[test]
fn class_lists_are_read_as_their_authors_mean_them() {
    let world = World::new();
    let with = |list: &str, content: &[u8]| {
        world.write(list, content);
        zero_shot(&world, &["--images", "data/id/test", "--classes", list])
    };
    // A byte order mark, line ends of Windows, blank lines at the end.
    let (output, rows) = with(
        "bom.txt",
        "\u{feff}fish\r\nhouse\r\nstar\r\ntree\r\n\r\n".as_bytes(),
    );
    assert_eq!(stderr(&output), "");
    assert_labels(&rows, &CLASSES);
    assert_eq!(words(&rows, "class_name")[0], "fish");
    let (_, rows) = with("mac.txt", b"tree\rstar\rhouse\rfish\r");
    assert_labels(&rows, &["tree", "star", "house", "fish"]);
    // A name twice: the folder is the first.
    let (output, rows) = with("twice.txt", b"fish\nstar\nfish\ntree\nhouse\n");
    assert!(stderr(&output).contains("`fish` (classes 0, 2)"));
    assert_labels(&rows, &["fish", "star", "-", "tree", "house"]);
    assert!(!numbers(&rows, "pred").contains(&Some(2)));
    // The lists of other programs.
    let (_, rows) = with("list.json", br#"["fish", "house", "star", "tree"]"#);
    assert_labels(&rows, &CLASSES);
    let (output, _) = with("near.txt", b"fihs\nhouse\nstar\ntree\n");
    assert!(stderr(&output).contains("the first is `fish` (nearest class: `fihs`)"));

    for (folder, id) in CLASSES
        .iter()
        .zip(["n02512053", "n03544360", "n09444783", "n13104059"])
    {
        rename(&world, folder, id);
    }
    let by_id = ["n13104059", "n02512053", "n03544360", "n09444783"];
    let coop = "n13104059 tree\nn02512053 fish\nn03544360 house\nn09444783 star\n";
    let (output, rows) = with("classnames.txt", coop.as_bytes());
    assert!(stderr(&output).contains("every line begins with a WordNet id"));
    assert_labels(&rows, &by_id);
    assert!(words(&rows, "pred_name").contains(&"fish".to_owned()));
    let keras = br#"{"1": ["n02512053", "fish"], "0": ["n13104059", "tree"],
        "2": ["n03544360", "house"], "3": ["n09444783", "star"]}"#;
    let (_, rows) = with("imagenet_class_index.json", keras);
    assert_labels(&rows, &by_id);
}

#[test]
fn names_are_compared_with_underscores_as_spaces_on_both_sides() {
    for (folder, name) in [
        ("great white shark", "great_white_shark"),
        ("great_white_shark", "great white shark"),
        ("great-white-shark", "great_white_shark"),
    ] {
        let world = World::new();
        rename(&world, "fish", folder);
        world.write("c.txt", format!("house\n{name}\nstar\ntree\n"));
        world.write(
            "d.json",
            format!(
                "\u{feff}{{\"house\": [\"a house\"], \"{}\": [\"a fish\"], \"star\": [\"a star\"], \"tree\": [\"a tree\"]}}\r\n",
                name.replace('_', "-")
            ),
        );
        let images = ["--images", "data/id/test", "--classes", "c.txt"];
        let (output, rows) = zero_shot(
            &world,
            &[&images[..], &["--descriptions", "d.json"]].concat(),
        );
        assert_eq!(stderr(&output), "");
        assert_labels(&rows, &["house", folder, "star", "tree"]);
    }
}

#[test]
fn every_text_that_is_not_utf_8_is_named() {
    let world = World::new();
    let utf16 = |text: &str| -> Vec<u8> {
        let units = format!("\u{feff}{text}");
        units.encode_utf16().flat_map(u16::to_le_bytes).collect()
    };
    world.write("wide.txt", utf16("fish\nstar\n"));
    world.write("latin.txt", b"fish\nca\xf1on\n");
    world.write("latin.json", b"{\"fish\": [\"ca\xf1on\"]}");
    world.write("good.txt", "fish\n");
    world.write("manifests/scenes.toml", utf16("name = \"scenes\"\n"));
    world.write("wide.toml", utf16(common::RECIPE));
    let image = "data/id/test/fish/00.png";
    let zero_shot = [
        "zero-shot",
        "--model",
        "demo",
        "--images",
        image,
        "--classes",
    ];
    let wide = "wide.txt: found UTF-16 text, expected UTF-8; `iconv -f UTF-16 -t UTF-8`";
    let latin = "latin.txt:2: found byte 0xF1 after `ca`, expected UTF-8";
    fails(
        &world,
        &[&zero_shot[..], &["wide.txt"]].concat(),
        2,
        &[wide],
    );
    fails(
        &world,
        &[&zero_shot[..], &["latin.txt"]].concat(),
        2,
        &[latin, "WINDOWS-1252"],
    );
    let good = [&zero_shot[..], &["good.txt"]].concat();
    fails(
        &world,
        &[&good[..], &["--templates", "wide.txt"]].concat(),
        2,
        &[wide],
    );
    let described = [&good[..], &["--descriptions", "latin.json"]].concat();
    fails(&world, &described, 2, &["latin.json:1: found byte 0xF1"]);
    let encode = [
        "encode",
        "--model",
        "demo",
        "--out",
        "t.safetensors",
        "--texts",
    ];
    fails(&world, &[&encode[..], &["wide.txt"]].concat(), 2, &[wide]);
    fails(&world, &[&encode[..], &["latin.txt"]].concat(), 2, &[latin]);
    let plan = [
        "--manifests",
        "manifests",
        "--data",
        "data",
        "--store",
        "s",
        "--run",
        "r",
    ];
    let wide = "wide.toml: found UTF-16 text";
    fails(
        &world,
        &[&["plan", "wide.toml"], &plan[..]].concat(),
        2,
        &[wide],
    );
    let manifest = "scenes.toml: found UTF-16 text";
    fails(
        &world,
        &[&["plan", "recipe.toml"], &plan[..]].concat(),
        2,
        &[manifest],
    );
}

#[test]
fn texts_to_encode_and_to_tokenize_lose_their_mark() {
    let world = World::new();
    world.write("texts.txt", "\u{feff}a star\r\n\r\na fish\r\n\r\n");
    let words = [
        "encode",
        "--model",
        "demo",
        "--texts",
        "texts.txt",
        "--out",
        "t.parquet",
    ];
    let output = world.clipood(&words).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let file = File::open(world.path("t.parquet")).unwrap();
    let rows = ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap();
    let sources: Vec<String> = rows
        .flat_map(|batch| self::words(&batch.unwrap(), "source"))
        .collect();
    // The blank line between two texts is one.
    assert_eq!(sources, ["a star", "", "a fish"]);

    let tokenize = |input: &[u8]| {
        let mut child = world
            .clipood(&["tokenize"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    };
    let plain = stdout(&tokenize(b"a star\na fish\n"));
    assert_eq!(plain.lines().count(), 2);
    assert_eq!(
        stdout(&tokenize("\u{feff}a star\r\na fish\r\n".as_bytes())),
        plain
    );
    let wide: Vec<u8> = "a star\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let errors = stderr(&tokenize(&wide));
    assert!(
        errors.contains("standard input, line 1: found UTF-16LE text"),
        "{errors}"
    );
}
