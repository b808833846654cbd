//! `clipood run` on real files: from images to tables, resumed, and with everything that users get wrong.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use clipood_pipeline::tables::{OodRow, read_accuracy, read_ood};
use common::tables::{assert_same_scores, scores, table};
use common::{CLASSES, OOD, RECIPE, TEST, World, files, stderr, stdout};

fn ood_rows(world: &World, run: &str) -> Vec<OodRow> {
    read_ood(table(world, &format!("{run}/metrics/ood.parquet")), "ood").unwrap()
}

#[test]
fn images_to_tables_and_a_second_run_without_work() {
    let world = World::new();
    let first = world.run("run", &[]);
    assert!(first.status.success(), "{}", stderr(&first));
    let text = stdout(&first);
    for method in ["zero-shot ", "locoop "] {
        let rows = text.lines().filter(|line| line.starts_with(method));
        assert_eq!(rows.count(), 1, "{method}: {text}");
    }
    assert!(text.contains("averages over 2 OOD sets"), "{text}");
    let planned = CLASSES.len() * TEST + 2 * OOD;
    assert!(
        text.contains(&format!(
            "{planned} planned = {planned} scored + 0 quarantined"
        )),
        "{text}"
    );

    let rows = ood_rows(&world, "run");
    // 2 prompt sets, 2 detectors, 2 OOD sets and their average.
    assert_eq!(rows.len(), 2 * 2 * 3);
    for row in &rows {
        assert!((0.0..=1.0).contains(&row.auroc), "{row:?}");
        assert_eq!(row.n_id as usize, CLASSES.len() * TEST);
        assert_eq!(row.selection, "fixed");
        assert_eq!(
            row.views,
            if row.method == "locoop" {
                Some(2)
            } else {
                None
            }
        );
    }
    let accuracy =
        read_accuracy(table(&world, "run/metrics/accuracy.parquet"), "accuracy").unwrap();
    assert_eq!(accuracy.len(), 2);

    let parts = scores(&world, "run");
    let scored: usize = parts.iter().map(|(_, s)| s.rows.len()).sum();
    assert_eq!(scored, 2 * planned);
    // AUROC from the score tables by its definition.
    let values = |dataset: &str| -> Vec<f32> {
        let own = parts
            .iter()
            .filter(|(part, _)| part.starts_with(&format!("prompt=zero-shot/dataset={dataset}/")));
        own.flat_map(|(_, s)| s.detectors[0].values.clone().unwrap())
            .collect()
    };
    let (id, ood) = (values("id"), values("textures"));
    let wins: f64 = id
        .iter()
        .flat_map(|a| {
            ood.iter().map(move |b| match a.total_cmp(b) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            })
        })
        .sum();
    let auroc = wins / (id.len() * ood.len()) as f64;
    let row = rows.iter().find(|r| {
        (
            r.prompt.as_str(),
            r.detector.as_str(),
            r.ood_dataset.as_str(),
        ) == ("zero-shot", "mcm", "textures")
    });
    assert!((row.unwrap().auroc - auroc).abs() < 1e-12);
    assert!(world.path("run/report/index.html").exists());

    let before = files(&world.path("."));
    let second = world.run("run", &[]);
    assert!(second.status.success(), "{}", stderr(&second));
    assert_eq!(stderr(&second), "", "the second run did work");
    assert_eq!(stdout(&second), text);
    assert_eq!(files(&world.path(".")), before);
}

#[test]
fn progress_for_machines_is_json_by_the_line() {
    let world = World::new();
    let run = world.run("run", &["--json-log"]);
    let log = stderr(&run);
    assert!(run.status.success(), "{log}");
    let mut stages = Vec::new();
    for line in log.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        if object["done"].is_u64() && object["rate"].is_number() {
            stages.push(object["stage"].as_str().unwrap().to_string());
        }
    }
    for stage in ["plan", "extract", "train", "score", "aggregate"] {
        assert!(stages.iter().any(|s| s == stage), "no {stage} in {log}");
    }
}

