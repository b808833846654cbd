//! `clipood zero-shot` on drawn pictures.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may panic as tests may"
)]

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float32Type, UInt64Type};
use clipood_core::TemplateSet;
use clipood_data::{DecodeLimits, decode, eval_view, normalise};
use clipood_pipeline::open_model;
use common::{CLASSES, OOD, TEST, World, stderr, stdout};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

fn zero_shot(world: &World, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clipood"))
        .current_dir(world.path("data"))
        .args(["zero-shot", "--model", "demo"])
        .args(arguments)
        .output()
        .unwrap()
}

fn succeed(world: &World, arguments: &[&str]) -> String {
    let output = zero_shot(world, arguments);
    let errors = stderr(&output);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    stdout(&output)
}

fn fail(world: &World, arguments: &[&str], code: i32, words: &[&str]) {
    let output = zero_shot(world, arguments);
    let errors = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    for word in words {
        assert!(
            errors.contains(word),
            "{arguments:?}: no `{word}` in: {errors}"
        );
    }
    assert!(!errors.contains("panicked"), "{errors}");
}

fn table(path: &Path) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = builder.schema().clone();
    let batches: Vec<RecordBatch> = builder.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

/// A column of strings; nulls as empty ones.
fn words(table: &RecordBatch, column: &str) -> Vec<String> {
    let plain = cast(table.column_by_name(column).unwrap(), &DataType::Utf8).unwrap();
    let texts = plain.as_string::<i32>().iter();
    texts
        .map(|word| word.unwrap_or_default().to_owned())
        .collect()
}

fn floats(table: &RecordBatch, column: &str) -> Vec<f32> {
    let array = table.column_by_name(column).unwrap();
    array.as_primitive::<Float32Type>().values().to_vec()
}

fn counts(table: &RecordBatch, column: &str) -> Vec<u64> {
    let array = table.column_by_name(column).unwrap();
    array.as_primitive::<UInt64Type>().values().to_vec()
}

/// Cosines of an image file to the classes under the template `a photo of a {}`.
fn cosines(path: &Path) -> Vec<f64> {
    let model = open_model("demo").unwrap();
    let config = &model.config;
    let image = decode(&std::fs::read(path).unwrap(), &DecodeLimits::default()).unwrap();
    let view = eval_view(&image, config.image.size as u32);
    let pixels = normalise(&view, config.mean, config.std);
    let device = "cpu".parse().unwrap();
    let encoded = model.image_encoder(device).unwrap().encode(pixels, false);
    let image = encoded.unwrap().global;
    let names = CLASSES.map(String::from);
    let encoder = model.text_encoder(device).unwrap();
    let text = encoder.classes(&names, &["a photo of a {}"]).unwrap();
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let length = dot(&image, &image).sqrt();
    let texts = text.chunks_exact(config.embed_dim);
    texts.map(|text| dot(&image, text) / length).collect()
}

