//! `clipood finetune`: training on pairs, its files, and what it refuses.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use common::{CLASSES, TRAIN, World, files, stderr, succeeds};
use parquet::arrow::ArrowWriter;
use serde_json::Value;

/// Four pictures of each class with captions of words that the model does not connect with them yet, as open_clip's CSV.
fn pairs(world: &World) -> String {
    let mut text = "filepath\ttitle\n".to_owned();
    for (path, caption) in captions() {
        text += &format!("data/{path}\t{caption}\n");
    }
    world.write("pairs.tsv", &text);
    text
}

fn captions() -> Vec<(String, String)> {
    let things = ["violin", "bicycle", "teapot", "volcano"];
    let of_class = |(class, thing): (&&str, &str)| -> Vec<(String, String)> {
        let picture = |i: usize| {
            let caption = format!("a picture of one {thing}, number {i}");
            (format!("id/train/{class}/{i:02}.png"), caption)
        };
        (0..TRAIN).map(picture).collect()
    };
    CLASSES.iter().zip(things).flat_map(of_class).collect()
}

fn finetune(world: &World, out: &str, more: &[&str]) -> std::process::Output {
    let words = [
        "finetune",
        "--model",
        "demo",
        "--out",
        out,
        "--devices",
        "cpu",
    ];
    let words = [&words[..], more].concat();
    world.clipood(&words).output().unwrap()
}

fn refused(world: &World, out: &str, more: &[&str], code: i32, part: &str) {
    let output = finetune(world, out, more);
    let log = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{log}");
    assert!(
        log.contains(part) && !log.contains("panicked"),
        "no `{part}` in: {log}"
    );
}

