//! One flipped bit in every kind of file of a run and its store, finished or half done: the same command names the file
//! and makes it again with equal tables, or refuses; it never ends with other tables. `CLIPOOD_TEST_FLIPS` sets the number
//! of flips of each kind; `make test-rot` prints what became of them.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use clipood_core::SplitMix64;
use common::tables::assert_same_tables;
use common::{RECIPE, World, files, stderr, stdout};

/// Flips of each kind.
fn flips() -> usize {
    let wanted = std::env::var("CLIPOOD_TEST_FLIPS").ok();
    wanted.map_or(1, |text| text.parse().unwrap())
}

/// The stages after which a run is left, in their order; `report` is a finished run.
const STATES: [&str; 6] = ["extract", "train", "fit", "score", "aggregate", "report"];

/// A kind of file.
struct Kind {
    name: &'static str,
    /// What its path contains, relative to the folder with run and store; one of these.
    contains: &'static [&'static str],
    /// What its path does not contain.
    lacks: &'static str,
    /// Whether nothing of it ever reaches a table: the command may overlook it, and so may the audit.
    idle: bool,
}

const fn kind(name: &'static str, contains: &'static [&'static str]) -> Kind {
    Kind {
        name,
        contains,
        lacks: "\n",
        idle: false,
    }
}

const KINDS: [Kind; 24] = [
    kind("run.json", &["run/run.json"]),
    kind("class list", &["run/_run/classes.json"]),
    kind("plan part", &["run/images/"]),
    kind("plan record", &["run/_run/commits/plan/"]),
    kind("plan part record", &["run/_run/commits/images/"]),
    kind("features", &["store/features/", "/global/part-"]),
    kind("patch features", &["store/features/", "/local/part-"]),
    kind("feature record", &["store/features/", "/_commits/commits/"]),
    kind("prompt set", &["store/prompts/", "/prompt.safetensors"]),
    kind("prompt record", &["store/prompts/_commits/commits/train/"]),
    kind(
        "negative record",
        &["store/prompts/_commits/commits/negative/"],
    ),
    kind("checkpoint", &["store/prompts/", "checkpoint.safetensors"]),
    kind("training log", &["store/prompts/", "train_log.parquet"]),
    kind("fitted detector", &["run/_run/fitted/"]),
    kind("fit record", &["run/_run/commits/fit/"]),
    kind("scores", &["run/scores/"]),
    kind("score record", &["run/_run/commits/score/"]),
    kind("shard record", &["run/_run/commits/shards/"]),
    kind("metrics", &["run/metrics/"]),
    kind("metric record", &["run/_run/commits/aggregate/"]),
    kind("finish record", &["run/_run/commits/finish/"]),
    kind("quarantine", &["run/_run/quarantine/"]),
    Kind {
        idle: true,
        lacks: "_run/commits/",
        ..kind("report page", &["run/report/"])
    },
    Kind {
        idle: true,
        ..kind("worker status", &["run/_run/log/"])
    },
];

impl Kind {
    fn has(&self, path: &str) -> bool {
        self.contains.iter().all(|piece| path.contains(piece)) && !path.contains(self.lacks)
    }
}

/// Every kind of file: fitted detectors, texts of no class, a training, an image in quarantine.
fn world() -> World {
    let world = World::new();
    let recipe = RECIPE
        .replace("\"gl_mcm\"]", "\"gl_mcm\", \"neglabel\", \"knn:k=2\"]")
        .replace(
            "[engine]",
            "[engine]\nmax_quarantine_fraction = 0.5\ncheckpoint_steps = 1",
        );
    world.write(
        "recipe.toml",
        format!("{recipe}\n[negative_labels]\nkeep = 0.5\n[[negative_labels.lists]]\nwords = \"things\"\n"),
    );
    world.write("words/things.txt", "swan\nkettle\nice_cream\nmud\n");
    world.write("data/scenes/any/99.png", "no picture");
    world
}

fn run(world: &World, folder: &str) -> Output {
    let store = format!("{folder}/store");
    world.run(&format!("{folder}/run"), &["--store", &store])
}

fn look(world: &World, folder: &str, words: &[&str]) -> Output {
    let (run, store) = (format!("{folder}/run"), format!("{folder}/store"));
    let mut command = world.clipood(&[words[0], &run]);
    command.args(&words[1..]);
    if words[0] != "report" {
        command.args(["--store", &store]);
    }
    command.output().unwrap()
}

/// The report without the name of the run directory.
fn report(world: &World, folder: &str) -> Output {
    look(world, folder, &["report"])
}

fn report_text(output: &Output, folder: &str) -> String {
    stdout(output).replace(folder, "")
}

/// A folder for each of the states, with a run that was left there and its store.
fn leave(world: &World) {
    let stages = "plan,extract,negative,train,fit,score,aggregate,report";
    for state in STATES {
        let (run, store) = (format!("{state}/run"), format!("{state}/store"));
        let planned = world
            .clipood(&["plan", "recipe.toml", "--manifests", "manifests"])
            .args(["--run", &run, "--store", &store])
            .output()
            .unwrap();
        assert!(planned.status.success(), "{}", stderr(&planned));
        let end = stages.find(state).unwrap() + state.len();
        let worked = look(world, state, &["worker", "--stages", &stages[..end]]);
        assert!(worked.status.success(), "{state}: {}", stderr(&worked));
        if state == "extract" {
            interrupt_training(world);
        }
    }
}

/// Leaves a checkpoint in the state before the trainings are done: the checkpoint of a finished training, without the
/// prompt set.
fn interrupt_training(world: &World) {
    let trained = look(world, "extract", &["worker", "--stages", "negative,train"]);
    assert!(trained.status.success(), "{}", stderr(&trained));
    let prompts = world.path("extract/store/prompts");
    for path in files(&prompts) {
        if path.contains("commits/train/") || path.ends_with("/prompt.safetensors") {
            let negative = files(&prompts.join("_commits/commits/negative"));
            let key = path.split('/').next().unwrap();
            if !negative
                .iter()
                .any(|name| key.starts_with(name.split('.').next().unwrap()))
            {
                std::fs::remove_file(prompts.join(path)).unwrap();
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(&file);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(from.join(&file), target).unwrap();
    }
}

/// Flips one bit of a file; returns the bit.
fn flip(path: &Path, rng: &mut SplitMix64) -> u64 {
    let mut bytes = std::fs::read(path).unwrap();
    let bit = rng.below(8 * bytes.len() as u64);
    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    std::fs::write(path, bytes).unwrap();
    bit
}

#[derive(Default)]
struct Count {
    flips: usize,
    healed: usize,
    refused: usize,
    /// The command did not need the file: equal tables, and the audit names it.
    audited: usize,
    /// The command wrote the file anew, or nothing reads it: equal tables.
    rewritten: usize,
}

#[test]
fn a_flipped_bit_is_named_and_mended_or_refused() {
    let world = world();
    leave(&world);
    let whole = run(&world, "whole");
    assert!(whole.status.success(), "{}", stderr(&whole));
    let reference = report_text(&report(&world, "whole"), "whole");
    let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
    let mut number = 0;
    for kind in &KINDS {
        let mut rng = SplitMix64::keyed(3, kind.name, 0);
        // The states that have such files.
        let states: Vec<(&str, Vec<String>)> = STATES
            .into_iter()
            .map(|state| {
                let mut paths = files(&world.path(state));
                paths.retain(|path| kind.has(path));
                (state, paths)
            })
            .filter(|(_, paths)| !paths.is_empty())
            .collect();
        assert!(!states.is_empty(), "no file is a {}", kind.name);
        for round in 0..flips() {
            // The state in which the file is read soonest, then any.
            let place = match round % 2 {
                0 => 0,
                _ => rng.below(states.len() as u64) as usize,
            };
            let (state, paths) = &states[place];
            let path = &paths[rng.below(paths.len() as u64) as usize];
            let folder = format!("copies/{number}");
            number += 1;
            copy(&world.path(state), &world.path(&folder));
            let file = world.path(&format!("{folder}/{path}"));
            let bit = flip(&file, &mut rng);
            let story = format!("{} after {state}: bit {bit} of {path}", kind.name);
            let damaged = std::fs::read(&file).unwrap();
            let count = counts.entry(kind.name).or_default();
            count.flips += 1;
            judge(&world, kind, &folder, &story, &reference, count);
            // What was there is kept, or still there.
            if !kind.idle {
                let kept = files(&world.path(&folder)).into_iter().any(|name| {
                    let path = world.path(&format!("{folder}/{name}"));
                    std::fs::read(path).unwrap() == damaged
                });
                let derived = ["quarantine", "training log"].contains(&kind.name);
                assert!(kept || derived, "{story}: the damaged file is gone");
            }
            std::fs::remove_dir_all(world.path(&folder)).unwrap();
        }
    }
    println!(
        "| kind of file | flips | named and made again | refused | not needed, named by the audit | written anew |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for kind in &KINDS {
        let c = &counts[kind.name];
        println!(
            "| {} | {} | {} | {} | {} | {} |",
            kind.name, c.flips, c.healed, c.refused, c.audited, c.rewritten
        );
    }
}

/// Runs the command again, and says what became of the file. Panics for other tables, and for damage that nobody names.
fn judge(
    world: &World,
    kind: &Kind,
    folder: &str,
    story: &str,
    reference: &str,
    count: &mut Count,
) {
    let before = report(world, folder);
    if before.status.success() {
        assert_eq!(report_text(&before, folder), reference, "{story}");
    }
    let again = run(world, folder);
    let said = stderr(&again);
    let named = said.contains(" is damaged");
    if !again.status.success() {
        assert!(named, "{story}: {said}");
        let audit = look(world, folder, &["status", "--audit"]);
        assert!(!audit.status.success(), "{story}: {}", stdout(&audit));
        count.refused += 1;
        return;
    }
    assert_same_tables(world, "whole/run", &format!("{folder}/run"));
    let after = report(world, folder);
    assert!(after.status.success(), "{story}: {}", stderr(&after));
    assert_eq!(report_text(&after, folder), reference, "{story}");
    let audit = look(world, folder, &["status", "--audit"]);
    let text = stdout(&audit) + &stderr(&audit);
    if named {
        assert!(audit.status.success(), "{story}: {text}");
        count.healed += 1;
    } else if audit.status.success() {
        // Reports, statuses and the quarantine are written again by every run that is not finished.
        assert!(
            kind.idle
                || ["quarantine", "training log", "checkpoint", "finish record"]
                    .contains(&kind.name),
            "{story}: nobody has named it: {said}{text}"
        );
        count.rewritten += 1;
    } else {
        assert!(text.contains(" is damaged"), "{story}: {text}");
        count.audited += 1;
    }
}

/// A worker that dies between a part and its record leaves a part without one, which must not be taken for whole if a bit
/// of it has changed since.
#[test]
fn a_damaged_part_without_a_record_is_not_adopted() {
    let world = world();
    leave(&world);
    let whole = run(&world, "whole");
    assert!(whole.status.success(), "{}", stderr(&whole));
    let cases: [(&str, &str, &str); 5] = [
        ("extract", "/global/part-", "commits/global/"),
        ("extract", "/local/part-", "commits/local/"),
        (
            "train",
            "/prompt.safetensors",
            "prompts/_commits/commits/train/",
        ),
        ("score", "run/scores/", "run/_run/commits/score/"),
        ("aggregate", "run/metrics/", "run/_run/commits/aggregate/"),
    ];
    let mut rng = SplitMix64::keyed(4, "orphans", 0);
    for (number, (state, part, records)) in cases.into_iter().cycle().take(5 * flips()).enumerate()
    {
        let folder = format!("orphans/{number}");
        copy(&world.path(state), &world.path(&folder));
        let all = files(&world.path(&folder));
        for record in all.iter().filter(|path| {
            path.contains(records)
                || path.contains("commits/shards/")
                || path.contains("commits/finish/")
        }) {
            std::fs::remove_file(world.path(&format!("{folder}/{record}"))).unwrap();
        }
        let parts: Vec<&String> = all.iter().filter(|path| path.contains(part)).collect();
        let path = parts[rng.below(parts.len() as u64) as usize];
        let bit = flip(&world.path(&format!("{folder}/{path}")), &mut rng);
        let story = format!("bit {bit} of {path} after {state}");
        let again = run(&world, &folder);
        assert!(again.status.success(), "{story}: {}", stderr(&again));
        assert!(
            stderr(&again).contains(" is damaged"),
            "{story}: {}",
            stderr(&again)
        );
        assert_same_tables(&world, "whole/run", &format!("{folder}/run"));
        let audit = look(&world, &folder, &["status", "--audit"]);
        assert!(audit.status.success(), "{story}: {}", stdout(&audit));
        std::fs::remove_dir_all(world.path(&folder)).unwrap();
    }
}
