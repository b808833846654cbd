//! `clipood status`, `explain` and `gc` on runs that are whole, broken, unfinished and unneeded.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Output;

use common::{CLASSES, OOD, RECIPE, TEST, World, files, stderr, stdout};

/// `clipood <words> --store store`.
fn look(world: &World, words: &[&str]) -> Output {
    world
        .clipood(words)
        .args(["--store", "store"])
        .output()
        .unwrap()
}

#[test]
fn status_counts_units_and_the_audit_finds_every_kind_of_damage() {
    let world = World::new();
    world.write("data/textures/any/03.png", b"not a picture");
    let recipe = RECIPE.replace("[engine]", "[engine]\nmax_quarantine_fraction = 0.2");
    world.write("recipe.toml", recipe);
    let planned = world
        .clipood(&["plan", "recipe.toml", "--manifests", "manifests"])
        .args(["--run", "run", "--store", "store"])
        .output()
        .unwrap();
    assert!(planned.status.success(), "{}", stderr(&planned));
    let before = look(&world, &["status", "run"]);
    let text = stdout(&before);
    assert!(before.status.success(), "{}", stderr(&before));
    assert!(text.contains("not finished"), "{text}");
    let audit = look(&world, &["status", "run", "--audit"]);
    assert_eq!(audit.status.code(), Some(1), "nothing is scored yet");

    assert!(world.run("run", &["--store", "store"]).status.success());
    let images = 2 * (CLASSES.len() * TEST + 2 * OOD);
    let whole = look(&world, &["status", "run", "--audit"]);
    let text = stdout(&whole);
    assert!(whole.status.success(), "{text}{}", stderr(&whole));
    assert!(text.contains(": finished"), "{text}");
    assert!(text.contains("textures (test): 1 of 8 images"), "{text}");
    let account = format!(
        "{images} planned (images x prompt sets), {} scored + 2",
        images - 2
    );
    assert!(
        text.contains("audit holds") && text.contains(&account),
        "{text}"
    );
    let json = stdout(&look(&world, &["status", "run", "--audit", "--json"]));
    for words in ["\"finished\": true", "\"holds\": true", "\"missing\": 0"] {
        assert!(json.contains(words), "no {words} in {json}");
    }

    // A part twice, a part missing, a part changed: each is found.
    let parts: Vec<String> = files(&world.path("run/scores"));
    let first = world.path(&format!("run/scores/{}", parts[0]));
    let bytes = std::fs::read(&first).unwrap();
    let twin = first.with_file_name("part-99999.parquet");
    let fails = |word: &str| {
        let audit = look(&world, &["status", "run", "--audit"]);
        let text = stdout(&audit);
        assert_eq!(audit.status.code(), Some(1), "{text}");
        assert!(
            text.contains("audit FAILS") && text.contains(word),
            "{text}"
        );
    };
    std::fs::write(&twin, &bytes).unwrap();
    fails("has 2 rows");
    std::fs::remove_file(&twin).unwrap();
    std::fs::remove_file(&first).unwrap();
    fails("neither scored nor in quarantine");
    let mut changed = bytes.clone();
    changed.push(0);
    std::fs::write(&first, &changed).unwrap();
    fails("is damaged: expected blake3");
    std::fs::write(&first, &bytes).unwrap();
    let mended = look(&world, &["status", "run", "--audit"]);
    assert!(mended.status.success(), "{}", stdout(&mended));
}

#[test]
fn a_unit_is_explained_by_the_inputs_that_differ() {
    let world = World::new();
    assert!(world.run("one", &["--store", "store"]).status.success());
    let done = look(&world, &["explain", "one", "train/locoop-2shot-seed1"]);
    let text = stdout(&done);
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(
        text.contains("done by worker-0") && text.contains("n_ctx: 4"),
        "{text}"
    );

    world.write("recipe.toml", RECIPE.replace("n_ctx = 4", "n_ctx = 5"));
    let planned = world
        .clipood(&["plan", "recipe.toml", "--manifests", "manifests"])
        .args(["--run", "two", "--store", "store"])
        .output()
        .unwrap();
    assert!(planned.status.success(), "{}", stderr(&planned));
    let open = look(&world, &["explain", "two", "train/locoop-2shot-seed1"]);
    let text = stdout(&open);
    assert!(text.contains("not done"), "{text}");
    let differences: Vec<&str> = text.lines().filter(|l| l.contains(" there, ")).collect();
    assert_eq!(differences, ["  n_ctx: \"4\" there, \"5\" here"], "{text}");

    let typo = look(&world, &["explain", "two", "train/locoop-2shot-seed"]);
    assert_eq!(typo.status.code(), Some(2));
    assert!(
        stderr(&typo).contains("`train/locoop-2shot-seed1`"),
        "{}",
        stderr(&typo)
    );
}

