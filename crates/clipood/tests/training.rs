//! Training through the real command: killed at any moment it ends with the same bits; a loss that is no number stops it.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::{RECIPE, World, files, stderr};
use safetensors::SafeTensors;

type Tensors = Vec<(String, Vec<u8>)>;

/// The bytes of every tensor of every prompt set in a store, by path and name. (The order of a file's metadata is not fixed.)
fn trained(world: &World, store: &str) -> Vec<(String, Tensors)> {
    let folder = world.path(&format!("{store}/prompts"));
    let tensors = |path: &str| {
        let bytes = std::fs::read(folder.join(path)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: Vec<(String, Vec<u8>)> = file
            .iter()
            .map(|(name, tensor)| (name.to_owned(), tensor.data().to_vec()))
            .collect();
        tensors.sort();
        tensors
    };
    let parts = files(&folder)
        .into_iter()
        .filter(|path| path.ends_with("prompt.safetensors"));
    parts.map(|path| (path.clone(), tensors(&path))).collect()
}

/// The bytes of every training log of a store, by path.
fn logs(world: &World, store: &str) -> Vec<(String, Vec<u8>)> {
    let folder = world.path(&format!("{store}/prompts"));
    let logs = files(&folder)
        .into_iter()
        .filter(|path| path.ends_with("train_log.parquet"));
    logs.map(|path| (path.clone(), std::fs::read(folder.join(path)).unwrap()))
        .collect()
}

#[test]
fn a_killed_training_ends_with_the_same_bits() {
    let world = World::new();
    let recipe = RECIPE
        .replace("epochs = 3", "epochs = 60\nbatch_size = 2")
        .replace("[engine]", "[engine]\ncheckpoint_steps = 3");
    world.write("recipe.toml", recipe);
    let whole = world.run("whole", &["--store", "store"]);
    assert!(whole.status.success(), "{}", stderr(&whole));
    let expected = trained(&world, "store");
    assert_eq!(expected.len(), 2);
    let expected_logs = logs(&world, "store");
    assert_eq!(expected_logs.len(), 1);
    // The features stay: a batch of others may round them differently, which is not what this is about.
    std::fs::remove_dir_all(world.path("store/prompts")).unwrap();
    let mut resumed = 0;
    let mut seed = 12_345u64;
    for _ in 0..40 {
        let mut child = world
            .command("killed", &["--store", "store"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Between 0.15 and 0.65 s: the start takes a part of it, the training about a second.
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis(150 + (seed >> 33) % 500));
        // An error means that it has ended.
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        resumed += usize::from(stderr(&output).contains("going on after step"));
        if output.status.success() {
            break;
        }
    }
    let last = world.run("killed", &["--store", "store"]);
    assert!(last.status.success(), "{}", stderr(&last));
    resumed += usize::from(stderr(&last).contains("going on after step"));
    assert!(resumed > 0, "no training was resumed");
    let found = trained(&world, "store");
    assert_eq!(found.len(), 2);
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(expected.0, found.0);
        assert!(expected.1 == found.1, "{} differs", expected.0);
    }
    assert!(
        expected_logs == logs(&world, "store"),
        "the training log differs"
    );
}

#[test]
fn a_loss_that_is_no_number_names_its_step() {
    let world = World::new();
    let recipe = RECIPE
        .replace("epochs = 3", "epochs = 40\nlr = 1e30")
        .replace("[engine]", "[engine]\ncheckpoint_steps = 1");
    world.write("recipe.toml", recipe);
    let run = world.run("run", &["--store", "store"]);
    let log = stderr(&run);
    assert_eq!(run.status.code(), Some(1), "{log}");
    assert!(
        log.contains("loss of step") && !log.contains("panicked"),
        "{log}"
    );
    // The last good checkpoint stays, the run has no half of a prompt set, and the features are kept.
    let all = files(&world.path("store"));
    assert!(
        all.iter()
            .any(|path| path.ends_with("checkpoint.safetensors")),
        "{all:?}"
    );
    assert_eq!(trained(&world, "store").len(), 1, "the hand-written one");
    let again = world.run("run", &["--store", "store"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        stderr(&again).contains("loss of step"),
        "{}",
        stderr(&again)
    );
}

#[test]
fn every_epoch_may_see_views_of_its_own() {
    let world = World::new();
    world.write("recipe.toml", RECIPE.replace("views = 2", "views = 0"));
    let run = world.run("run", &["--store", "store"]);
    assert!(run.status.success(), "{}", stderr(&run));
    let bytes = bytes::Bytes::from(std::fs::read(world.path("run/metrics/ood.parquet")).unwrap());
    let rows = clipood_pipeline::tables::read_ood(bytes, "ood").unwrap();
    let trained: Vec<_> = rows.iter().filter(|row| row.method == "locoop").collect();
    assert!(!trained.is_empty() && trained.iter().all(|row| row.views == Some(0)));
    // As many crops as epochs, and the evaluation view, of every shot.
    let parts = files(&world.path("store/features"));
    let rows: usize = parts
        .iter()
        .filter(|path| path.contains("/global/") && path.ends_with(".parquet"))
        .map(|path| {
            let bytes = std::fs::read(world.path(&format!("store/features/{path}"))).unwrap();
            let table = clipood_pipeline::tables::read_global(bytes.into(), path).unwrap();
            table.views.iter().filter(|view| **view >= 0).count()
        })
        .sum();
    assert_eq!(rows, 4 * 2 * 3);
}

#[test]
fn a_class_with_fewer_images_than_shots_is_refused_unless_allowed() {
    let world = World::new();
    world.write("recipe.toml", RECIPE);
    let shots = (common::TRAIN + 1).to_string();
    let more = ["--store", "store", "--shots", &shots];
    let refused = world.run("run", &more);
    let log = stderr(&refused);
    assert_ne!(refused.status.code(), Some(0), "{log}");
    assert!(
        log.contains("fish") && !log.contains("panicked"),
        "the class is named: {log}"
    );
    let allowed = world.run("allowed", &[&more[..], &["--allow-fewer"]].concat());
    assert!(allowed.status.success(), "{}", stderr(&allowed));
    assert_eq!(trained(&world, "store").len(), 2);
}
