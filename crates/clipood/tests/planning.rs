//! What a plan refuses before any image is encoded, and images that are in two sets.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use common::{CLASSES, OOD, RECIPE, TEST, World, refused, stderr, stdout, succeeds};

#[test]
fn a_refused_plan_leaves_no_run_directory_and_the_corrected_recipe_is_planned() {
    let world = World::new();
    let long = "word ".repeat(80);
    let manifest = std::fs::read_to_string(world.path("manifests/id.toml")).unwrap();
    let cases = [
        ("shots = [2]", "shots = [5]", "", "5 shots"),
        (
            "[prompt]",
            "[locoop]\ntop_k = 4\n[prompt]",
            "",
            "locoop.top_k",
        ),
        ("\"gl_mcm\"]", "\"gl_mcm\", \"vim:dim=8\"]", "", "vim"),
        ("", "", &long, "class_names.fish"),
    ];
    for (from, to, name, word) in cases {
        world.write("recipe.toml", RECIPE.replace(from, to));
        if !name.is_empty() {
            let names = format!("{manifest}\n[class_names]\nfish = \"{name}\"\n");
            world.write("manifests/id.toml", names);
        }
        refused(&world, "run", &[], 2, &[word]);
        for folder in ["run", "store"] {
            assert!(!world.path(folder).exists(), "{word}: {folder}");
        }
        world.write("manifests/id.toml", &manifest);
    }
    world.write("recipe.toml", RECIPE);
    succeeds(&world.run("run", &[]));
}

#[test]
fn texts_that_are_too_long_are_refused_before_extraction_with_class_and_place() {
    let world = World::new();
    let manifest = std::fs::read_to_string(world.path("manifests/id.toml")).unwrap();
    let named = |words: usize| {
        let name = vec!["word"; words].join(" ");
        let text = format!("{manifest}\n[class_names]\nstar = \"{name}\"\n");
        world.write("manifests/id.toml", text);
    };
    // 77 tokens: start, `a photo of a`, 71 words, end. A full stop and 4 vectors leave room for 70 words.
    named(72);
    let words = [
        "`id`",
        "`word word",
        "class_names.star",
        "a photo of a {}",
        "78",
        "77",
    ];
    refused(&world, "run", &["--methods", "zero-shot"], 2, &words);
    named(71);
    refused(
        &world,
        "run",
        &[],
        2,
        &["class_names.star", "4 context vectors", "78"],
    );
    assert!(!world.path("store").exists());
    named(70);
    succeeds(&world.run("run", &["--methods", "zero-shot,locoop"]));

    // Every template counts, and a class that is named by its folder.
    world.write("manifests/id.toml", &manifest);
    let folder = vec!["word"; 40].join("_");
    for split in ["train", "test"] {
        let path = world.path(&format!("data/id/{split}"));
        std::fs::rename(path.join("tree"), path.join(&folder)).unwrap();
    }
    let long = format!("{} {{}}", vec!["long"; 40].join(" "));
    let templates = format!("[prompt]\ntemplates = [\"a {{}}\", \"{long}\"]");
    world.write("recipe.toml", RECIPE.replace("[prompt]", &templates));
    refused(
        &world,
        "other",
        &[],
        2,
        &["named as its folder", "long long", "82"],
    );
}

#[test]
fn too_many_unreadable_images_are_refused_before_extraction() {
    let world = World::new();
    // One image of a small set may be lost, two of 24 are more than one in a hundred.
    world.write("data/id/test/star/00.png", b"not a picture");
    let one = succeeds(&world.run("one", &["--store", "store-a"]));
    assert!(one.contains("+ 1 quarantined"), "{one}");
    world.write("data/id/test/star/01.png", b"");
    let words = [
        "engine.max_quarantine_fraction = 0.01",
        "id: 2 of 32",
        "allowed: 1",
        "star/0",
    ];
    refused(&world, "two", &["--store", "store-b"], 1, &words);
    assert!(!world.path("two").exists() && !world.path("store-b").exists());
    let strict = RECIPE.replace("[engine]", "[engine]\nmax_quarantine_fraction = 0.0");
    world.write("recipe.toml", strict);
    std::fs::copy(
        world.path("data/id/test/star/02.png"),
        world.path("data/id/test/star/01.png"),
    )
    .unwrap();
    refused(
        &world,
        "none",
        &["--store", "store-b"],
        1,
        &["1 of 32", "allowed: 0"],
    );
    // A class without a readable shot.
    world.write(
        "recipe.toml",
        RECIPE.replace("[engine]", "[engine]\nmax_quarantine_fraction = 0.9"),
    );
    for shot in 0..4 {
        world.write(&format!("data/id/train/house/{shot:02}.png"), b"GIF");
    }
    refused(
        &world,
        "shots",
        &["--store", "store-b"],
        2,
        &["`house`", "2 shots"],
    );
    assert!(!world.path("store-b").exists());
}

