//! `clipood run` with NegPrompt: what is trained on what, who reads the negatives, and what is refused.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::process::Stdio;

use clipood_pipeline::tables::read_global;
use common::tables::{scores, table};
use common::{CLASSES, RECIPE, World, files, refused, stderr, succeeds};
use safetensors::SafeTensors;

const NEGATIVES: usize = 3;
const OWN: &str = "negprompt-2shot-seed1";

/// The small benchmark with other methods and detectors.
fn world(methods: &str, detectors: &str, more: &str) -> World {
    let world = World::new();
    let text = RECIPE
        .replace("[\"zero-shot\", \"locoop\"]", methods)
        .replace("[\"mcm\", \"gl_mcm\"]", detectors);
    let section = format!("[negprompt]\nnegatives = {NEGATIVES}\nepochs = 4\n");
    world.write("recipe.toml", format!("{text}\n{section}{more}"));
    world
}

/// Tensors of float32 by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The prompt sets of the store.
fn prompt_sets(world: &World) -> Vec<Tensors> {
    let all = files(&world.path("store/prompts")).into_iter();
    let sets = all.filter(|path| path.ends_with("prompt.safetensors"));
    sets.map(|path| {
        let bytes = table(world, &format!("store/prompts/{path}"));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.iter().map(|(name, tensor)| {
            let words = tensor.data().chunks_exact(4);
            let values = words.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            (name.to_owned(), (tensor.shape().to_vec(), values.collect()))
        });
        tensors.collect()
    })
    .collect()
}

fn products(rows: &[f32], f: &[f32]) -> Vec<f64> {
    let norm = f.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let rows = rows.chunks_exact(f.len());
    rows.map(|row| {
        let products = row.iter().zip(f);
        products
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum::<f64>()
            / norm
    })
    .collect()
}

#[test]
fn negatives_are_trained_beside_coops_prompt_and_scored() {
    let world = world(
        "[\"zero-shot\", \"coop\", \"negprompt\"]",
        "[\"mcm\", \"negprompt\", \"neglabel\"]",
        "[negative_labels]\nrule = \"learned\"\n",
    );
    let output = world.run("run", &[]);
    let log = stderr(&output);
    let printed = succeeds(&output);
    assert!(printed.contains("negprompt"), "{printed}");
    let empty =
        "zero-shot: has no learned negative prompts, so these stay empty: negprompt, neglabel\n";
    assert_eq!(log.matches(empty).count(), 1, "{log}");

    // Zero-shot, CoOp's, and the one that keeps CoOp's beside its negatives.
    let sets = prompt_sets(&world);
    assert_eq!(sets.len(), 3);
    let own = sets.iter().find(|set| set.contains_key("negative_text"));
    let own = own.unwrap();
    let coop = sets
        .iter()
        .find(|set| set.contains_key("context") && !set.contains_key("negative_text"));
    for name in ["text", "context", "momentum"] {
        assert_eq!(own[name], coop.unwrap()[name], "{name}");
    }
    let (shape, negatives) = &own["negative_text"];
    let (_, text) = &own["text"];
    let dim = text.len() / CLASSES.len();
    assert_eq!(shape[..], [NEGATIVES, CLASSES.len(), dim]);
    let (_, contexts) = &own["negative_context"];
    assert_eq!(contexts.len(), NEGATIVES * own["context"].1.len());
    for row in negatives.chunks_exact(dim) {
        let length: f32 = row.iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }

    let mut features = BTreeMap::new();
    for path in files(&world.path("store/features")) {
        if path.contains("/global/") && path.ends_with(".parquet") {
            let part =
                read_global(table(&world, &format!("store/features/{path}")), &path).unwrap();
            for (row, feature) in part.values.chunks_exact(part.dim).enumerate() {
                if part.views[row] == -1 {
                    features.insert(part.keys[row].clone(), feature.to_vec());
                }
            }
        }
    }
    let mut seen = 0;
    for (part, scores) in scores(&world, "run") {
        let column = |name: &str| {
            let found = scores.detectors.iter().find(|d| d.detector == name);
            found.unwrap().values.clone()
        };
        if !part.starts_with(&format!("prompt={OWN}/")) {
            assert_eq!(column("negprompt"), None, "{part}");
            continue;
        }
        let (negprompt, neglabel) = (column("negprompt").unwrap(), column("neglabel").unwrap());
        for (i, row) in scores.rows.iter().enumerate() {
            let f = &features[&row.image_key];
            let (inside, outside) = (products(text, f), products(negatives, f));
            let sum = |scale: f64, cosines: &[f64]| -> f64 {
                cosines
                    .iter()
                    .map(|c| (scale * (c - inside[0])).exp())
                    .sum()
            };
            let largest = inside.iter().copied().fold(f64::MIN, f64::max);
            let share = (largest - inside[0]).exp() / (sum(1.0, &inside) + sum(1.0, &outside));
            assert!((f64::from(negprompt[i]) - share).abs() < 1e-5, "{row:?}");
            let mass = sum(100.0, &inside) / (sum(100.0, &inside) + sum(100.0, &outside));
            assert!((f64::from(neglabel[i]) - mass).abs() < 1e-3, "{row:?}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn coops_prompt_is_made_where_it_is_missing_and_found_again() {
    let world = world("[\"negprompt\"]", "[\"negprompt\"]", "");
    succeeds(&world.run("run", &[]));
    let sets = prompt_sets(&world);
    assert_eq!(sets.len(), 2);
    assert!(sets.iter().all(|set| set.contains_key("context")));
    // Needed by this run, although no prompt set of it has its name.
    let kept = world.clipood(&["gc", "run", "--delete"]).output().unwrap();
    succeeds(&kept);
    let before = files(&world.path("store/prompts"));
    // A second number of negatives trains on the same positive prompts.
    let text = std::fs::read_to_string(world.path("recipe.toml")).unwrap();
    let text = text.replace(&format!("negatives = {NEGATIVES}"), "negatives = 1");
    world.write("recipe.toml", text);
    succeeds(&world.run("other", &[]));
    assert_eq!(prompt_sets(&world).len(), 3);
    for path in before {
        assert!(
            world.path(&format!("store/prompts/{path}")).exists(),
            "{path}"
        );
    }
}

#[test]
fn two_workers_train_coops_prompt_once() {
    let world = world("[\"coop\", \"negprompt\"]", "[\"mcm\", \"negprompt\"]", "");
    let planned = world
        .clipood(&["plan", "recipe.toml", "--manifests", "manifests"])
        .args(["--run", "run", "--store", "store"])
        .output()
        .unwrap();
    succeeds(&planned);
    let start = |index: &str| {
        world
            .clipood(&["worker", "run", "--store", "store", "--count", "2"])
            .args(["--index", index])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let workers = [start("0"), start("1")];
    let mut said = String::new();
    for worker in workers {
        let output = worker.wait_with_output().unwrap();
        succeeds(&output);
        said += &stderr(&output);
    }
    assert_eq!(said.matches("coop-2shot-seed1: loss").count(), 1, "{said}");
    assert_eq!(said.matches(&format!("{OWN}: loss")).count(), 1, "{said}");
}

#[test]
fn what_no_method_has_is_refused() {
    let world = world("[\"zero-shot\"]", "[\"negprompt\"]", "");
    let words = ["`zero-shot`", "no learned negative prompts", "`mcm`"];
    refused(&world, "run", &[], 2, &words);
    assert!(!world.path("run").exists());
}