#[test]
fn with_a_json_log_errors_are_json_too() {
    let world = World::new();
    let run = world.run("run", &["--json-log", "--data", "nowhere"]);
    assert_eq!(run.status.code(), Some(2));
    let log = stderr(&run);
    let mut objects = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let last = objects.next_back().unwrap();
    assert!(last["error"].as_str().unwrap().contains("nowhere"), "{log}");

    let plain = world.run("run", &["--data", "nowhere"]);
    assert!(stderr(&plain).contains("error: "), "{}", stderr(&plain));
}

#[test]
fn recipes_are_found_in_any_folder_and_a_file_comes_first() {
    let world = World::new();
    let listed = |words: &[&str]| {
        let output = world
            .clipood(&[&["recipes"][..], words].concat())
            .output()
            .unwrap();
        (output.status.code(), stdout(&output), stderr(&output))
    };
    let (code, table, _) = listed(&[]);
    assert_eq!(code, Some(0));
    for name in ["demo", "few-shot-grid", "imagenet-mos", "stamps"] {
        let line = table
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        assert!(
            line.is_some_and(|line| line.contains("built in")),
            "{name}: {table}"
        );
    }
    let (_, embedded, _) = listed(&["--show", "demo"]);
    assert!(embedded.contains("name = \"demo\""), "{embedded}");

    let own = RECIPE.replace("[engine]", "# Our own.\n[engine]");
    world.write("pipelines/demo.toml", &own);
    assert_eq!(listed(&["--show", "demo"]).1, own);
    let (_, json, _) = listed(&["--json"]);
    let all: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    let demo = all.iter().find(|recipe| recipe["name"] == "demo").unwrap();
    assert_eq!(demo["file"], "pipelines/demo.toml");
    let run = world
        .clipood(&["run", "demo", "--manifests", "manifests", "--run", "own"])
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", stderr(&run));

    let (code, _, errors) = listed(&["--show", "dmeo"]);
    assert_eq!(code, Some(2));
    assert!(errors.contains("did you mean `demo`?"), "{errors}");
    let run = world.clipood(&["run", "few-shot-gird"]).output().unwrap();
    assert_eq!(run.status.code(), Some(2));
    assert!(stderr(&run).contains("`few-shot-grid`"), "{}", stderr(&run));
}

#[test]
fn another_run_takes_features_and_prompts_from_the_store() {
    let world = World::new();
    assert!(world.run("one", &[]).status.success());
    let again = world.run("two", &["--detectors", "msp"]);
    let log = stderr(&again);
    assert!(again.status.success(), "{log}");
    assert!(
        log.contains("score") && !log.contains("extract") && !log.contains("train"),
        "{log}"
    );
    // More shots: only the new training images are encoded.
    let more = world.run("three", &["--shots", "1,2,3"]);
    let log = stderr(&more);
    assert!(more.status.success(), "{log}");
    assert!(log.contains("extract") && log.contains("train"), "{log}");
}

#[test]
fn only_what_depends_on_a_change_is_done_again() {
    let world = World::new();
    assert!(world.run("one", &[]).status.success());
    // Neither batch nor workers are part of what makes a result.
    for run in ["one", "two"] {
        let again = world.run(run, &["--batch", "5", "--devices", "cpu:1"]);
        let log = stderr(&again);
        assert!(again.status.success(), "{log}");
        assert!(!log.contains("extract") && !log.contains("train"), "{log}");
    }
    // Another name of a class: other texts, and the same images.
    let manifest = std::fs::read_to_string(world.path("manifests/id.toml")).unwrap();
    world.write(
        "manifests/id.toml",
        manifest + "[class_names]\nfish = \"goldfish\"\n",
    );
    let renamed = world.run("three", &[]);
    let log = stderr(&renamed);
    assert!(renamed.status.success(), "{log}");
    assert!(!log.contains("extract"), "{log}");
    for stage in ["train", "score", "aggregate"] {
        assert!(log.contains(stage), "no {stage}: {log}");
    }
}

