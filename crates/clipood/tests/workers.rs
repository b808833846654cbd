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

#[test]
fn an_indexed_job_and_an_array_give_workers_their_place() {
    let world = World::new();
    // Long enough that a worker is stopped before its end.
    world.write(
        "recipe.toml",
        common::RECIPE.replace("epochs = 3", "epochs = 150"),
    );
    let alone = world.run("alone", &["--store", "store-a"]);
    assert!(alone.status.success(), "{}", stderr(&alone));
    plan(&world, "run", "store-b");
    let place = |words: &[&str], variables: &[(&str, &str)]| {
        let mut command = world.clipood(&["worker", "run", "--store", "store-b"]);
        command.args(words).envs(variables.iter().copied());
        command
    };
    let refused = place(&[], &[("JOB_COMPLETION_INDEX", "1")])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("--count"), "{}", stderr(&refused));
    let array = [
        ("SLURM_ARRAY_TASK_ID", "2"),
        ("SLURM_ARRAY_TASK_COUNT", "2"),
    ];
    let refused = place(&[], &array).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        stderr(&refused).contains("SLURM_ARRAY_TASK_ID"),
        "{}",
        stderr(&refused)
    );

    // A pod is asked to stop and ends with 3; the one in its place goes on. The last job waits for both.
    let report = place(&["--stages", "aggregate,report", "--wait"], &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stages = [
        "--stages",
        "extract,negative,train,fit,score,stream",
        "--count",
        "2",
    ];
    let start = |index: &str| {
        place(&stages, &[("JOB_COMPLETION_INDEX", index)])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let (other, stopped) = (start("0"), start("1"));
    wait_for(&world, "store-b/features", ".parquet");
    let pid = stopped.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", "TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let stopped = stopped.wait_with_output().unwrap();
    assert_eq!(stopped.status.code(), Some(3), "{}", stderr(&stopped));
    assert!(stderr(&stopped).contains("worker 1 of 2 (JOB_COMPLETION_INDEX)"));
    for worker in [start("1"), other] {
        let done = worker.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", stderr(&done));
        // One that looks again after the report has been written prints the account of the run.
        let text = stdout(&done);
        assert!(
            text.contains("done: extract") || text.contains("+ 0 quarantined"),
            "{text}"
        );
    }
    let report = report.wait_with_output().unwrap();
    let log = stderr(&report);
    assert!(report.status.success(), "{log}");
    assert!(
        log.contains("score waiting for") && log.contains("units of this stage"),
        "{log}"
    );
    assert_same_tables(&world, "alone", "run");
}

/// Waits until a file with this ending is below `folder`.
fn wait_for(world: &World, folder: &str, ending: &str) {
    let start = std::time::Instant::now();
    let folder = world.path(folder);
    while !folder.exists() || !files(&folder).iter().any(|file| file.ends_with(ending)) {
        assert!(
            start.elapsed().as_secs() < 120,
            "nothing in {}",
            folder.display()
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn two_signals_of_one_request_are_one_and_a_worker_ends_in_order() {
    let world = World::new();
    let recipe = common::RECIPE.replace("epochs = 3", "epochs = 2000");
    world.write("recipe.toml", recipe);
    plan(&world, "run", "store");
    let training = worker(&world, "run", "store", 0, 1)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&world, "store/prompts", "checkpoint.safetensors");
    let pid = training.id().to_string();
    // A job's script passes on what Slurm also sends to the process.
    for signal in ["USR1", "TERM"] {
        assert!(
            Command::new("kill")
                .args(["-s", signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }
    let ended = training.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(3), "{}", stderr(&ended));
    // The second one would have ended it before it could say so.
    assert!(
        stderr(&ended).contains("error: interrupted"),
        "{}",
        stderr(&ended)
    );
}

#[test]
fn workers_of_another_version_or_run_are_refused() {
    let world = World::new();
    plan(&world, "run", "store");
    let path = world.path("run/run.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut command = worker(&world, "run", "store", 0, 1);
    let other = command
        .args(["--fingerprint", &"0".repeat(64)])
        .output()
        .unwrap();
    assert_eq!(other.status.code(), Some(2));
    let log = stderr(&other);
    assert!(
        log.contains("another recipe") && log.contains(&"0".repeat(64)),
        "{log}"
    );

    let older = text.replace(
        &format!("\"clipood\": \"{}\"", env!("CARGO_PKG_VERSION")),
        "\"clipood\": \"0.0.9\"",
    );
    assert_ne!(older, text);
    std::fs::write(&path, common::unsealed(&older)).unwrap();
    let refused = worker(&world, "run", "store", 0, 1).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let log = stderr(&refused);
    assert!(
        log.contains("clipood 0.0.9") && log.contains(env!("CARGO_PKG_VERSION")),
        "{log}"
    );
    // A single process decides for itself.
    let run = world.run("run", &["--store", "store"]);
    assert!(run.status.success(), "{}", stderr(&run));
}

#[test]
fn stages_without_a_model_need_no_device_of_the_run() {
    let world = World::new();
    let planned = world
        .clipood(&[
            "plan",
            "recipe.toml",
            "--manifests",
            "manifests",
            "--run",
            "run",
            "--store",
            "store",
        ])
        .args(["--devices", "sim:5000"])
        .output()
        .unwrap();
    assert!(planned.status.success(), "{}", stderr(&planned));
    let stages = |stages: &str, devices: &str| {
        let mut command = worker(&world, "run", "store", 0, 1);
        command
            .args(["--stages", stages, "--devices", devices])
            .output()
            .unwrap()
    };
    let other = stages("extract", "cpu");
    assert_eq!(
        other.status.code(),
        Some(2),
        "another backend computes other features"
    );
    assert!(
        stages("extract,negative,train", "sim:5000")
            .status
            .success()
    );
    let rest = stages("fit,score,stream,aggregate,report", "cpu");
    assert!(rest.status.success(), "{}", stderr(&rest));
}

#[test]
fn status_can_be_watched_until_the_end() {
    let world = World::new();
    plan(&world, "run", "store");
    let watch = world
        .clipood(&["status", "run", "--store", "store", "--watch=1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let done = worker(&world, "run", "store", 0, 1).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    let watch = watch.wait_with_output().unwrap();
    let text = stdout(&watch);
    assert!(watch.status.success(), "{}", stderr(&watch));
    assert!(
        text.contains(": not finished") && text.contains(": finished"),
        "{text}"
    );
    let json = world
        .clipood(&["status", "--store", "store", "--json", "--watch", "run"])
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["finished"], true);
}
