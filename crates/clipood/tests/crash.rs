//! The real command killed at random moments, alone and among other workers: what is finished in the end is what an
//! uninterrupted run makes. `CLIPOOD_TEST_KILLS` sets the number of kills of each test.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clipood_core::SplitMix64;
use common::tables::assert_same_tables;
use common::{World, stderr, stdout};

/// Kills of each test.
fn kills() -> usize {
    let wanted = std::env::var("CLIPOOD_TEST_KILLS").ok();
    wanted.map_or(6, |text| text.parse().unwrap())
}

/// The uninterrupted run, and how long it takes.
fn whole(world: &World) -> Duration {
    let began = Instant::now();
    let run = world.run("whole", &["--store", "store-whole"]);
    assert!(run.status.success(), "{}", stderr(&run));
    began.elapsed()
}

fn quiet(command: &mut Command) -> Child {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A random part of `whole`.
fn moment(rng: &mut SplitMix64, whole: Duration) -> Duration {
    whole.mul_f64(rng.unit())
}

fn audit(world: &World, run: &str, store: &str) {
    let words = ["status", run, "--audit", "--store", store];
    let audit = world.clipood(&words).output().unwrap();
    let text = stdout(&audit);
    assert!(audit.status.success(), "{text}{}", stderr(&audit));
}

#[test]
fn a_run_killed_at_random_moments_ends_as_an_uninterrupted_one() {
    let world = World::new();
    let duration = whole(&world);
    let mut rng = SplitMix64::keyed(1, "kills", 0);
    let (mut killed, mut stories) = (0, 0);
    while killed < kills() {
        let (run, store) = (format!("run-{stories}"), format!("store-{stories}"));
        let options = ["--store", store.as_str()];
        // The same command again and again, until it gets to its end or all kills are spent.
        while killed < kills() {
            let mut child = quiet(&mut world.command(&run, &options));
            std::thread::sleep(moment(&mut rng, duration));
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{run}: {status}");
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
        }
        let last = world.run(&run, &options);
        assert!(last.status.success(), "{run}: {}", stderr(&last));
        assert_same_tables(&world, "whole", &run);
        audit(&world, &run, &store);
        stories += 1;
    }
    println!("{killed} kills of {stories} runs survived");
}

#[test]
fn workers_killed_at_random_moments_end_as_a_run_alone() {
    let world = World::new();
    let duration = whole(&world);
    let mut rng = SplitMix64::keyed(2, "kills", 0);
    let (mut killed, mut stories, mut buried) = (0, 0, 0);
    while killed < kills() {
        let (run, store) = (format!("run-{stories}"), format!("store-{stories}"));
        let count = 2 + stories % 3;
        // In every other story the dead stay dead as long as somebody lives, who does their work, trainings too.
        let stay_dead = stories % 2 == 1;
        let planned = world
            .clipood(&["plan", "recipe.toml", "--manifests", "manifests"])
            .args(["--run", &run, "--store", &store])
            .output()
            .unwrap();
        assert!(planned.status.success(), "{}", stderr(&planned));
        let start = |index: usize| {
            let words = ["worker", run.as_str(), "--store", store.as_str()];
            let mut command = world.clipood(&words);
            command.args(["--index", &index.to_string()]);
            if stay_dead {
                command.arg("--backup-training");
            }
            quiet(command.args(["--count", &count.to_string()]))
        };
        let mut workers: Vec<Child> = (0..count).map(start).collect();
        let mut dead = BTreeSet::new();
        while killed < kills() {
            std::thread::sleep(moment(&mut rng, duration).div_f64(2.0));
            let mut working = Vec::new();
            for (index, worker) in workers.iter_mut().enumerate() {
                if dead.contains(&index) {
                    continue;
                }
                match worker.try_wait().unwrap() {
                    Some(status) => assert!(status.success(), "{run}, worker {index}: {status}"),
                    None => working.push(index),
                }
            }
            if working.is_empty() {
                break;
            }
            let index = working[rng.below(working.len() as u64) as usize];
            workers[index].kill().unwrap();
            workers[index].wait().unwrap();
            killed += 1;
            if stay_dead && working.len() > 1 {
                dead.insert(index);
            } else {
                // What restarts dead workers is not the command's concern.
                workers[index] = start(index);
            }
        }
        buried += dead.len();
        for (index, worker) in workers.iter_mut().enumerate() {
            if dead.contains(&index) {
                continue;
            }
            let status = worker.wait().unwrap();
            assert!(status.success(), "{run}, worker {index}: {status}");
        }
        assert_same_tables(&world, "whole", &run);
        audit(&world, &run, &store);
        stories += 1;
    }
    println!(
        "{killed} kills of workers in {stories} runs survived, {buried} of them without a restart"
    );
}

/// Eight workers over all stages, with a grid of prompts: every method, two shots, two seeds, and detectors that are fitted.
const GRID: [(&str, &str); 4] = [
    (
        "methods = [\"zero-shot\", \"locoop\"]",
        "methods = [\"zero-shot\", \"coop\", \"locoop\", \"sct\"]",
    ),
    ("shots = [2]", "shots = [1, 2]"),
    ("seeds = [1]", "seeds = [1, 2]"),
    (
        "[\"mcm\", \"gl_mcm\"]",
        "[\"mcm\", \"gl_mcm\", \"knn:k=1\", \"msp\"]",
    ),
];

#[test]
fn eight_workers_killed_over_all_stages_with_a_grid_of_prompts() {
    let world = World::new();
    let mut recipe = common::RECIPE.to_string();
    for (from, to) in GRID {
        assert!(recipe.contains(from), "{from}");
        recipe = recipe.replace(from, to);
    }
    world.write("recipe.toml", recipe);
    let duration = whole(&world);
    let planned = world
        .clipood(&["plan", "recipe.toml", "--manifests", "manifests"])
        .args(["--run", "eight", "--store", "store-eight"])
        .output()
        .unwrap();
    assert!(planned.status.success(), "{}", stderr(&planned));
    let start = |index: usize| {
        let mut command = world.clipood(&["worker", "eight", "--store", "store-eight"]);
        quiet(command.args(["--count", "8", "--index", &index.to_string()]))
    };
    let mut rng = SplitMix64::keyed(3, "kills", 0);
    let mut workers: Vec<Child> = (0..8).map(start).collect();
    let (wanted, mut killed, mut stages) = (2 * kills(), 0, BTreeSet::new());
    while killed < wanted {
        // The last stages are over soon, so the kills come faster than one run takes.
        std::thread::sleep(moment(&mut rng, duration).div_f64(4.0));
        let mut working = Vec::new();
        for (index, worker) in workers.iter_mut().enumerate() {
            match worker.try_wait().unwrap() {
                Some(status) => assert!(status.success(), "worker {index}: {status}"),
                None => working.push(index),
            }
        }
        if working.is_empty() {
            break;
        }
        let index = working[rng.below(working.len() as u64) as usize];
        stages.extend(open_stages(&world));
        workers[index].kill().unwrap();
        workers[index].wait().unwrap();
        killed += 1;
        workers[index] = start(index);
    }
    for (index, worker) in workers.iter_mut().enumerate() {
        let status = worker.wait().unwrap();
        assert!(status.success(), "worker {index}: {status}");
    }
    assert_same_tables(&world, "whole", "eight");
    audit(&world, "eight", "store-eight");
    println!(
        "{killed} kills of eight workers survived, while the first open stages were {stages:?}"
    );
}

/// The first stage that has open units, as `clipood status` sees it.
fn open_stages(world: &World) -> Option<String> {
    let words = ["status", "eight", "--store", "store-eight", "--json"];
    let output = world.clipood(&words).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let mut stages = status["stages"].as_array()?.iter();
    let open = stages.find(|stage| stage["done"] != stage["units"])?;
    Some(open["stage"].as_str()?.to_string())
}
