//! Folders as they are: images in subfolders and beside folders, links, odd names, files that are no images.
#![cfg(unix)]
// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use clipood_pipeline::tables::read_quarantine;
use common::tables::{scores, table};
use common::{CLASSES, OOD, RECIPE, TEST, World, stderr, stdout};
use safetensors::SafeTensors;

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// The run directory that `clipood plan` prints, which contains the fingerprint.
fn planned(world: &World) -> (String, String) {
    let output = world
        .clipood(&["plan", "recipe.toml", "--manifests", "manifests"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let out = stdout(&output);
    let images = out.lines().next().unwrap().to_string();
    (images, out.lines().nth(1).unwrap().to_string())
}

#[test]
fn a_run_reads_folders_as_they_are() {
    let world = World::new();
    let recipe = RECIPE
        .replace("[\"zero-shot\", \"locoop\"]", "[\"zero-shot\"]")
        .replace("[engine]", "[engine]\nmax_quarantine_fraction = 0.5");
    world.write("recipe.toml", recipe);
    let at = |path: &str| world.path(&format!("data/{path}"));
    let moved = |from: &str, to: &Path| std::fs::rename(at(from), to).unwrap();
    // A subfolder of a class.
    std::fs::create_dir(at("id/test/fish/deep")).unwrap();
    moved("id/test/fish/00.png", &at("id/test/fish/deep/00.png"));
    // Names that are no text, and circles.
    let folder = at("id/test/star");
    moved(
        "id/test/star/00.png",
        &folder.join(OsStr::from_bytes(b"b\xFF.png")),
    );
    moved("id/test/star/01.png", &folder.join("b\nc.png"));
    moved("id/test/star/02.png", &folder.join("b\\c.png"));
    symlink(".", folder.join("self")).unwrap();
    symlink("..", at("id/test/up")).unwrap();
    // A flat set, and images beside folders.
    for image in 0..OOD {
        moved(
            &format!("scenes/any/{image:02}.png"),
            &at(&format!("scenes/{image:02}.png")),
        );
    }
    std::fs::remove_dir(at("scenes/any")).unwrap();
    moved("textures/any/00.png", &at("textures/00.png"));
    // What cannot be read.
    fifo(&at("textures/any/fifo.png"));
    symlink("/dev/zero", at("textures/any/zero.png")).unwrap();
    symlink("loop.png", at("textures/any/loop.png")).unwrap();
    world.write(
        "data/textures/any/x.jpg",
        b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf",
    );
    world.write("data/textures/any/a.gif", "");
    world.write("data/textures/any/.DS_Store", "");

    let output = world.run("run", &[]);
    let log = stderr(&output);
    assert!(output.status.success(), "{log}");
    let planned = CLASSES.len() * TEST + 2 * OOD + 4;
    let account = format!("{planned} planned = {} scored + 4 quarantined", planned - 4);
    assert!(stdout(&output).contains(&account), "{}", stdout(&output));
    assert!(
        log.contains(
            "textures: 2 files left out: 1 .gif, 1 hidden or of the system; the first is "
        ),
        "{log}"
    );
    let path = "run/_run/quarantine/extract.parquet";
    let quarantine = read_quarantine(table(&world, path), path).unwrap();
    let found: Vec<(&str, &str)> = quarantine
        .iter()
        .map(|row| (row.image_key.as_str(), row.message.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (
                "textures/test/any/fifo.png",
                "found a FIFO, expected a regular file"
            ),
            (
                "textures/test/any/loop.png",
                "found links that lead in a circle"
            ),
            (
                "textures/test/any/x.jpg",
                "found an AVIF image; this format is not read, convert it to PNG or JPEG"
            ),
            (
                "textures/test/any/zero.png",
                "found a device, expected a regular file"
            )
        ]
    );
    let keys: Vec<String> = scores(&world, "run")
        .into_iter()
        .flat_map(|(_, scores)| scores.rows)
        .map(|row| row.image_key)
        .collect();
    for key in [
        "id/test/fish/deep/00.png",
        r"id/test/star/b\xFF.png",
        r"id/test/star/b\x0Ac.png",
        r"id/test/star/b\x5Cc.png",
        "scenes/test/00.png",
        "textures/test/00.png",
    ] {
        assert!(keys.iter().any(|found| found == key), "{key} in {keys:?}");
    }
}

#[test]
fn only_a_tree_that_is_read_in_another_way_has_another_fingerprint() {
    let world = World::new();
    let manifest = |name: &str, more: &str| {
        let path = format!("manifests/{name}.toml");
        let text = std::fs::read_to_string(world.path(&path)).unwrap();
        let (head, splits) = text.split_once("[splits]").unwrap_or((&text, ""));
        let splits = match splits {
            "" => String::new(),
            splits => format!("[splits]{splits}"),
        };
        world.write(&path, format!("{head}{more}{splits}"));
    };
    let flat = planned(&world);
    // The default of old, which a manifest may name.
    manifest("id", "nested = false\n");
    manifest("scenes", "nested = false\n");
    assert_eq!(planned(&world), flat);
    world.draw("near/", "textures/any/deep", 2);
    let deep = planned(&world);
    assert_ne!(deep.1, flat.1);
    let number = |line: &str| -> usize {
        let digits = line.trim_start_matches("planned: ");
        digits.split(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(number(&deep.0), number(&flat.0) + 2);
    // The same images by a manifest that says so.
    manifest("textures", "nested = true\n");
    assert_eq!(planned(&world), deep);
    world.draw("near/", "textures", 3);
    let beside = planned(&world);
    assert_ne!(beside.1, deep.1);
    assert_eq!(number(&beside.0), number(&deep.0) + 3);
    manifest("textures", "loose = false\n");
    assert_eq!(number(&planned(&world).0), number(&deep.0));

    // A wrong folder of data begins no run.
    let output = world
        .command("begun", &["--data", "nowhere"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("no folder at nowhere/"),
        "{}",
        stderr(&output)
    );
    assert!(!world.path("begun").exists());
}

#[test]
fn a_class_folder_needs_a_name_and_classes_a_level() {
    let world = World::new();
    let odd = world
        .path("data/id/test")
        .join(OsStr::from_bytes(b"caf\xE9"));
    std::fs::create_dir(&odd).unwrap();
    std::fs::copy(world.path("data/scenes/any/00.png"), odd.join("1.png")).unwrap();
    let output = world.run("run", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains(r"data/id/test/caf\xE9 is not UTF-8; rename it"),
        "{}",
        stderr(&output)
    );
    std::fs::remove_dir_all(odd).unwrap();
    world.write(
        "manifests/id.toml",
        "name = \"id\"\nrole = \"id\"\nlayout = \"image-folder\"\nroot = \"id\"\n",
    );
    let output = world.run("run", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("[splits]"), "{}", stderr(&output));
}

/// A folder `photos` with two images, and files that cannot be read or are not named as images.
fn photos() -> World {
    let world = World::new();
    world.draw("id/test/fish/", "photos", 1);
    world.draw("id/test/star/", "photos/more", 1);
    world.write("data/photos/empty.jpg", "");
    world.write(
        "data/photos/\u{1b}[31m.jpg",
        "version https://git-lfs.github.com/spec/v1\n",
    );
    world.write("data/photos/g.gif", "");
    world.write("data/photos/x.heic", "");
    world.write("data/photos/Thumbs.db", "");
    fifo(&world.path("data/photos/fifo.jpg"));
    symlink("..", world.path("data/photos/more/up")).unwrap();
    world.write("data/classes.txt", CLASSES.join("\n"));
    world
}

/// What every command says about these photographs.
fn check_log(log: &str) {
    for line in [
        "data/photos: 3 files left out: 1 .gif, 1 .heic, 1 hidden or of the system; 1 folder searched once only",
        "cannot read data/photos/empty.jpg (empty): file is empty",
        "cannot read data/photos/fifo.jpg (unreadable): found a FIFO, expected a regular file",
        r"cannot read data/photos/\x1B[31m.jpg (unknown-format): found a Git LFS pointer",
    ] {
        assert!(log.contains(line), "no `{line}` in {log}");
    }
    assert!(
        !log.contains('\u{1b}') && !log.contains("panicked"),
        "{log}"
    );
}

#[test]
fn every_command_reads_what_it_can_of_a_folder_and_names_the_rest() {
    let world = photos();
    let run = |words: &[&str]| {
        let output = world.clipood(words).output().unwrap();
        check_log(&stderr(&output));
        (output.status.code(), stdout(&output))
    };
    let (code, out) = run(&[
        "zero-shot",
        "--images",
        "data/photos",
        "--classes",
        "data/classes.txt",
    ]);
    assert_eq!(code, Some(0));
    assert!(
        out.contains("images: 5 = 2 classified + 3 that could not be read"),
        "{out}"
    );
    let (code, _) = run(&[
        "threshold",
        "--images",
        "data/photos",
        "--classes",
        "data/classes.txt",
        "--out",
        "t.json",
    ]);
    assert_eq!(code, Some(0));
    let (code, out) = run(&["detect", "--threshold", "t.json", "data/photos"]);
    assert_eq!((code, out.lines().count()), (Some(0), 2), "{out}");

    let arrays = |file: &str| -> Vec<(String, Vec<usize>)> {
        let bytes = std::fs::read(world.path(file)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut all: Vec<_> = file
            .tensors()
            .into_iter()
            .map(|(name, tensor)| (name, tensor.shape().to_vec()))
            .collect();
        all.sort();
        all
    };
    let (code, _) = run(&[
        "encode",
        "--model",
        "demo",
        "--images",
        "data/photos",
        "--out",
        "f.safetensors",
    ]);
    assert_eq!(code, Some(1));
    let encoded = arrays("f.safetensors");
    assert_eq!(
        (encoded[0].0.as_str(), encoded[0].1[0]),
        ("image_global", 2)
    );
    let (code, _) = run(&[
        "preprocess",
        "data/photos",
        "--size",
        "8",
        "--out",
        "p.safetensors",
    ]);
    assert_eq!(code, Some(1));
    let names: Vec<String> = arrays("p.safetensors").into_iter().map(|a| a.0).collect();
    assert_eq!(names, ["00.png", "more/00.png"]);
    let (code, out) = run(&[
        "similarity",
        "--model",
        "demo",
        "data/photos",
        "--text",
        "a fish",
    ]);
    assert_eq!(code, Some(1));
    assert!(
        out.contains("data/photos/00.png") && out.contains("data/photos/more/00.png"),
        "{out}"
    );
}

#[test]
fn files_that_the_command_line_names_are_not_waited_for() {
    let world = photos();
    for fifo in ["data/photos/fifo.jpg", "/dev/zero"] {
        let words = [
            "zero-shot",
            "--images",
            "data/photos/00.png",
            fifo,
            "--classes",
            "data/classes.txt",
        ];
        let output = world.clipood(&words).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let log = stderr(&output);
        assert!(log.contains("expected an image file or a folder"), "{log}");
        let words = [
            "encode",
            "--model",
            "demo",
            "--images",
            "data/photos/00.png",
            fifo,
            "--out",
            "f.safetensors",
        ];
        let output = world.clipood(&words).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("expected a regular file"));
        assert!(world.path("f.safetensors").exists());
    }
    // A GIF that is named is read.
    let gif =
        b"GIF89a\x01\0\x01\0\x80\0\0\xff\0\0\0\0\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0;";
    world.write("data/photos/g.gif", gif);
    let words = [
        "preprocess",
        "data/photos/g.gif",
        "--size",
        "8",
        "--out",
        "g.safetensors",
    ];
    let output = world.clipood(&words).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}
