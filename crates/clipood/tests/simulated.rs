//! Simulated devices: the whole flow without a model, kept apart from results.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use clipood_pipeline::tables::read_footer;
use common::tables::table;
use common::{World, files, stderr};

const SIMULATED: [&str; 4] = ["--store", "store", "--devices", "sim:5000,sim:5000"];

#[test]
fn simulated_features_are_marked_and_never_mixed_with_results() {
    let world = World::new();
    let run = world.run("sim", &SIMULATED);
    let log = stderr(&run);
    assert!(run.status.success(), "{log}");
    assert!(log.contains("nothing is computed"), "{log}");
    let parts = files(&world.path("store/features"));
    let parts: Vec<&String> = parts.iter().filter(|p| p.ends_with(".parquet")).collect();
    assert!(!parts.is_empty());
    for part in &parts {
        let bytes = table(&world, &format!("store/features/{part}"));
        let footer = read_footer(&bytes, part).unwrap();
        assert_eq!(footer.meta.extra["clipood.backend"], "simulated");
    }

    // The same store and recipe on the processor: nothing is taken over.
    let real = world.run("real", &["--store", "store"]);
    let log = stderr(&real);
    assert!(real.status.success(), "{log}");
    assert!(log.contains("extract") && log.contains("train"), "{log}");
    let all = files(&world.path("store/features"));
    let all = all.iter().filter(|p| p.ends_with(".parquet")).count();
    assert_eq!(all, 2 * parts.len());

    // Neither goes on in the other's run directory.
    for (run, arguments) in [("real", &SIMULATED[..]), ("sim", &["--store", "store"][..])] {
        let mixed = world.run(run, arguments);
        assert_eq!(mixed.status.code(), Some(2), "{run}");
        assert!(stderr(&mixed).contains("backend"), "{}", stderr(&mixed));
    }
}

#[test]
fn commands_whose_output_is_a_result_refuse_them() {
    let world = World::new();
    world.write("texts.txt", "a star\n");
    let words = [
        "encode",
        "--model",
        "demo",
        "--texts",
        "texts.txt",
        "--out",
        "f.safetensors",
    ];
    let encode = world
        .clipood(&words)
        .args(["--devices", "sim:10"])
        .output()
        .unwrap();
    assert_eq!(encode.status.code(), Some(2), "{}", stderr(&encode));
    assert!(stderr(&encode).contains("simulated"), "{}", stderr(&encode));
}
