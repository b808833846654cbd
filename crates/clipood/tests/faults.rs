//! The real command on a store that fails one operation in ten, and two workers forced onto the same units.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::tables::assert_same_tables;
use common::{CLASSES, OOD, RECIPE, TEST, World, stderr, stdout};

#[test]
fn a_store_that_fails_one_operation_in_ten_changes_nothing() {
    let world = World::new();
    // Fewer parts: every fault costs a pause.
    let recipe = RECIPE.replace("shard_bytes = 20000", "shard_bytes = 50000");
    world.write("recipe.toml", recipe);
    let whole = world.run("whole", &["--store", "store-a"]);
    assert!(whole.status.success(), "{}", stderr(&whole));
    let faulty = world
        .command("faulty", &["--store", "store-b"])
        .env("CLIPOOD_TEST_FAULTS", "10:7")
        .output()
        .unwrap();
    let log = stderr(&faulty);
    assert!(faulty.status.success(), "{log}");
    let injected = log.matches("test hook: store operation").count();
    assert!(injected >= 10, "only {injected} faults: {log}");
    assert!(log.contains("(Before)") && log.contains("(After)"), "{log}");
    assert_same_tables(&world, "whole", "faulty");
    let words = ["status", "faulty", "--audit", "--store", "store-b"];
    let audit = world.clipood(&words).output().unwrap();
    assert!(audit.status.success(), "{}", stdout(&audit));
    println!("{injected} faults injected");
}

#[test]
fn a_store_that_always_fails_is_given_up_with_a_name() {
    let world = World::new();
    let run = world
        .command("run", &["--store", "store"])
        .env("CLIPOOD_TEST_FAULTS", "1:0")
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(1));
    let log = stderr(&run);
    assert!(log.contains("run.json (6 attempt(s))"), "{log}");
}

#[test]
fn an_image_that_kills_the_process_is_found_by_starting_again() {
    let world = World::new();
    let recipe = RECIPE
        .replace("shard_bytes = 20000", "shard_bytes = 1000000")
        .replace("[engine]", "[engine]\nmax_quarantine_fraction = 0.2");
    world.write("recipe.toml", recipe);
    let deadly = std::fs::read(world.path("data/textures/any/05.png")).unwrap();
    let hash = blake3::hash(&deadly).to_hex().to_string();
    let mut deaths = 0;
    let last = loop {
        let run = world
            .command("run", &["--store", "store"])
            .env("CLIPOOD_TEST_ABORT_ON", &hash)
            .output()
            .unwrap();
        if run.status.success() {
            break run;
        }
        assert_eq!(run.status.code(), None, "{}", stderr(&run));
        deaths += 1;
        assert!(deaths <= 8, "not found after {deaths} deaths");
    };
    // Eight images are halved three times; then the one that is left is judged in processes of its own.
    assert!(deaths >= 3, "{deaths} deaths");
    let log = stderr(&last);
    assert!(
        log.contains("died by SIGABRT, three times of three"),
        "{log}"
    );
    assert!(log.contains("any/05.png (process_killed)"), "{log}");
    let planned = CLASSES.len() * TEST + 2 * OOD;
    let account = format!("{planned} planned = {} scored + 1 quarantined", planned - 1);
    assert!(stdout(&last).contains(&account), "{}", stdout(&last));
    let audit = world
        .clipood(&["status", "run", "--audit", "--store", "store"])
        .output()
        .unwrap();
    assert!(audit.status.success(), "{}", stdout(&audit));
    assert!(
        stdout(&audit).contains("1 process_killed"),
        "{}",
        stdout(&audit)
    );
    // As docs/RELIABILITY.md says to try it again: the unit leaves the store, and another run directory finds it whole.
    let noted = |unit: &PathBuf| std::fs::read_dir(unit).unwrap().next().is_some();
    let units = children(&world.path("run/_run/attempts"));
    let unit = units.into_iter().find(noted).unwrap();
    let key = unit.file_name().unwrap().to_str().unwrap();
    let mut removed = [0, 0];
    for space in children(&world.path("store/features")) {
        for kind in children(&space.join("_commits/commits")) {
            removed[0] += remove_matching(&kind, &format!("{key}."));
        }
        for kind in children(&space) {
            removed[1] += remove_matching(&kind, &format!("part-{key}."));
        }
    }
    assert!(removed[0] > 0 && removed[0] == removed[1], "{removed:?}");
    let again = world.run("again", &["--store", "store"]);
    assert!(again.status.success(), "{}", stderr(&again));
    let account = format!("{planned} planned = {planned} scored + 0 quarantined");
    assert!(stdout(&again).contains(&account), "{}", stdout(&again));
}

/// What lies in a folder.
fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Removes the files of a folder whose name starts so, and says how many.
fn remove_matching(folder: &Path, prefix: &str) -> usize {
    let named = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    };
    let files: Vec<_> = children(folder).into_iter().filter(named).collect();
    for file in &files {
        std::fs::remove_file(file).unwrap();
    }
    files.len()
}

#[test]
fn two_workers_of_one_index_do_the_same_units_and_agree() {
    let world = World::new();
    let whole = world.run("whole", &["--store", "store-a"]);
    assert!(whole.status.success(), "{}", stderr(&whole));
    // Both are worker 0 of 1, so each takes the claims of the other for its own.
    let twins: Vec<_> = (0..2)
        .map(|_| {
            world
                .command("shared", &["--store", "store-b"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for twin in twins {
        let done = twin.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", stderr(&done));
        let warned = stderr(&done).contains("differs from ours");
        assert!(!warned, "{}", stderr(&done));
    }
    assert_same_tables(&world, "whole", "shared");
}