fn softmax(cosines: &[f64], scale: f64) -> Vec<f64> {
    let weights: Vec<f64> = cosines.iter().map(|c| (scale * c).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

#[test]
fn class_folders_are_labels_and_every_figure_follows_from_the_predictions() {
    let world = World::new();
    let images = CLASSES.len() * TEST;
    let arguments = ["--images", "id/test", "--top", "3", "--out", "out"];
    let printed = succeed(&world, &arguments);
    let out = world.path("data/out");
    let rows = table(&out.join("predictions.parquet"));
    assert_eq!(rows.num_rows(), images);
    let (known, predicted) = (words(&rows, "class_name"), words(&rows, "pred_name"));
    let paths = words(&rows, "image");
    for (path, known) in paths.iter().zip(&known) {
        assert!(
            path.starts_with(&format!("id/test/{known}/")),
            "{path}: {known}"
        );
        assert!(printed.contains(&format!("{path}: ")), "{path}");
    }

    // One image by another way.
    let expected = cosines(&world.path("data").join(&paths[7]));
    let probabilities = softmax(&expected, 100.0);
    let likeliest = (0..4).max_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b]));
    assert_eq!(predicted[7], CLASSES[likeliest.unwrap()]);
    let largest = probabilities.iter().copied().fold(0.0, f64::max);
    assert!((f64::from(floats(&rows, "prob")[7]) - largest).abs() < 1e-3);
    let mcm = softmax(&expected, 1.0).into_iter().fold(0.0, f64::max);
    assert!((f64::from(floats(&rows, "score_mcm")[7]) - mcm).abs() < 1e-4);

    // The lists hold the likeliest three, falling.
    let lists = rows
        .column_by_name("top_probs")
        .unwrap()
        .as_fixed_size_list();
    assert_eq!(lists.value_length(), 3);
    let values = lists.values().as_primitive::<Float32Type>().values();
    assert!(
        values
            .chunks_exact(3)
            .all(|top| top[0] >= top[1] && top[1] >= top[2])
    );
    let firsts: Vec<f32> = values.iter().copied().step_by(3).collect();
    assert_eq!(firsts, floats(&rows, "prob"));
    let lists = rows
        .column_by_name("top_names")
        .unwrap()
        .as_fixed_size_list();
    let names = lists.values().as_string::<i32>();
    let firsts: Vec<&str> = (0..images).map(|row| names.value(3 * row)).collect();
    assert_eq!(firsts, predicted);

    let mut pairs: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (known, predicted) in known.iter().zip(&predicted) {
        let pair = (known.as_str(), predicted.as_str());
        *pairs.entry(pair).or_default() += 1;
    }
    let confusion = table(&out.join("confusion.parquet"));
    let (down, across) = (words(&confusion, "true"), words(&confusion, "predicted"));
    let found: BTreeMap<(&str, &str), u64> = down
        .iter()
        .zip(&across)
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .zip(counts(&confusion, "count"))
        .collect();
    assert_eq!(found, pairs);

    let classes = table(&out.join("classes.parquet"));
    assert_eq!(words(&classes, "class_name"), CLASSES);
    assert_eq!(counts(&classes, "labelled"), [TEST as u64; 4]);
    let right = known.iter().zip(&predicted).filter(|(a, b)| a == b).count();
    assert_eq!(
        counts(&classes, "correct").iter().sum::<u64>(),
        right as u64
    );
    assert_eq!(
        counts(&classes, "predicted").iter().sum::<u64>(),
        images as u64
    );
    assert_eq!(table(&out.join("quarantine.parquet")).num_rows(), 0);

    // Four classes: the right one is always among the first five. The demo model knows these drawings.
    let top1 = 100.0 * right as f64 / images as f64;
    let line =
        format!("accuracy on {images} images of a known class: top-1 {top1:.2}%, top-5 100.00%");
    assert!(printed.contains(&line), "{printed}");
    assert!(top1 > 50.0, "{printed}");
    let page = std::fs::read_to_string(out.join("index.html")).unwrap();
    assert!(page.contains("Confusion") && page.contains(&format!("{top1:.2}%")));
    assert!(!out.join("predictions.parquet.partial").exists());
}

#[test]
fn a_dataset_gives_what_its_folders_give() {
    let world = World::new();
    let manifests = world.path("manifests");
    let manifests = manifests.to_str().unwrap();
    let dataset = |name, out| {
        let arguments = [
            "--dataset",
            name,
            "--data",
            ".",
            "--manifests",
            manifests,
            "--out",
            out,
        ];
        succeed(&world, &arguments);
        table(&world.path(&format!("data/{out}/predictions.parquet")))
    };
    let by_dataset = dataset("id", "a");
    succeed(&world, &["--images", "id/test", "--out", "b"]);
    let by_folder = table(&world.path("data/b/predictions.parquet"));
    for column in ["class_name", "pred_name"] {
        assert_eq!(words(&by_dataset, column), words(&by_folder, column));
    }
    for column in ["prob", "score_mcm"] {
        assert_eq!(floats(&by_dataset, column), floats(&by_folder, column));
    }

    // Scenes are none of the four classes: less in-distribution, and no accuracy.
    world.write("data/classes.txt", CLASSES.join("\n"));
    let arguments = [
        "--dataset",
        "scenes",
        "--data",
        ".",
        "--manifests",
        manifests,
        "--classes",
        "classes.txt",
        "--out",
        "c",
    ];
    let printed = succeed(&world, &arguments);
    assert!(!printed.contains("accuracy"), "{printed}");
    let scenes = table(&world.path("data/c/predictions.parquet"));
    assert_eq!(scenes.num_rows(), OOD);
    assert_eq!(scenes.column_by_name("label").unwrap().null_count(), OOD);
    let mean = |rows: &RecordBatch| {
        let scores = floats(rows, "score_mcm");
        scores.iter().sum::<f32>() / scores.len() as f32
    };
    assert!(mean(&scenes) < mean(&by_dataset));
    assert_eq!(table(&world.path("data/c/confusion.parquet")).num_rows(), 0);
}