/// The losses in a folder.
fn losses(folder: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(folder.join("loss.csv")).unwrap();
    let lines = text.lines().skip(1);
    lines
        .map(|line| line.split(',').nth(2).unwrap().parse().unwrap())
        .collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn projections_are_learnt_and_the_result_is_a_model_for_every_command() {
    let world = World::new();
    pairs(&world);
    let words = [
        "--pairs",
        "pairs.tsv",
        "--epochs",
        "30",
        "--batch",
        "8",
        "--lr",
        "2e-3",
        "--warmup",
        "4",
        "--eval",
        "data/id/test",
    ];
    let text = succeeds(&finetune(&world, "tuned", &words));
    assert!(
        text.contains("pairs: 16 = 16 usable + 0 left out"),
        "{text}"
    );
    assert!(text.contains("zero-shot accuracy on 24 images"), "{text}");
    let out = world.path("tuned");
    assert_eq!(
        files(&out),
        [
            "finetune.json",
            "loss.csv",
            "open_clip_config.json",
            "open_clip_model.safetensors",
            "skipped.csv"
        ]
    );
    let losses = losses(&out);
    assert_eq!(losses.len(), 60);
    let (first, last) = (mean(&losses[..4]), mean(&losses[56..]));
    assert!(last < 0.6 * first, "{first} {last}");
    let summary: Value =
        serde_json::from_slice(&std::fs::read(out.join("finetune.json")).unwrap()).unwrap();
    assert_eq!(
        (&summary["steps"], &summary["pairs"]),
        (&60.into(), &16.into())
    );
    assert_eq!(summary["zero_shot"]["images"], 24);
    let before = summary["zero_shot"]["before"]["top1"].as_f64().unwrap();
    assert!(before > 0.5, "{summary}");

    // The same seed again, over the former folder.
    let again = [&words[..], &["--overwrite"]].concat();
    let read = |name: &str| std::fs::read(out.join(name)).unwrap();
    let former = ["open_clip_model.safetensors", "loss.csv", "finetune.json"].map(read);
    succeeds(&finetune(&world, "tuned", &again));
    assert_eq!(
        ["open_clip_model.safetensors", "loss.csv", "finetune.json"].map(read),
        former
    );
    let other = [&again[..], &["--seed", "2"]].concat();
    succeeds(&finetune(&world, "tuned", &other));
    assert_ne!(read("open_clip_model.safetensors"), former[0]);

    // What was learnt: the new words name the pictures.
    let classify = |model: &str| {
        let words = [
            "zero-shot",
            "--model",
            model,
            "--images",
            "data/id/train",
            "--classes",
            "names.txt",
            "--templates",
            "templates.txt",
        ];
        world.write("names.txt", "violin\nbicycle\nteapot\nvolcano\n");
        world.write("templates.txt", "a picture of one {}\n");
        let text = succeeds(&world.clipood(&words).output().unwrap());
        let right = CLASSES
            .iter()
            .zip(["violin", "bicycle", "teapot", "volcano"])
            .map(|(class, thing)| {
                let (folder, first) = (format!("/{class}/"), format!(".png: {thing} "));
                let of_class = text.lines().filter(|line| line.contains(&folder));
                of_class.filter(|line| line.contains(&first)).count()
            });
        right.sum::<usize>()
    };
    let (demo, tuned) = (classify("demo"), classify("tuned"));
    assert!(tuned >= 12 && tuned > demo, "{demo} {tuned} of 16");
    let words = [
        "similarity",
        "--model",
        "tuned",
        "data/id/train/star/00.png",
        "--texts",
        "names.txt",
    ];
    succeeds(&world.clipood(&words).output().unwrap());
}

#[test]
fn whole_towers_are_learnt() {
    let world = World::new();
    pairs(&world);
    let words = [
        "--pairs",
        "pairs.tsv",
        "--train",
        "all",
        "--epochs",
        "6",
        "--batch",
        "16",
        "--lr",
        "5e-4",
    ];
    succeeds(&finetune(&world, "tuned", &words));
    let losses = losses(&world.path("tuned"));
    assert_eq!(losses.len(), 6);
    assert!(losses[5] < 0.9 * losses[0], "{losses:?}");
    let words = [
        "encode",
        "--model",
        "tuned",
        "--images",
        "data/scenes",
        "--out",
        "f.safetensors",
    ];
    succeeds(&world.clipood(&words).output().unwrap());
}

#[test]
fn parquet_files_and_shards_train_as_the_csv_file_does() {
    let world = World::new();
    let text = pairs(&world);
    // Flickr's spelling, with paths from another folder.
    let flickr = text
        .replace("filepath\ttitle", "image,caption")
        .replace("\tdata/", "\t")
        .replace("data/", "")
        .replace(", number", " number")
        .replace('\t', ",");
    world.write("lists/captions.csv", flickr);
    let rows: Vec<(Vec<u8>, String)> = captions()
        .into_iter()
        .map(|(path, caption)| {
            let bytes = std::fs::read(world.path(&format!("data/{path}"))).unwrap();
            (bytes, caption.replace(", number", " number"))
        })
        .collect();
    let bytes: Vec<&[u8]> = rows.iter().map(|row| &row.0[..]).collect();
    let texts: Vec<&str> = rows.iter().map(|row| row.1.as_str()).collect();
    let columns: [(&str, ArrayRef); 2] = [
        ("jpg", Arc::new(BinaryArray::from(bytes))),
        ("alt", Arc::new(StringArray::from(texts))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = std::fs::File::create(world.path("pairs.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    for (shard, rows) in rows.chunks(8).enumerate() {
        let path = world.path(&format!("shard-{shard}.tar"));
        let mut tar = tar::Builder::new(std::fs::File::create(path).unwrap());
        for (i, (bytes, caption)) in rows.iter().enumerate() {
            for (ending, content) in [("png", &bytes[..]), ("txt", caption.as_bytes())] {
                let mut header = tar::Header::new_ustar();
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, format!("{shard}{i:02}.{ending}"), content)
                    .unwrap();
            }
        }
        tar.finish().unwrap();
    }
    let loss = |out: &str, pairs: &[&str]| {
        let rest = ["--epochs", "4", "--batch", "8", "--lr", "1e-3"];
        succeeds(&finetune(&world, out, &[pairs, &rest].concat()));
        losses(&world.path(out))
    };
    let csv = loss("a", &["--pairs", "lists/captions.csv", "--images", "data"]);
    let parquet = loss(
        "b",
        &["--pairs", "pairs.parquet", "--caption-column", "alt"],
    );
    let shards = loss("c", &["--pairs", "shard-0.tar", "shard-1.tar"]);
    assert_eq!(csv, parquet);
    assert_eq!(csv, shards);
}

#[test]
fn rows_that_cannot_be_used_are_listed_and_too_many_are_refused() {
    let world = World::new();
    let mut text = pairs(&world);
    text += "data/id/train/star/00.png\t\ndata/gone.png\ta lost star\nnames.txt\tno picture\n";
    world.write("names.txt", "words");
    world.write("pairs.tsv", text);
    let words = ["--pairs", "pairs.tsv", "--batch", "8"];
    refused(&world, "tuned", &words, 1, "3 of 19 pairs cannot be used");
    assert!(!world.path("tuned").exists());
    let more = [&words[..], &["--max-skipped", "0.2"]].concat();
    let output = finetune(&world, "tuned", &more);
    let log = stderr(&output);
    assert!(succeeds(&output).contains("19 = 16 usable + 3 left out"));
    for part in [
        "pairs.tsv, line 18: no caption",
        "data/gone.png: unreadable",
        "names.txt: ",
    ] {
        assert!(log.contains(part), "no `{part}` in: {log}");
    }
    let skipped = std::fs::read_to_string(world.path("tuned/skipped.csv")).unwrap();
    assert_eq!(skipped.lines().count(), 4, "{skipped}");
    refused(&world, "tuned", &more, 2, "is not empty");
}

#[test]
fn what_cannot_be_trained_on_is_refused_in_words() {
    let world = World::empty();
    world.write("pairs.csv", "image,words\na.png,b\n");
    let pairs = |name: &'static str| ["--pairs", name];
    refused(
        &world,
        "o",
        &pairs("pairs.csv"),
        2,
        "no column of captions: found image, words",
    );
    let named = ["--pairs", "pairs.csv", "--caption-column", "word"];
    refused(&world, "o", &named, 2, "did you mean `words`?");
    world.write("empty.csv", "");
    refused(
        &world,
        "o",
        &pairs("empty.csv"),
        2,
        "expected a line of headings",
    );
    world.write("headings.csv", "image,caption\n");
    refused(&world, "o", &pairs("headings.csv"), 2, "holds no pair");
    refused(&world, "o", &pairs("gone.csv"), 2, "cannot read gone.csv");
    world.write("lost.csv", "image,caption\na.png,x\nb.png,y\n");
    refused(
        &world,
        "o",
        &pairs("lost.csv"),
        1,
        "none of 2 pairs can be used",
    );
    let all = ["--pairs", "lost.csv", "--train", "all"];
    refused(&world, "o", &all, 1, "none of 2 pairs can be used");
    world.write("text.parquet", "no table");
    refused(
        &world,
        "o",
        &pairs("text.parquet"),
        2,
        "no readable Parquet file",
    );
    world.write("text.tar", "no archive");
    refused(&world, "o", &pairs("text.tar"), 2, "text.tar: ");
    world.write("full/notes.txt", "mine");
    refused(
        &world,
        "full",
        &pairs("lost.csv"),
        2,
        "is not empty (it holds notes.txt)",
    );
    let over = ["--pairs", "lost.csv", "--overwrite"];
    refused(&world, "full", &over, 2, "holds notes.txt");
    let rate = ["--pairs", "lost.csv", "--lr", "0"];
    refused(&world, "o", &rate, 2, "expected a number above 0");
    let classes = ["--pairs", "lost.csv", "--classes", "a,b"];
    refused(&world, "o", &classes, 2, "--eval, which is missing");
    assert_eq!(files(&world.path("full")), ["notes.txt"]);
    assert!(!world.path("o").exists());
}

/// Starts the command, kills it when its first checkpoint is there, and returns that file.
fn interrupted(world: &World, words: &[&str]) -> std::path::PathBuf {
    let mut running = world.clipood(words);
    let mut running = running.stderr(Stdio::null()).spawn().unwrap();
    let checkpoint = world.path(".tuned.checkpoint");
    while !checkpoint.exists() {
        assert!(running.try_wait().unwrap().is_none(), "it has ended");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(!world.path("tuned").exists(), "it was not interrupted");
    checkpoint
}

#[test]
fn an_interrupted_training_goes_on_to_the_same_model() {
    let world = World::new();
    pairs(&world);
    let call = |out: &'static str, lr: &'static str| {
        let start = ["finetune", "--model", "demo", "--pairs", "pairs.tsv"];
        let options = ["--batch", "8", "--devices", "cpu", "--checkpoint", "0"];
        let more = ["--out", out, "--epochs", "400", "--lr", lr];
        [&start[..], &options, &more].concat()
    };
    let checkpoint = interrupted(&world, &call("tuned", "1e-3"));
    let kept = std::fs::read(&checkpoint).unwrap();

    // A damaged checkpoint is named and kept.
    std::fs::write(&checkpoint, &kept[..kept.len() / 2]).unwrap();
    let output = world.clipood(&call("tuned", "1e-3")).output().unwrap();
    let log = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(
        log.contains(".tuned.checkpoint") && log.contains("remove it to start anew"),
        "{log}"
    );
    std::fs::write(&checkpoint, &kept).unwrap();

    let output = world.clipood(&call("tuned", "1e-3")).output().unwrap();
    let log = stderr(&output);
    succeeds(&output);
    assert!(log.contains("goes on after epoch"), "{log}");
    assert!(!checkpoint.exists());
    succeeds(&world.clipood(&call("whole", "1e-3")).output().unwrap());
    for file in ["open_clip_model.safetensors", "loss.csv"] {
        let read = |folder: &str| std::fs::read(world.path(folder).join(file)).unwrap();
        assert!(read("tuned") == read("whole"), "{file} differs");
    }

    // A training with other settings does not go on from it.
    std::fs::write(&checkpoint, &kept).unwrap();
    std::fs::remove_dir_all(world.path("tuned")).unwrap();
    let output = world.clipood(&call("tuned", "1e-4")).output().unwrap();
    let log = stderr(&output);
    succeeds(&output);
    assert!(log.contains("with other settings"), "{log}");
    assert!(!checkpoint.exists());
}
