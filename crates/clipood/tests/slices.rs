//! The real command in processes that are killed from outside before a unit is done, or that have too little memory: the
//! run gets ahead, and no image is blamed.
#![cfg(target_os = "linux")]
// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::tables::assert_same_tables;
use common::{CLASSES, OOD, RECIPE, TEST, World, stderr, stdout};

/// One method, nothing trained, and every dataset in one unit.
fn world() -> World {
    let world = World::new();
    let recipe = RECIPE
        .replace("[\"zero-shot\", \"locoop\"]", "[\"zero-shot\"]")
        .replace("[\"mcm\", \"gl_mcm\"]", "[\"mcm\"]")
        .replace("shard_bytes = 20000", "shard_bytes = 1000000")
        .replace("[engine]", "[engine]\nmax_quarantine_fraction = 0.5");
    world.write("recipe.toml", recipe);
    world
}

/// What a run prints in which every image was scored.
fn all_scored() -> String {
    let planned = CLASSES.len() * TEST + 2 * OOD;
    format!("{planned} planned = {planned} scored + 0 quarantined")
}

#[test]
fn a_run_that_is_killed_before_a_unit_is_done_gets_ahead() {
    let world = world();
    let fast = [
        "--store",
        "store-whole",
        "--devices",
        "sim:1000",
        "--batch",
        "2",
    ];
    let whole = world.run("whole", &fast);
    assert!(whole.status.success(), "{}", stderr(&whole));
    let began = Instant::now();
    let again = world.run("whole", &fast);
    assert!(again.status.success(), "{}", stderr(&again));
    // Long enough to start and to encode for a few seconds, and shorter than the 12 s of the 24 images of one unit.
    let slice = Duration::from_secs(5) + began.elapsed().min(Duration::from_secs(5));
    let slow = ["--store", "store", "--devices", "sim:2", "--batch", "2"];
    let mut kills = 0;
    let last = loop {
        let mut child = world
            .command("run", &slow)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let ended = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if begun.elapsed() >= slice => break None,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        match ended {
            Some(status) => {
                assert!(status.success(), "{status}");
                break world.run("run", &slow);
            }
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                assert!(kills < 40, "no end after {kills} kills");
            }
        }
    };
    assert!(stdout(&last).contains(&all_scored()), "{}", stdout(&last));
    assert!(kills >= 2, "{kills} kills");
    assert_same_tables(&world, "whole", "run");
    println!(
        "{kills} kills, one every {:.1} s, of a run with a unit of 12 s",
        slice.as_secs_f64()
    );
    // Nothing is left of the parts of units, but for a write that a kill has cut off, which nobody reads.
    let staged = world.path("run/_run/staged");
    let mut left: Vec<String> = match staged.exists() {
        true => common::files(&staged),
        false => Vec::new(),
    };
    left.retain(|name| !name.contains('#'));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn deaths_from_outside_blame_no_image() {
    let world = world();
    let deadly = std::fs::read(world.path("data/textures/any/00.png")).unwrap();
    let hash = blake3::hash(&deadly).to_hex().to_string();
    let died = world
        .command("run", &["--store", "store"])
        .env("CLIPOOD_TEST_ABORT_ON", hash)
        .output()
        .unwrap();
    assert_eq!(died.status.code(), None, "{}", stderr(&died));
    // The notes of a process that was killed from outside again and again, each time in the same milliseconds.
    let attempts = world.path("run/_run/attempts");
    let noted = |unit: &PathBuf| std::fs::read_dir(unit).unwrap().next().is_some();
    let units = std::fs::read_dir(&attempts).unwrap();
    let unit = units.map(|unit| unit.unwrap().path()).find(noted).unwrap();
    for note in [
        "0-4.0", "0-2.0", "0-1.0", "0-1.1", "0-1.2", "1-2.0", "1-2.1", "1-2.2",
    ] {
        std::fs::write(unit.join(format!("worker-0.{note}.json")), b"{}").unwrap();
    }
    let run = world.run("run", &["--store", "store"]);
    assert!(run.status.success(), "{}", stderr(&run));
    let log = stderr(&run);
    assert_eq!(
        log.matches("is healthy: it was decoded").count(),
        2,
        "{log}"
    );
    assert!(stdout(&run).contains(&all_scored()), "{}", stdout(&run));
}

#[test]
fn too_little_memory_blames_no_image() {
    let world = world();
    let mut failed = 0;
    let mut codes = Vec::new();
    // Kilobytes of address space: from too little to start to enough for all.
    for limit in [
        60_000, 120_000, 200_000, 280_000, 300_000, 320_000, 450_000, 700_000, 1_000_000,
    ] {
        for _ in 0..2 {
            let command = world.command("run", &["--store", "store"]);
            let run = Command::new("bash")
                .args([
                    "-c",
                    &format!("ulimit -v {limit}; exec timeout 120 \"$0\" \"$@\""),
                ])
                .arg(command.get_program())
                .args(command.get_args())
                .current_dir(world.path(""))
                .output()
                .unwrap();
            let quarantined = stderr(&run).contains("process_killed");
            assert!(!quarantined, "{limit} KB: {}", stderr(&run));
            // A run that waits forever is ended by `timeout`, with 124.
            assert_ne!(run.status.code(), Some(124), "{limit} KB: {}", stderr(&run));
            failed += usize::from(!run.status.success());
            codes.push((limit, run.status.code()));
        }
    }
    assert!(failed >= 2, "the limits do not limit: {codes:?}");
    let run = world.run("run", &["--store", "store"]);
    assert!(run.status.success(), "{}", stderr(&run));
    assert!(stdout(&run).contains(&all_scored()), "{}", stdout(&run));
    println!("{failed} runs ended for lack of memory");
}
