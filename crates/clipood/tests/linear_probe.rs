//! `clipood run` with linear probes: what is fitted, scored, left empty and refused.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use clipood_pipeline::tables::{read_accuracy, read_global, read_ood, read_paired};
use common::tables::{scores, table};
use common::{CLASSES, RECIPE, TEST, World, files, stderr, stdout};
use safetensors::SafeTensors;

const PROBE: &str = "linear-probe-4shot-seed1";

/// The small benchmark with zero-shot and a linear probe of four shots.
fn world(section: &str) -> World {
    let world = World::new();
    write_recipe(&world, section);
    world
}

fn write_recipe(world: &World, section: &str) {
    let text = RECIPE
        .replace("\"locoop\"]", "\"linear-probe\"]")
        .replace("shots = [2]", "shots = [4]")
        .replace(
            "\"gl_mcm\"]",
            "\"msp\", \"max_logit\", \"energy\", \"knn:k=2\"]",
        );
    world.write("recipe.toml", format!("{text}\n{section}"));
}

/// Prompt sets of the store, as paths in the folder.
fn prompt_files(world: &World) -> Vec<String> {
    let all = files(&world.path("store/prompts")).into_iter();
    all.filter(|path| path.ends_with("prompt.safetensors"))
        .map(|path| format!("store/prompts/{path}"))
        .collect()
}

/// Weights `[classes, D]` and biases of the one probe in the store.
fn probe(world: &World) -> (Vec<f32>, Vec<f32>) {
    let mut found = Vec::new();
    for path in prompt_files(world) {
        let bytes = table(world, &path);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let floats = |name: &str| -> Vec<f32> {
            let data = file.tensor(name).unwrap();
            let words = data.data().chunks_exact(4);
            words
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect()
        };
        if file.tensor("biases").is_ok() {
            found.push((floats("weights"), floats("biases")));
        }
    }
    assert_eq!(found.len(), 1, "probes in the store");
    found.remove(0)
}

/// Features of the evaluation views by image key, before normalisation.
fn evaluation_features(world: &World) -> BTreeMap<String, Vec<f32>> {
    let mut all = BTreeMap::new();
    for path in files(&world.path("store/features")) {
        if !path.contains("/global/") || !path.ends_with(".parquet") {
            continue;
        }
        let part = read_global(table(world, &format!("store/features/{path}")), &path).unwrap();
        for (row, feature) in part.values.chunks_exact(part.dim).enumerate() {
            assert_eq!(part.views[row], -1, "a crop that no method asked for");
            all.insert(part.keys[row].clone(), feature.to_vec());
        }
    }
    all
}

