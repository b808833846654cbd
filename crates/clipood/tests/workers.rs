//! `clipood plan`, several `clipood worker` on one run directory, and `clipood report`.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Child, Command, Stdio};

use common::tables::assert_same_tables;
use common::{CLASSES, OOD, TEST, World, files, stderr, stdout};

/// `clipood plan recipe.toml --run <run>`.
fn plan(world: &World, run: &str, store: &str) {
    let planned = world
        .clipood(&["plan", "recipe.toml", "--manifests", "manifests"])
        .args(["--run", run, "--store", store])
        .output()
        .unwrap();
    assert!(planned.status.success(), "{}", stderr(&planned));
    assert!(stdout(&planned).contains(&format!("run: {run}")));
}

/// Worker `index` of `count`, not started yet.
fn worker(world: &World, run: &str, store: &str, index: usize, count: usize) -> Command {
    let mut command = world.clipood(&["worker", run, "--store", store]);
    command
        .args(["--index", &index.to_string()])
        .args(["--count", &count.to_string()]);
    command
}

#[test]
fn workers_finish_a_planned_run_together() {
    let world = World::new();
    let alone = world.run("alone", &["--store", "store-a"]);
    assert!(alone.status.success(), "{}", stderr(&alone));
    plan(&world, "shared", "store-b");
    let early = world.clipood(&["report", "shared"]).output().unwrap();
    assert_eq!(early.status.code(), Some(2), "{}", stderr(&early));

    let workers: Vec<Child> = (0..3)
        .map(|index| {
            worker(&world, "shared", "store-b", index, 3)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let planned = CLASSES.len() * TEST + 2 * OOD;
    let account = format!("{planned} planned = {planned} scored + 0 quarantined");
    for worker in workers {
        let done = worker.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", stderr(&done));
        assert!(stdout(&done).contains(&account), "{}", stdout(&done));
    }
    assert_same_tables(&world, "alone", "shared");
    let list = |run: &str| files(&world.path(&format!("{run}/scores")));
    assert_eq!(list("alone"), list("shared"));

    let report = world.clipood(&["report", "shared"]).output().unwrap();
    assert!(report.status.success(), "{}", stderr(&report));
    // What the run that worked alone had printed before its account of images.
    let tables = stdout(&report);
    let tables = tables.split("tables:").next().unwrap();
    assert!(tables.contains("average"), "{tables}");
    let printed = stdout(&alone);
    assert_eq!(printed.split("test images:").next().unwrap(), tables);
}

#[test]
fn a_worker_finds_the_images_in_its_own_data_folder_or_says_that_it_does_not() {
    let world = World::new();
    let alone = world.run("alone", &["--store", "store-a"]);
    assert!(alone.status.success(), "{}", stderr(&alone));
    plan(&world, "run", "store-b");
    std::fs::create_dir(world.path("mount")).unwrap();
    std::fs::rename(world.path("data"), world.path("mount/images")).unwrap();
    let lost = worker(&world, "run", "store-b", 0, 1).output().unwrap();
    assert_eq!(lost.status.code(), Some(2), "{}", stderr(&lost));
    assert!(stderr(&lost).contains("--data"), "{}", stderr(&lost));
    let found = worker(&world, "run", "store-b", 0, 1)
        .args(["--data", "mount/images"])
        .output()
        .unwrap();
    assert!(found.status.success(), "{}", stderr(&found));
    assert_same_tables(&world, "alone", "run");
}

#[test]
fn an_image_that_is_gone_or_changed_after_planning_stops_the_worker_and_spoils_nothing() {
    let world = World::new();
    plan(&world, "run", "store");
    let image = world.path("data/scenes/any/03.png");
    let bytes = std::fs::read(&image).unwrap();
    std::fs::remove_file(&image).unwrap();
    let mut other = bytes.clone();
    other.push(0);
    for now in [None, Some(other)] {
        if let Some(bytes) = now {
            std::fs::write(&image, bytes).unwrap();
        }
        // Its name or size is noticed before any work; without that check its content is, when it is read.
        for (options, code) in [(&[][..], 2), (&["--accept-changed-data"], 1)] {
            let mut stopped = worker(&world, "run", "store", 0, 1);
            let stopped = stopped.args(options).output().unwrap();
            assert_eq!(stopped.status.code(), Some(code), "{}", stderr(&stopped));
            let log = stderr(&stopped);
            assert!(log.contains("03.png") && log.contains("planned"), "{log}");
        }
    }
    std::fs::write(&image, bytes).unwrap();
    let done = worker(&world, "run", "store", 0, 1).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(
        stdout(&done).contains("+ 0 quarantined"),
        "{}",
        stdout(&done)
    );
}

#[test]
fn a_killed_worker_goes_on_with_what_it_had_claimed() {
    let world = World::new();
    plan(&world, "run", "store");
    // Worker 1 stops with what it holds, and is started again under another count.
    let mut first = worker(&world, "run", "store", 1, 4)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(400));
    first.kill().unwrap();
    first.wait().unwrap();
    let again = worker(&world, "run", "store", 1, 2).output().unwrap();
    assert!(again.status.success(), "{}", stderr(&again));
}

#[test]
fn mistakes_of_workers_are_named() {
    let world = World::new();
    let nowhere = worker(&world, "no-such-run", "store", 0, 1)
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(
        stderr(&nowhere).contains("no-such-run"),
        "{}",
        stderr(&nowhere)
    );
    // The older way to name the run directory.
    let nowhere = world
        .clipood(&["worker", "--run", "no-such-run"])
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(
        stderr(&nowhere).contains("no-such-run/run.json"),
        "{}",
        stderr(&nowhere)
    );
    let beyond = worker(&world, "run", "store", 2, 2).output().unwrap();
    assert_eq!(beyond.status.code(), Some(2));
    assert!(stderr(&beyond).contains("--count"), "{}", stderr(&beyond));
}
