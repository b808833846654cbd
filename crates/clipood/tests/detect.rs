//! `clipood threshold` and `clipood detect` on drawn pictures.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Command, Output};

use common::{CLASSES, OOD, TEST, TRAIN, World, stderr, stdout};
use serde_json::Value;

fn clipood(world: &World, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clipood"))
        .current_dir(world.path("."))
        .args(arguments)
        .output()
        .unwrap()
}

fn succeed(world: &World, arguments: &[&str]) -> (String, String) {
    let output = clipood(world, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        stderr(&output)
    );
    (stdout(&output), stderr(&output))
}

fn fail(world: &World, arguments: &[&str], code: i32, words: &[&str]) {
    let output = clipood(world, arguments);
    let log = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {log}");
    for word in words {
        assert!(log.contains(word), "{arguments:?}: no `{word}` in {log}");
    }
    assert!(!log.contains("panicked"), "{log}");
}

fn json(world: &World, path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(world.path(path)).unwrap()).unwrap()
}

/// The verdicts of `detect --json`.
fn verdicts(world: &World, threshold: &str, paths: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["detect", "--json", "--threshold", threshold];
    arguments.extend(paths);
    let (out, _) = succeed(world, &arguments);
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_threshold_lets_its_share_pass() {
    let world = World::new();
    let fit = |tpr: &str, out: &str| {
        let train = [
            "--dataset",
            "id",
            "--split",
            "train",
            "--manifests",
            "manifests",
        ];
        let mut arguments = vec![
            "threshold",
            "--tpr",
            tpr,
            "--out",
            out,
            "--detector",
            "max_cosine",
        ];
        arguments.extend(train);
        succeed(&world, &arguments)
    };
    let (line, note) = fit("0.75", "t.json");
    assert!(
        line.contains("train images of id") && note.is_empty(),
        "{line}{note}"
    );
    let fitted = json(&world, "t.json");
    let n = CLASSES.len() * TRAIN;
    assert_eq!(fitted["n"], n);
    assert_eq!(fitted["tpr_reached"], (0.75 * n as f64).ceil() / n as f64);
    assert_eq!(fitted["classes"].as_array().unwrap().len(), CLASSES.len());

    // The images that it was fitted on: exactly that share of them passes, and the threshold is one of their scores.
    let own = verdicts(&world, "t.json", &["data/id/train"]);
    assert_eq!(own.len(), n);
    let threshold = fitted["threshold"].as_f64().unwrap();
    let inside = |rows: &[Value]| {
        rows.iter()
            .filter(|row| row["in_distribution"] == true)
            .count()
    };
    assert_eq!(inside(&own), (0.75 * n as f64).ceil() as usize);
    for row in &own {
        let passes = row["score"].as_f64().unwrap() as f32 >= threshold as f32;
        assert_eq!(row["in_distribution"], passes, "{row}");
    }
    assert!(
        own.iter()
            .any(|row| row["score"].as_f64().unwrap() as f32 == threshold as f32)
    );

    // Pictures of other things pass less often.
    let test = verdicts(&world, "t.json", &["data/id/test"]);
    let other = verdicts(&world, "t.json", &["data/textures", "data/scenes"]);
    assert_eq!((test.len(), other.len()), (CLASSES.len() * TEST, 2 * OOD));
    let share = |rows: &[Value]| inside(rows) as f64 / rows.len() as f64;
    assert!(
        share(&test) > share(&other),
        "{} {}",
        share(&test),
        share(&other)
    );

    // Everything passes at 1; a threshold on test images says so.
    fit("1", "all.json");
    assert_eq!(inside(&verdicts(&world, "all.json", &["data/id/train"])), n);
    let tested = [
        "threshold",
        "--dataset",
        "id",
        "--split",
        "test",
        "--manifests",
        "manifests",
        "--out",
        "s.json",
    ];
    let (_, note) = succeed(&world, &tested);
    assert!(note.contains("test images"), "{note}");
}

#[test]
fn verdicts_come_as_lines_and_as_a_table() {
    let world = World::new();
    world.write("ood.json", "[0.0, 0.1, 2.0]");
    let arguments = [
        "threshold",
        "--images",
        "data/id/train",
        "--templates",
        "openai7",
        "--out",
        "t.json",
        "--ood-scores",
        "ood.json",
    ];
    let (line, _) = succeed(&world, &arguments);
    assert!(line.contains("33.33% of the OOD scores"), "{line}");
    world.write("data/photos/broken.png", "no picture");
    world.draw("textures/", "photos", 2);
    let (out, log) = succeed(
        &world,
        &[
            "detect",
            "--threshold",
            "t.json",
            "data/photos",
            "data/id/test/star/00.png",
            "--out",
            "v.parquet",
        ],
    );
    assert_eq!(out.lines().count(), 3, "{out}");
    assert!(
        out.lines()
            .all(|line| line.starts_with("in  ") || line.starts_with("out ")),
        "{out}"
    );
    assert!(
        log.contains("broken.png") && log.contains("of 3 images"),
        "{log}"
    );
    assert!(std::fs::metadata(world.path("v.parquet")).unwrap().len() > 500);
}

#[test]
fn a_page_shows_the_images_on_both_sides_of_the_threshold() {
    let world = World::new();
    world.write("data/id/test/star/broken.png", "no picture");
    let words = [
        "detect",
        "data/id/test",
        "data/textures",
        "--classes",
        "fish,house,star,tree",
        "--json",
        "--top",
        "2",
        "--page",
        "sheet.html",
    ];
    let (out, log) = succeed(&world, &words);
    assert!(log.contains("page: sheet.html"), "{log}");
    let rows: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let page = std::fs::read_to_string(world.path("sheet.html")).unwrap();
    let images = page.matches("src=\"data:image/jpeg;base64,").count();
    assert_eq!(images, rows.len());
    let inside: Vec<&Value> = rows
        .iter()
        .filter(|row| row["in_distribution"] == true)
        .collect();
    let outside = rows.len() - inside.len();
    assert!(!inside.is_empty() && outside > 0);
    for part in [
        format!("In-distribution: {}", inside.len()),
        format!("Out-of-distribution: {outside}"),
        "Could not be read: 1".to_owned(),
        "broken.png".to_owned(),
        "threshold 0.5 (texts for the unknown)".to_owned(),
    ] {
        assert!(page.contains(&part), "no `{part}`");
    }
    // In each group the highest scores come first, without a script.
    let scores: Vec<f64> = page
        .split("<strong>score ")
        .skip(1)
        .map(|rest| rest.split('<').next().unwrap().parse().unwrap())
        .collect();
    let (first, second) = scores.split_at(inside.len());
    assert_eq!(second.len(), outside);
    for group in [first, second] {
        assert!(group.is_sorted_by(|a, b| a >= b), "{group:?}");
    }
    assert!(first.last().unwrap() >= &0.5 && second[0] < 0.5);

    let words = [
        "detect",
        "data/textures",
        "--classes",
        "star",
        "--page",
        "no/sheet.html",
    ];
    fail(&world, &words, 1, &["no/sheet.html", "no folder no"]);
}

#[test]
fn what_does_not_fit_is_named() {
    let world = World::new();
    let train = ["threshold", "--images", "data/id/train", "--out", "t.json"];
    succeed(&world, &train);
    let with = |more: &[&'static str]| [&train[..], more].concat();
    fail(&world, &with(&["--tpr", "0"]), 2, &["--tpr 0"]);
    fail(&world, &with(&["--tpr", "1.5"]), 2, &["--tpr 1.5"]);
    fail(&world, &with(&["--detector", "knn"]), 2, &["knn"]);
    fail(
        &world,
        &["threshold", "--out", "x.json"],
        2,
        &["--images", "--dataset"],
    );
    // Neither is a share of no scores, and a NaN is no image that was kept out.
    for (file, content, problem) in [
        ("none.json", "[]", "found none"),
        ("nan.csv", "score\n0.5\nNaN\n", "line 3: found NaN"),
    ] {
        world.write(file, content);
        fail(&world, &with(&["--ood-scores", file]), 1, &[file, problem]);
    }
    // Said before the images are read: these are none.
    fail(
        &world,
        &["threshold", "--images", "gone", "--out", "no/t.json"],
        1,
        &["no/t.json", "no folder no"],
    );
    // There is no validation split, and the test split is not taken silently.
    let val = [
        "threshold",
        "--dataset",
        "id",
        "--manifests",
        "manifests",
        "--out",
        "x.json",
    ];
    fail(&world, &val, 1, &["val images of id"]);
    fail(
        &world,
        &["detect", "--threshold", "missing.json", "data"],
        1,
        &["missing.json"],
    );
    world.write("other.json", "{}");
    fail(
        &world,
        &["detect", "--threshold", "other.json", "data"],
        1,
        &["other.json", "clipood threshold"],
    );
    let mut fitted = json(&world, "t.json");
    fitted["weights_hash"] = "123".into();
    world.write("w.json", fitted.to_string());
    fail(
        &world,
        &["detect", "--threshold", "w.json", "data"],
        2,
        &["w.json", "123"],
    );
    world.write("empty/readme.txt", "");
    fail(
        &world,
        &["detect", "--threshold", "t.json", "empty"],
        1,
        &["no image"],
    );
    fail(
        &world,
        &["detect", "--threshold", "t.json", "nowhere.png"],
        1,
        &["nowhere.png"],
    );
}

#[test]
fn images_are_judged_without_a_fitted_file() {
    let world = World::new();
    let classes = ["--classes", "fish,house,star,tree", "--json"];
    let judge = |more: &[&str]| -> Vec<Value> {
        let words = [&["detect"], more, &classes[..]].concat();
        let (out, _) = succeed(&world, &words);
        out.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let inside = |rows: &[Value]| {
        rows.iter()
            .filter(|row| row["in_distribution"] == true)
            .count()
    };

    // Against texts for the unknown: pictures of the classes fit better than textures.
    let (known, other) = (judge(&["data/id/test"]), judge(&["data/textures"]));
    assert_eq!(known[0]["threshold"], 0.5);
    assert_eq!(known[0]["threshold_from"], "texts for the unknown");
    assert!(2 * inside(&known) > known.len(), "{known:?}");
    assert!(
        inside(&known) * other.len() > inside(&other) * known.len(),
        "{other:?}"
    );
    // The user's own texts for the unknown.
    world.write("unknown.txt", "an abstract texture\nstripes and dots\n");
    let own = judge(&["data/textures", "--unknown", "unknown.txt"]);
    assert_ne!(own[0]["score"], other[0]["score"]);

    // A number that is given, and one from a folder: 95% of 16 images are all of them.
    let given = judge(&["data/id/test", "--threshold", "0.26", "--top", "3"]);
    assert_eq!(
        (&given[0]["threshold"], &given[0]["threshold_from"]),
        (&0.26.into(), &"given".into())
    );
    assert_eq!(given[0]["classes"].as_array().unwrap().len(), 3);
    let train = judge(&["data/id/train", "--calibrate", "data/id/train"]);
    assert_eq!(inside(&train), CLASSES.len() * TRAIN);
    assert_eq!(
        train[0]["threshold_from"],
        "calibrated on 16 images of data/id/train"
    );

    // A list on standard input, with a name that leads nowhere and Windows line ends.
    let mut command = world.clipood(&[&["detect", "-"], &classes[..]].concat());
    use std::io::Write;
    use std::process::Stdio;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let list = b"data/id/test/star/00.png\r\nnowhere.png\r\n\r\ndata/id/test/fish/00.png\r\n";
    child.stdin.take().unwrap().write_all(list).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 2);
    assert!(
        stderr(&output).contains("nowhere.png"),
        "{}",
        stderr(&output)
    );

    let image = "data/id/test/star/00.png";
    // A blank line is no class; a name that repeats is noted.
    world.write("blank.txt", "fish\n\nstar\n");
    fail(
        &world,
        &["detect", image, "--classes", "blank.txt"],
        2,
        &["blank.txt:2", "blank line"],
    );
    let (_, log) = succeed(&world, &["detect", image, "--classes", "star,fish,star"]);
    assert!(log.contains("note: ") && log.contains("star"), "{log}");
    world.write("empty/readme.txt", "");
    fail(
        &world,
        &["detect", "empty", "--classes", "star,fish"],
        1,
        &["no image"],
    );
    fail(&world, &["detect", image], 2, &["--classes", "--threshold"]);
    let with =
        |more: &[&'static str]| [&["detect", image, "--classes", "star,fish"], more].concat();
    fail(&world, &with(&["--detector", "msp"]), 2, &["--calibrate"]);
    fail(&world, &with(&["--threshold", "nan"]), 2, &["NaN"]);
    fail(
        &world,
        &with(&["--threshold", "1", "--unknown", "unknown.txt"]),
        2,
        &["mcm", "no texts of no class"],
    );
    fail(
        &world,
        &with(&["--threshold", "1", "--calibrate", "data"]),
        2,
        &["cannot be used with"],
    );
    fail(
        &world,
        &with(&["--threshold", "1", "--detector", "knn"]),
        2,
        &["knn"],
    );
    succeed(
        &world,
        &["threshold", "--images", "data/id/train", "--out", "t.json"],
    );
    fail(
        &world,
        &with(&["--threshold", "t.json"]),
        2,
        &["--classes stands beside --threshold t.json"],
    );
}