#[test]
fn unreadable_photographs_are_named_and_the_others_classified() {
    let world = World::new();
    world.draw("id/test/fish/", "photos", 3);
    world.write("data/photos/broken.jpg", b"\xff\xd8\xff\xe0 no picture");
    world.write("data/photos/notes.txt", "not an image");
    world.write("data/classes.txt", CLASSES.join("\n"));
    let arguments = [
        "--images",
        "photos",
        "--classes",
        "classes.txt",
        "--out",
        "out",
    ];
    let output = zero_shot(&world, &arguments);
    let (printed, errors) = (stdout(&output), stderr(&output));
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("photos/broken.jpg"), "{errors}");
    assert!(
        printed.contains("images: 4 = 3 classified + 1 that could not be read"),
        "{printed}"
    );
    assert!(!printed.contains("accuracy") && !printed.contains("notes.txt"));
    let rows = table(&world.path("data/out/predictions.parquet"));
    assert_eq!(
        words(&rows, "image"),
        ["photos/00.png", "photos/01.png", "photos/02.png"]
    );
    assert_eq!(rows.column_by_name("class_name").unwrap().null_count(), 3);
    let quarantine = table(&world.path("data/out/quarantine.parquet"));
    assert_eq!(words(&quarantine, "uri"), ["photos/broken.jpg"]);

    let only = ["--images", "photos/broken.jpg", "--classes", "classes.txt"];
    fail(&world, &only, 1, &["none of 1 images", "broken.jpg"]);
}

#[test]
fn descriptions_are_averaged_as_templates_are() {
    let world = World::new();
    let templates = TemplateSet::Openai7;
    let lines: Vec<String> = CLASSES
        .iter()
        .map(|class| {
            let filled = templates
                .templates()
                .into_iter()
                .map(|t| t.replace("{}", class));
            format!("{class} = {:?}\n", filled.collect::<Vec<_>>())
        })
        .collect();
    world.write("data/texts.toml", lines.concat());
    world.write("data/templates.txt", templates.templates().join("\n"));
    let run = |more: &[&str], out: &str| {
        let images = ["--images", "id/test/star", "--classes", "c.txt", "--out"];
        let arguments = [&images[..], &[out], more].concat();
        succeed(&world, &arguments);
        table(&world.path(&format!("data/{out}/predictions.parquet")))
    };
    world.write("data/c.txt", CLASSES.join("\n"));
    let set = run(&["--templates", "openai7"], "a");
    let file = run(&["--templates", "templates.txt"], "b");
    let described = run(&["--descriptions", "texts.toml"], "c");
    let simple = run(&[], "d");
    for column in ["prob", "score_mcm"] {
        assert_eq!(floats(&set, column), floats(&file, column));
        assert_eq!(floats(&set, column), floats(&described, column));
        assert_ne!(floats(&set, column), floats(&simple, column));
    }
}

#[test]
fn mistakes_are_named() {
    let world = World::new();
    let write = |name: &str, text: &str| world.write(&format!("data/{name}"), text);
    write("good.txt", "fish\nstar\n");
    write("blank.txt", "fish\n\nstar\n");
    write("long.txt", &format!("fish\n{}\n", "very ".repeat(90)));
    write("templates.txt", "a photo of a {}\na photo\n");
    write(
        "texts.json",
        "{\"fish\": [\"it swims\"], \"stra\": [\"five corners\"]}",
    );
    write("texts.yaml", "fish: it swims");
    let image = "id/test/fish/00.png";
    let with = |more: &[&str], code, words: &[&str]| {
        let arguments = [&["--images", image][..], more].concat();
        fail(&world, &arguments, code, words);
    };
    with(&[], 2, &[image, "--classes"]);
    with(
        &["--classes", "blank.txt"],
        2,
        &["blank.txt:2", "blank line"],
    );
    with(&["--classes", "long.txt"], 2, &["long.txt:2", "tokens"]);
    with(&["--classes", "gone.txt"], 1, &["gone.txt"]);
    let good = |more: &[&str], code, words: &[&str]| {
        with(
            &[&["--classes", "good.txt"][..], more].concat(),
            code,
            words,
        );
    };
    good(&["--templates", "openai70"], 2, &["openai70", "`openai7`"]);
    good(
        &["--templates", "templates.txt"],
        2,
        &["templates.txt:2", "`a photo`"],
    );
    good(
        &["--descriptions", "texts.json"],
        2,
        &["texts.json", "did you mean `star`?"],
    );
    good(
        &["--descriptions", "texts.yaml"],
        2,
        &["texts.yaml", ".toml"],
    );
    good(&["--detector", "knn"], 2, &["--detector knn"]);
    good(&["--detector", "mcmm"], 2, &["mcm"]);
    good(&["--devices", "cuda:0"], 2, &["cuda:0"]);
    good(&["--top", "0"], 2, &["--top"]);
    good(&["--dataset", "id"], 2, &["--dataset"]);
    fail(&world, &[], 2, &["--images"]);
    fail(&world, &["--images", "nowhere"], 1, &["nowhere"]);
    fail(
        &world,
        &["--dataset", "idd", "--manifests", "../manifests"],
        2,
        &["`id`"],
    );
    world.write("data/empty/notes.txt", "no image");
    fail(
        &world,
        &["--images", "empty"],
        1,
        &["no image in empty", "jpg"],
    );
}
