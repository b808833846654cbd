//! `clipood submit` with stand-ins for the programs of a cluster; `make test-slurm` submits to a real Slurm.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use clipood_launch::GROUPS;
use clipood_pipeline::STAGES;
use common::{World, stderr, stdout, succeeds};

/// A cluster manifest that sees the folder of the test.
fn cluster(world: &World, engine: &str, more: &str) {
    let root = world.path("").display().to_string();
    let text = format!(
        "engine = \"{engine}\"\nworkers = 2\ncontainer = \"image\"\nshared = [\"{root}\"]\n{more}\n[resources]\n"
    );
    world.write("here.toml", text);
}

/// A folder `bin` with programs that note their words and their standard input.
fn programs(world: &World, programs: &[(&str, &str)]) {
    for (name, answer) in programs {
        let path = world.path(&format!("bin/{name}"));
        let noted = world.path(&format!("{name}.log")).display().to_string();
        let text = format!(
            "#!/bin/sh\nPATH=/usr/bin:/bin\n{{ echo \"$@\"; cat; }} >> {noted}\n{answer}\n"
        );
        world.write(&format!("bin/{name}"), text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn command(world: &World, words: &[&str]) -> Command {
    let mut command = world.clipood(&["submit", "recipe.toml", "--manifests", "manifests"]);
    command
        .args(["--cluster", "here.toml", "--run", "run", "--store", "store"])
        .args(words)
        // Programs of this machine are not found.
        .env("PATH", world.path("bin"));
    command
}

fn submit(world: &World, words: &[&str]) -> Output {
    command(world, words).output().unwrap()
}

#[test]
fn every_stage_is_in_one_job_that_has_devices_if_the_stage_needs_them() {
    let planned = STAGES.iter().filter(|stage| stage.name != "plan");
    let stages: Vec<&str> = planned.clone().map(|stage| stage.name).collect();
    let grouped: Vec<&str> = GROUPS
        .iter()
        .flat_map(|group| group.stages)
        .copied()
        .collect();
    assert_eq!(stages, grouped);
    for stage in planned {
        let group = GROUPS
            .iter()
            .find(|group| group.stages.contains(&stage.name));
        assert!(
            !stage.uses_devices || group.unwrap().uses_devices,
            "{}",
            stage.name
        );
    }
}

#[test]
fn a_dry_run_plans_and_prints_what_would_be_queued() {
    let world = World::new();
    cluster(&world, "slurm", "");
    let text = succeeds(&submit(&world, &["--dry-run"]));
    let root = world.path("run").display().to_string();
    for word in [
        "# sbatch extract.sh",
        "--dependency=afterok:<job of extract.sh> train.sh",
        "#SBATCH --array=0-1",
        "#SBATCH --kill-on-invalid-dep=yes",
        "apptainer exec image clipood worker",
        "--stages aggregate,report",
        &root,
    ] {
        assert!(text.contains(word), "no {word} in:\n{text}");
    }
    assert!(world.path("run/run.json").exists() && !world.path("run/_run/jobs").exists());

    // What is done needs no job any more, and the workers of the script are those of the run.
    let status = world
        .clipood(&["status", "run", "--store", "store", "--json"])
        .output()
        .unwrap();
    let status: serde_json::Value = serde_json::from_str(&succeeds(&status)).unwrap();
    let fingerprint = status["fingerprint"].as_str().unwrap();
    assert!(text.contains(&format!("--fingerprint {fingerprint}")));
    let words = [
        "worker",
        "run",
        "--store",
        "store",
        "--stages",
        "extract",
        "--fingerprint",
        fingerprint,
    ];
    succeeds(&world.clipood(&words).output().unwrap());
    let rest = succeeds(&submit(&world, &["--dry-run"]));
    assert!(
        !rest.contains("extract.sh") && rest.contains("# sbatch train.sh"),
        "{rest}"
    );
    succeeds(
        &world
            .clipood(&["worker", "run", "--store", "store"])
            .output()
            .unwrap(),
    );
    assert!(succeeds(&submit(&world, &["--dry-run"])).contains("nothing to submit"));
    let again = world.clipood(&words).output().unwrap();
    assert!(again.status.success(), "{}", stderr(&again));
}

#[test]
fn jobs_are_queued_in_order_recorded_and_not_queued_twice() {
    let world = World::new();
    cluster(&world, "slurm", "");
    programs(
        &world,
        &[
            ("sbatch", "wc -l < sbatch.log"),
            ("squeue", ""),
            ("scancel", ""),
        ],
    );
    let text = succeeds(&submit(&world, &[]));
    assert!(
        text.contains("submitted: extract ") && text.contains("--watch"),
        "{text}"
    );
    let log = std::fs::read_to_string(world.path("sbatch.log")).unwrap();
    assert_eq!(log.matches("--parsable").count(), 4, "{log}");
    assert_eq!(log.matches("--dependency=afterok:").count(), 3, "{log}");
    for file in [
        "1.json",
        "1/extract.sh",
        "1/train.sh",
        "1/score.sh",
        "1/report.sh",
    ] {
        assert!(
            world.path(&format!("run/_run/jobs/{file}")).exists(),
            "{file}"
        );
    }
    let status = world
        .clipood(&["status", "run", "--store", "store"])
        .output()
        .unwrap();
    let status = succeeds(&status);
    assert!(
        status.contains("submitted to slurm") && status.contains("extract "),
        "{status}"
    );

    // As long as the first job is in the queue, nothing is queued beside it.
    let json = std::fs::read_to_string(world.path("run/_run/jobs/1.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&json).unwrap();
    let id = record["jobs"][0]["id"].as_str().unwrap();
    programs(&world, &[("squeue", &format!("echo {id}"))]);
    let twice = submit(&world, &[]);
    assert_eq!(twice.status.code(), Some(2), "{}", stderr(&twice));
    assert!(
        stderr(&twice).contains(&format!("scancel {id}")),
        "{}",
        stderr(&twice)
    );
    programs(&world, &[("squeue", "")]);
    succeeds(&submit(&world, &[]));
    assert!(world.path("run/_run/jobs/2.json").exists());

    // Scripts and logs of jobs are no damage.
    world.write("run/_run/jobs/2/extract-1_0.log", "log");
    succeeds(&world.run("run", &["--store", "store"]));
    let audit = world
        .clipood(&["status", "run", "--store", "store", "--audit"])
        .output()
        .unwrap();
    assert!(
        succeeds(&audit).contains("audit holds"),
        "{}",
        stdout(&audit)
    );
}

#[test]
fn a_job_that_is_refused_takes_back_those_before_it() {
    let world = World::new();
    cluster(&world, "slurm", "");
    let third = "[ $(grep -c parsable sbatch.log) -lt 3 ] || { echo 'invalid partition' >&2; exit 1; }\necho 4$(grep -c parsable sbatch.log)";
    programs(
        &world,
        &[("sbatch", third), ("squeue", ""), ("scancel", "")],
    );
    let refused = submit(&world, &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("invalid partition"),
        "{}",
        stderr(&refused)
    );
    assert_eq!(
        std::fs::read_to_string(world.path("scancel.log"))
            .unwrap()
            .trim(),
        "41 42"
    );
    assert!(!world.path("run/_run/jobs/1.json").exists());
}

#[test]
fn mistakes_are_refused_before_anything_is_planned_or_queued() {
    let world = World::new();
    let refused = |words: &[&str], found: &[&str]| {
        let output = submit(&world, words);
        let log = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{log}");
        for word in found {
            assert!(log.contains(word), "no `{word}` in: {log}");
        }
        assert!(!world.path("run").exists(), "{log}");
    };
    cluster(&world, "slurm", "");
    refused(&[], &["sbatch", "login node", "--dry-run"]);
    cluster(&world, "kubernetes", "");
    refused(&[], &["kubectl", "--dry-run"]);
    cluster(&world, "slrum", "");
    refused(&[], &["here.toml:1", "did you mean `slurm`"]);
    cluster(&world, "slurm", "wrokers = 3");
    refused(&[], &["here.toml:5", "did you mean `workers`"]);
    cluster(&world, "slurm", "devices = \"tpu\"");
    refused(&["--dry-run"], &["tpu", "cuda:all"]);
    world.write(
        "here.toml",
        "engine = \"slurm\"\nworkers = 1\ncontainer = \"i\"\n[resources]\n",
    );
    refused(&["--dry-run"], &["/tmp", "shared"]);
    world.write(
        "here.toml",
        "engine = \"slurm\"\nworkers = 1\nshared = [\"/scratch\"]\n[resources]\n",
    );
    refused(&["--dry-run"], &["program", "/scratch"]);
    let pods = "engine = \"kubernetes\"\nworkers = 1\ncontainer = \"i\"\n[resources]\n";
    world.write("here.toml", pods);
    refused(&["--dry-run"], &["pods see no folder", "claim"]);
    let none = world
        .clipood(&["submit", "recipe.toml", "--cluster", "slurm-exmaple"])
        .output()
        .unwrap();
    assert_eq!(none.status.code(), Some(2));
    assert!(
        stderr(&none).contains("did you mean `slurm-example`"),
        "{}",
        stderr(&none)
    );
}

#[test]
fn a_time_limit_shorter_than_a_unit_is_refused_before_anything_is_queued() {
    let world = World::new();
    let root = world.path("").display().to_string();
    world.write(
        "here.toml",
        format!(
            "engine = \"slurm\"\nworkers = 1\ncontainer = \"i\"\nshared = [\"{root}\"]\n[resources]\ntime = \"5\"\n\
             [rates]\nimages_per_second = 0.01\n"
        ),
    );
    let output = submit(&world, &["--dry-run"]);
    let log = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(
        log.contains("job extract") && log.contains("00:05:00"),
        "{log}"
    );
}

#[test]
fn pods_get_one_indexed_job_and_a_report_that_waits() {
    let world = World::new();
    cluster(&world, "kubernetes", "");
    programs(&world, &[("kubectl", "")]);
    let text = succeeds(&submit(&world, &["--dry-run"]));
    for word in [
        "completionMode: Indexed",
        "action: FailIndex",
        "- --wait",
        "- extract,negative,train,fit,score",
    ] {
        assert!(text.contains(word), "no {word} in:\n{text}");
    }
    succeeds(&submit(&world, &[]));
    let log = std::fs::read_to_string(world.path("kubectl.log")).unwrap();
    assert!(
        log.contains("create --dry-run=server -f -") && log.contains("\ncreate -f -\n"),
        "{log}"
    );
    assert!(world.path("run/_run/jobs/1.json").exists());
}

#[test]
fn an_estimate_uses_given_rates_and_measures_the_others() {
    let world = World::new();
    cluster(&world, "slurm", "");
    let plan = |words: &[&str]| {
        let mut command = world.clipood(&[
            "plan",
            "recipe.toml",
            "--manifests",
            "manifests",
            "--estimate",
        ]);
        let command = command
            .args(["--run", "run", "--store", "store"])
            .args(words);
        succeeds(&command.output().unwrap())
    };
    let given = plan(&[
        "--images-per-second",
        "2",
        "--step-seconds",
        "3600",
        "--cluster",
        "here.toml",
    ]);
    // Three epochs of one batch.
    for word in [
        "images: 40 to score",
        "of them not yet in the store",
        "3 training steps, 3 of them to do",
        "at 2.0 views per second (given)",
        "training: 3.00 h",
        "together: 3.01 worker hours",
        "jobs: extract (2 workers), train (2 workers)",
    ] {
        assert!(given.contains(word), "no `{word}` in:\n{given}");
    }
    let measured = plan(&[]);
    assert!(measured.contains("measured here"), "{measured}");
    succeeds(&world.run("run", &["--store", "store"]));
    let done = plan(&["--cluster", "here.toml"]);
    assert!(
        done.contains("0 of them not yet in the store") && done.contains("jobs: none"),
        "{done}"
    );
}