/// Starts a long training, sends `signals` once it is under way, and returns how it ended.
#[cfg(unix)]
fn stopped_by(world: &World, run: &str, signals: &[&str]) -> (Option<i32>, String) {
    let mut child = world
        .command(run, &["--store", "store"])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let records = world.path(&format!("{run}/_run/log"));
    while !records.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    for signal in signals {
        let sent = std::process::Command::new("kill")
            .args([*signal, &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    let end = child.wait_with_output().unwrap();
    (end.status.code(), stderr(&end))
}

/// Whether these tests run under `nohup`, which what they start inherits.
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 1)
}

#[cfg(unix)]
#[test]
fn every_signal_that_asks_to_stop_is_heard_and_the_second_stops_at_once() {
    let world = World::new();
    world.write("recipe.toml", RECIPE.replace("epochs = 3", "epochs = 4000"));
    let all = [
        &["-INT"][..],
        &["-TERM"],
        &["-USR1"],
        &["-HUP"],
        &["-INT", "-USR1"],
        &["-TERM", "-TERM"],
    ];
    for (number, signals) in all.into_iter().enumerate() {
        // A run directory of its own: its first journal says that the signals are listened to.
        let (code, log) = stopped_by(&world, &format!("run-{number}"), signals);
        if signals == ["-HUP"] && hangups_are_ignored() {
            assert_eq!(code, Some(0), "{signals:?}: {log}");
            continue;
        }
        assert_eq!(code, Some(3), "{signals:?}: {log}");
        assert!(log.contains("stopping after the work in hand"), "{log}");
    }
    let words = ["status", "run-0", "--store", "store"];
    let status = world.clipood(&words).output().unwrap();
    assert!(status.status.success(), "{}", stderr(&status));
    assert!(
        stdout(&status).contains("not finished"),
        "{}",
        stdout(&status)
    );
}

#[cfg(target_os = "linux")]
#[test]
fn nohup_keeps_a_run_alive() {
    let world = World::new();
    let mut child = std::process::Command::new("nohup")
        .arg(env!("CARGO_BIN_EXE_clipood"))
        .current_dir(world.path(""))
        .args(["run", "recipe.toml", "--manifests", "manifests"])
        .args(["--run", "run", "--store", "store"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    while !world.path("run/_run").exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let sent = std::process::Command::new("kill")
        .args(["-HUP", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let end = child.wait_with_output().unwrap();
    assert!(end.status.success(), "{}", stderr(&end));
    assert!(!stderr(&end).contains("stopping"), "{}", stderr(&end));
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_scores() {
    let world = World::new();
    world.write("recipe.toml", RECIPE.replace("epochs = 3", "epochs = 40"));
    let whole = world.run("whole", &["--store", "store-a"]);
    assert!(whole.status.success(), "{}", stderr(&whole));
    let mut interrupted = 0;
    // Longer and longer, until a run gets to its end.
    for attempt in 1..60 {
        let mut child = world
            .command("broken", &["--store", "store-b"])
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(120 * attempt));
        // Every other time the hard way.
        let signal = if attempt % 2 == 0 { "-KILL" } else { "-INT" };
        let _ = std::process::Command::new("kill")
            .args([signal, &child.id().to_string()])
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        let status = child.wait().unwrap();
        if status.success() {
            break;
        }
        interrupted += 1;
        assert!(
            status.code().is_none_or(|code| code == 3),
            "exit code {status:?}"
        );
    }
    assert!(interrupted > 0, "no attempt was interrupted");
    let last = world.run("broken", &["--store", "store-b"]);
    assert!(last.status.success(), "{}", stderr(&last));
    assert_same_scores(&scores(&world, "whole"), &scores(&world, "broken"));
}

#[test]
fn an_unreadable_image_is_named_and_the_rest_is_scored() {
    let world = World::new();
    world.write("data/id/test/star/00.png", b"not a picture");
    let whole = std::fs::read(world.path("data/scenes/any/01.png")).unwrap();
    world.write("data/scenes/any/01.png", &whole[..whole.len() / 2]);
    let recipe = RECIPE.replace("[engine]", "[engine]\nmax_quarantine_fraction = 0.0");
    world.write("recipe.toml", recipe);
    let strict = world.run("strict", &[]);
    assert_eq!(strict.status.code(), Some(1));
    let log = stderr(&strict);
    assert!(log.contains("star/00.png") && log.contains("1 of"), "{log}");

    let recipe = RECIPE.replace("[engine]", "[engine]\nmax_quarantine_fraction = 0.2");
    world.write("recipe.toml", recipe);
    let run = world.run("run", &[]);
    assert!(run.status.success(), "{}", stderr(&run));
    let planned = CLASSES.len() * TEST + 2 * OOD;
    let text = stdout(&run);
    assert!(
        text.contains(&format!(
            "{planned} planned = {} scored + 2 quarantined",
            planned - 2
        )),
        "{text}"
    );
    assert!(world.path("run/_run/quarantine/extract.parquet").exists());
    let row = &ood_rows(&world, "run")[0];
    assert_eq!(
        (row.n_id as usize, row.n_excluded),
        (CLASSES.len() * TEST - 1, 2)
    );
}

/// Text of the recipe to replace and its replacement, arguments, exit code, words of the error.
type Mistake<'a> = (&'a str, &'a str, &'a [&'a str], i32, &'a [&'a str]);

#[test]
fn mistakes_are_named_and_lose_nothing() {
    let world = World::new();
    assert!(world.run("run", &[]).status.success());
    let before = files(&world.path("run"));
    let cases: [Mistake<'_>; 11] = [
        (
            "detectors =",
            "detektors =",
            &[],
            2,
            &["recipe.toml:", "detektors", "`detectors`"],
        ),
        ("", "", &["--methods", "cop"], 2, &["`cop`", "`coop`"]),
        ("", "", &["--detectors", "mmc"], 2, &["mmc", "mcm"]),
        ("", "", &["--shots", "5"], 2, &["fish", "4", "5"]),
        (
            "ood = [\"scenes\"",
            "ood = [\"scens\"",
            &[],
            2,
            &["scens", "`scenes`"],
        ),
        ("", "", &["--data", "nowhere"], 2, &["nowhere"]),
        ("", "", &["--model", "no-such-model"], 2, &["no-such-model"]),
        ("", "", &["--devices", "cuda:0"], 2, &["cuda:0", "cpu"]),
        ("", "", &["--devices", "cpu:0"], 2, &["cpu:0", "cuda:all"]),
        (
            "",
            "",
            &["--devices", "cpu", "--dtype", "bf16"],
            2,
            &["bf16", "f32"],
        ),
        ("", "", &["--dtype", "f64"], 2, &["f64", "bf16"]),
    ];
    for (i, (from, to, arguments, code, words)) in cases.into_iter().enumerate() {
        world.write("recipe.toml", RECIPE.replace(from, to));
        let run = world.run(&format!("other-{i}"), arguments);
        let log = stderr(&run);
        assert_eq!(run.status.code(), Some(code), "{arguments:?}: {log}");
        for word in words {
            assert!(log.contains(word), "{arguments:?}: no `{word}` in: {log}");
        }
        assert!(!log.contains("panicked"), "{log}");
    }
    // Another configuration in the same directory is refused, with the field that differs.
    world.write("recipe.toml", RECIPE);
    let other = world.run("run", &["--seeds", "2"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("seeds"), "{}", stderr(&other));
    // A run directory that cannot be made.
    world.write("file", "");
    let inside = world.run("file/run", &[]);
    assert_eq!(inside.status.code(), Some(1));
    assert!(stderr(&inside).contains("file"), "{}", stderr(&inside));
    assert_eq!(files(&world.path("run")), before);
}