#[test]
fn gc_keeps_what_named_runs_need() {
    let world = World::new();
    assert!(world.run("kept", &["--store", "store"]).status.success());
    let needed = files(&world.path("store"));
    let nothing = look(&world, &["gc", "kept"]);
    assert!(
        stdout(&nothing).contains("would remove"),
        "{}",
        stderr(&nothing)
    );
    world.write("recipe.toml", RECIPE.replace("n_ctx = 4", "n_ctx = 5"));
    assert!(world.run("gone", &["--store", "store"]).status.success());
    let both = files(&world.path("store"));
    assert!(both.len() > needed.len());

    let dry = look(&world, &["gc", "kept"]);
    assert!(dry.status.success(), "{}", stderr(&dry));
    assert_eq!(
        files(&world.path("store")),
        both,
        "a dry run removes nothing"
    );
    let collected = look(&world, &["gc", "kept", "--delete"]);
    assert!(
        stdout(&collected).contains("removed"),
        "{}",
        stderr(&collected)
    );
    assert_eq!(files(&world.path("store")), needed);
    let audit = look(&world, &["status", "kept", "--audit"]);
    assert!(audit.status.success(), "{}", stdout(&audit));
    // The other run can be made again.
    assert!(world.run("gone", &["--store", "store"]).status.success());
    assert_eq!(files(&world.path("store")).len(), both.len());
}

#[test]
fn gc_takes_runs_of_several_backends_and_looking_needs_no_device() {
    let world = World::new();
    assert!(world.run("real", &["--store", "store"]).status.success());
    let simulated = ["--store", "store", "--devices", "sim:5000"];
    assert!(world.run("sim", &simulated).status.success());
    let before = files(&world.path("store"));
    let both = look(&world, &["gc", "real", "sim", "--delete"]);
    assert!(both.status.success(), "{}", stderr(&both));
    assert_eq!(files(&world.path("store")), before);
    for run in ["real", "sim"] {
        let audit = look(&world, &["status", run, "--audit"]);
        assert!(audit.status.success(), "{}", stderr(&audit));
    }
    let one = look(&world, &["gc", "real", "--delete"]);
    assert!(one.status.success(), "{}", stderr(&one));
    assert!(files(&world.path("store")).len() < before.len());
}

#[test]
fn what_a_killed_writer_left_beside_a_part_is_gone_after_the_next_start() {
    let world = World::new();
    assert!(world.run("run", &["--store", "store"]).status.success());
    let before = files(&world.path("run/scores"));
    let part = world.path(&format!("run/scores/{}", before[0]));
    let mut leftover = part.clone().into_os_string();
    leftover.push("#1");
    std::fs::hard_link(&part, &leftover).unwrap();
    assert!(world.run("run", &["--store", "store"]).status.success());
    assert!(!std::path::Path::new(&leftover).exists());
    assert_eq!(files(&world.path("run/scores")), before);
}

#[test]
fn status_tells_why_a_worker_failed_and_when_it_has_finished() {
    let world = World::new();
    // Cut off, so that only decoding finds out; one image of a small set may be lost.
    for image in ["data/textures/any/00.png", "data/textures/any/01.png"] {
        let bytes = std::fs::read(world.path(image)).unwrap();
        world.write(image, &bytes[..bytes.len() / 2]);
    }
    let run = world.run("run", &["--store", "store"]);
    assert_eq!(run.status.code(), Some(1), "{}", stderr(&run));
    let text = stdout(&look(&world, &["status", "run"]));
    assert!(text.contains("worker-0: failed: textures: 2 of"), "{text}");
    world.write(
        "recipe.toml",
        RECIPE.replace("[engine]", "[engine]\nmax_quarantine_fraction = 0.5"),
    );
    assert!(world.run("other", &["--store", "store"]).status.success());
    let text = stdout(&look(&world, &["status", "other"]));
    assert!(text.contains("worker-0: finished"), "{text}");
    let json = stdout(&look(&world, &["status", "run", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["workers"][0]["state"], "failed");
}

#[test]
fn spans_are_told_when_they_are_asked_for() {
    let world = World::new();
    let run = world.run("run", &["--store", "store", "--trace", "debug"]);
    let log = stderr(&run);
    assert!(run.status.success(), "{log}");
    for span in [
        "plan:",
        "extract{",
        "decode{",
        "train{",
        "score{",
        "commit{",
        "aggregate:",
    ] {
        let spoken = format!("}}:{span}");
        assert!(log.contains(&spoken), "{span}: {log}");
    }
    let bad = world.run("run", &["--store", "store", "--trace", "clipood=loud"]);
    assert_eq!(bad.status.code(), Some(2), "{}", stderr(&bad));
}