#[test]
fn a_probe_scores_with_its_own_logits_and_is_fitted_once() {
    let world = world("");
    let first = world.run("run", &[]);
    let log = stderr(&first);
    assert!(first.status.success(), "{log}");
    let empty = "linear-probe: has no texts to compare with, so these stay empty: mcm\n";
    assert_eq!(log.matches(empty).count(), 1, "{log}");
    assert!(log.contains(&format!("{PROBE}: ")), "{log}");
    let text = stdout(&first);
    // Each method under the first of the detectors that it has.
    for (method, detector) in [("zero-shot ", " mcm "), ("linear-probe ", " msp ")] {
        let mut rows = text.lines().filter(|line| line.starts_with(method));
        assert!(rows.any(|row| row.contains(detector)), "{method}: {text}");
    }

    let rows = read_ood(table(&world, "run/metrics/ood.parquet"), "ood").unwrap();
    let detectors = |method: &str| -> BTreeSet<&str> {
        let own = rows.iter().filter(|row| row.method == method);
        own.map(|row| row.detector.as_str()).collect()
    };
    assert_eq!(
        detectors("linear-probe"),
        BTreeSet::from(["msp", "max_logit", "energy", "knn:k=2"])
    );
    assert_eq!(
        detectors("zero-shot"),
        BTreeSet::from(["mcm", "msp", "max_logit", "energy"])
    );
    for row in rows.iter().filter(|row| row.method == "linear-probe") {
        assert_eq!((&*row.prompt, row.shots, row.views), (PROBE, Some(4), None));
        assert!((0.0..=1.0).contains(&row.auroc), "{row:?}");
    }
    // The first detector of the recipe is not the probe's, so the two are compared on the next.
    let paired = read_paired(table(&world, "run/metrics/paired.parquet"), "paired").unwrap();
    // Two OOD sets and their average.
    assert_eq!(paired.len(), 3);
    for row in &paired {
        assert_eq!((&*row.prompt, &*row.detector), (PROBE, "msp"));
    }

    let (weights, biases) = probe(&world);
    assert_eq!(biases.len(), CLASSES.len());
    let features = evaluation_features(&world);
    let (mut seen, mut hits) = (0, 0);
    for (part, scores) in scores(&world, "run") {
        if !part.starts_with(&format!("prompt={PROBE}/")) {
            continue;
        }
        let column = |name: &str| {
            let found = scores.detectors.iter().find(|d| d.detector == name);
            found.unwrap().values.clone()
        };
        assert_eq!(column("mcm"), None);
        let [msp, max_logit, energy] =
            ["msp", "max_logit", "energy"].map(|name| column(name).unwrap());
        for (i, row) in scores.rows.iter().enumerate() {
            let feature = &features[&row.image_key];
            let logits: Vec<f64> = weights
                .chunks_exact(feature.len())
                .zip(&biases)
                .map(|(weights, bias)| {
                    let products = weights.iter().zip(feature);
                    let dot: f64 = products.map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                    dot + f64::from(*bias)
                })
                .collect();
            let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let log_sum = max + logits.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
            let near = |found: f32, expected: f64| (f64::from(found) - expected).abs() < 1e-3;
            assert!(near(msp[i], (max - log_sum).exp()), "{row:?}");
            assert!(near(max_logit[i], max), "{row:?}");
            assert!(near(energy[i], log_sum), "{row:?}");
            assert_eq!(row.prob, msp[i]);
            assert!(max - logits[row.pred as usize] < 1e-3, "{row:?}");
            hits += usize::from(row.label == Some(row.pred));
            seen += 1;
        }
    }
    assert!(seen > CLASSES.len() * TEST);

    let accuracy = read_accuracy(table(&world, "run/metrics/accuracy.parquet"), "accuracy");
    let accuracy = accuracy.unwrap();
    let row = accuracy.iter().find(|row| row.prompt == PROBE).unwrap();
    let images = (CLASSES.len() * TEST) as f64;
    assert!((row.top1 - hits as f64 / images).abs() < 1e-12, "{row:?}");
    // Chance is a quarter.
    assert!(row.top1 >= 0.5, "{row:?}");

    let before = files(&world.path("."));
    let second = world.run("run", &[]);
    assert!(second.status.success(), "{}", stderr(&second));
    assert_eq!(stderr(&second), "", "the second run did work");
    assert_eq!(stdout(&second), text);
    assert_eq!(files(&world.path(".")), before);
}

#[test]
fn options_of_the_probe_make_another_probe_and_nothing_else() {
    let world = world("");
    assert!(world.run("one", &[]).status.success());
    // Zero-shot's and the probe's.
    let before = prompt_files(&world);
    assert_eq!(before.len(), 2);
    write_recipe(&world, "[linear_probe]\nc = 0.01\nmax_iter = 1\n");
    let other = world.run("two", &[]);
    let log = stderr(&other);
    assert!(other.status.success(), "{log}");
    assert!(
        log.contains("stopped after 1 steps") && log.contains("linear_probe.max_iter"),
        "{log}"
    );
    assert!(!log.contains("extract"), "{log}");
    let after = prompt_files(&world);
    assert_eq!(after.len(), 3, "{after:?}");
    assert!(before.iter().all(|path| after.contains(path)));
}

#[test]
fn what_a_probe_cannot_do_is_refused() {
    let world = world("");
    let cases: [(&str, &[&str], &[&str]); 4] = [
        (
            "",
            &["--detectors", "mcm,gl_mcm"],
            &["`linear-probe`", "(`mcm`, `gl_mcm`)", "`msp`"],
        ),
        (
            "[linear_probe]\nc = 0\n",
            &[],
            &["recipe.toml:", "`linear_probe.c`", "found 0"],
        ),
        (
            "[linear_probe]\nmax_iter = 0\n",
            &[],
            &["`linear_probe.max_iter`", "at least 1"],
        ),
        (
            "[linear_probe]\nmax_itre = 9\n",
            &[],
            &["`max_itre` in [linear_probe]", "`max_iter`"],
        ),
    ];
    for (section, arguments, words) in cases {
        write_recipe(&world, section);
        let run = world.run("bad", arguments);
        let log = stderr(&run);
        assert_eq!(run.status.code(), Some(2), "{section} {arguments:?}: {log}");
        for word in words {
            assert!(log.contains(word), "no `{word}` in: {log}");
        }
    }
}
