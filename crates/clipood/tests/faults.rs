//! The real command on a store that fails one operation in ten, and two workers forced onto the same units.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Stdio;

use common::tables::assert_same_tables;
use common::{RECIPE, World, stderr, stdout};

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
    }
    assert_same_tables(&world, "whole", "shared");
}