#[test]
fn extraction_stops_when_the_limit_is_passed() {
    let world = World::new();
    // Only decoding finds out.
    for image in ["scenes/any/00.png", "scenes/any/01.png"] {
        let path = world.path(&format!("data/{image}"));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }
    let words = [
        "engine.max_quarantine_fraction",
        "scenes: 2 of 8",
        "allowed: 1",
    ];
    refused(&world, "run", &[], 1, &words);
    // The second dataset was not begun: nothing of it is in the store, and the run is no longer than the first.
    let status = stdout(&world.clipood(&["status", "run"]).output().unwrap());
    let extract = status
        .lines()
        .find(|line| line.trim().starts_with("extract"))
        .unwrap();
    let counts: Vec<usize> = extract
        .split_whitespace()
        .skip(1)
        .map(|n| n.parse().unwrap())
        .collect();
    assert!(counts[1] < counts[0], "{status}");
    // The same again, however much is done by then.
    refused(&world, "run", &[], 1, &words);
}

#[test]
fn images_in_two_sets_are_reported_dropped_or_refused() {
    let world = World::new();
    let copy = |from: &str, to: &str| {
        std::fs::copy(
            world.path(&format!("data/{from}")),
            world.path(&format!("data/{to}")),
        )
        .unwrap();
    };
    // All training images of a class are shots under four shots.
    copy("id/train/fish/00.png", "id/test/fish/00.png");
    copy("id/test/star/01.png", "scenes/any/00.png");
    copy("id/test/tree/02.png", "id/test/tree/x.png");
    world.write("data/textures/any/00.png", b"");
    world.write("data/id/test/star/05.png", b"");
    let recipe = RECIPE
        .replace("shots = [2]", "shots = [4]")
        .replace("[engine]", "[engine]\nmax_quarantine_fraction = 0.2");
    let all = CLASSES.len() * TEST + 1 + 2 * OOD;
    world.write("recipe.toml", &recipe);
    let report = world.run("report", &[]);
    let text = succeeds(&report);
    let lines = [
        "id test: 1 image is also in id train (id/test/fish/00.png = id/train/fish/00.png)",
        "id test: 1 image repeats an earlier one of the set (id/test/tree/x.png = id/test/tree/02.png)",
        "scenes test: 1 image is also in id test (scenes/test/any/00.png = id/test/star/01.png)",
    ];
    let page = std::fs::read_to_string(world.path("report/report/index.html")).unwrap();
    for line in lines {
        assert!(
            text.contains(line) && stderr(&report).contains(line),
            "{text}{}",
            stderr(&report)
        );
        assert!(page.contains(line), "{page}");
    }
    assert!(!text.contains("textures test:"), "{text}");
    assert!(text.contains(&format!("{all} planned")), "{text}");

    let with = |word: &str| recipe.replace("[data]", &format!("[data]\noverlap = \"{word}\""));
    world.write("recipe.toml", with("drop"));
    let dropped = succeeds(&world.run("drop", &[]));
    assert!(
        dropped.contains(&format!("{} planned", all - 3)),
        "{dropped}"
    );
    assert!(
        dropped.contains("is also in id train, left out"),
        "{dropped}"
    );
    world.write("recipe.toml", with("error"));
    refused(
        &world,
        "error",
        &[],
        2,
        &["data.overlap", lines[0], lines[1], lines[2]],
    );
    assert!(!world.path("error").exists());
}
