//! Scripts for Slurm: their text, and what they do when a shell runs them with workers of every exit code.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use clipood_core::ClusterManifest;
use clipood_launch::slurm::{Script, dry_run, scripts};
use clipood_launch::{Campaign, OpenStage, jobs};
use tempfile::TempDir;

const MANIFEST: &str = r#"
engine = "slurm"
workers = 5
dtype = "bf16"
batch = 64
container = "/images/clipood.sif"
retries = 1
[resources]
gpus = 2
cpus = 8
memory = "32G"
time = "04:00:00"
[jobs.report]
gpus = 0
time = "30"
partition = "cpu"
[environment]
HF_HOME = "/scratch/my models"
[slurm]
account = "project"
partition = "gpu"
qos = "normal"
constraint = "a100"
workers_per_node = 2
max_array_size = 2
max_running = 8
modules = ["cuda/12.8", "apptainer"]
setup = ["ulimit -n 4096"]
options = ["--exclude=node7"]
container_options = ["--bind=/scratch"]
"#;

fn manifest(text: &str) -> ClusterManifest {
    ClusterManifest::parse(text, "test.toml").unwrap()
}

fn campaign(run: &str, program: &str) -> Campaign {
    Campaign {
        recipe: "demo".into(),
        fingerprint: "0123456789abcdef".into(),
        run: run.into(),
        store: "/scratch/store".into(),
        data: "/scratch/my data".into(),
        program: program.into(),
        number: 1,
    }
}

fn open(stages: &[(&str, usize)]) -> Vec<OpenStage> {
    let stages = stages.iter().map(|(stage, open)| OpenStage {
        stage: stage.to_string(),
        open: *open,
    });
    stages.collect()
}

/// Compares with the file `tests/data/<name>`, which is written if UPDATE_SNAPSHOTS is set.
fn same_as_file(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        text, kept,
        "{name}: run the test with UPDATE_SNAPSHOTS=1 if the change is meant"
    );
}

#[test]
fn every_option_of_the_manifest_is_in_the_scripts() {
    let manifest = manifest(MANIFEST);
    let wanted = jobs(
        &manifest,
        &open(&[("extract", 40), ("score", 1), ("report", 1)]),
    );
    let all = scripts(
        &campaign("/scratch/runs/demo", "clipood"),
        &manifest,
        &wanted,
    );
    same_as_file("slurm.txt", &dry_run(&all));
    let places: Vec<_> = all.iter().map(|s| (s.job, s.first, s.workers)).collect();
    // Arrays of at most two tasks with two workers each.
    assert_eq!(
        places,
        [
            ("extract", 0, 4),
            ("extract", 4, 1),
            ("score", 0, 1),
            ("report", 0, 1)
        ]
    );
}

#[test]
fn a_plain_manifest_asks_for_nothing_that_it_does_not_name() {
    let manifest = manifest("engine = \"slurm\"\nworkers = 3\n[resources]\n");
    let wanted = jobs(&manifest, &open(&[("train", 2)]));
    let all = scripts(
        &campaign("s3://bucket/demo", "/opt/clipood"),
        &manifest,
        &wanted,
    );
    let options: Vec<&str> = all[0]
        .text
        .lines()
        .filter(|line| line.starts_with("#SBATCH"))
        .collect();
    let log = options[2].strip_prefix("#SBATCH --output=\"").unwrap();
    assert!(
        log.ends_with("/clipood-logs/demo-01234567/1/train-%A_%a.log\""),
        "{log}"
    );
    assert_eq!(
        [&options[..2], &options[3..]].concat(),
        [
            "#SBATCH --job-name=clipood-demo-01234567-train",
            "#SBATCH --array=0-1",
            "#SBATCH --open-mode=append",
            "#SBATCH --requeue",
            "#SBATCH --signal=B:USR1@90",
            "#SBATCH --nodes=1",
            "#SBATCH --ntasks-per-node=1",
        ]
    );
    assert!(
        !all[0].text.contains("run.json"),
        "an object store is not a file"
    );
    assert!(all[0].text.contains("--stages negative,train"));
}

/// A folder with a run directory and the programs of a node: the worker and the scheduler.
struct Node {
    dir: TempDir,
    script: Script,
}

impl Node {
    /// `worker` is the body of the worker's program, a shell script with its index in `$index`; `state` is what `scontrol show job` says.
    fn new(worker: &str, state: &str, more: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let program = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(
                &path,
                format!("#!/bin/bash\ncd {}\n{text}\n", dir.path().display()),
            )
            .unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path.display().to_string()
        };
        let index = "while [ $# -gt 1 ]; do [ \"$1\" = --index ] && index=$2; shift; done\necho \"$index\" >> started\n";
        let worker = program("worker.sh", &format!("{index}{worker}"));
        program(
            "scontrol",
            &format!(
                "case $1 in show) echo \"   JobState={state} Reason=None\" ;; *) echo \"$*\" >> requeued ;; esac"
            ),
        );
        program("sleep", "exec /bin/sleep 0.05");
        program("module", "echo \"$*\" >> modules");
        std::fs::write(dir.path().join("run.json"), "{}").unwrap();
        let text = format!(
            "engine = \"slurm\"\nworkers = 4\nretries = 2\n[resources]\ngpus = 1\n[slurm]\n{more}"
        );
        let manifest = manifest(&text);
        let wanted = jobs(&manifest, &open(&[("extract", 4)]));
        let campaign = campaign(&dir.path().display().to_string(), &worker);
        let script = scripts(&campaign, &manifest, &wanted).remove(0);
        Self { dir, script }
    }

    /// Starts the script as this task of array 70, or as a job of its own.
    fn start(&self, task: impl Into<Option<usize>>) -> Child {
        let path = std::env::var("PATH").unwrap();
        let script = self.dir.path().join("script");
        std::fs::write(&script, &self.script.text).unwrap();
        let mut command = Command::new("bash");
        if let Some(task) = task.into() {
            command
                .env("SLURM_ARRAY_JOB_ID", "70")
                .env("SLURM_ARRAY_TASK_ID", task.to_string());
        }
        command
            .arg(script)
            .env("PATH", format!("{}:{path}", self.dir.path().display()))
            .env("SLURM_JOB_ID", "77")
            .env("CUDA_VISIBLE_DEVICES", "4,5,6,7")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn run(&self, task: impl Into<Option<usize>>) -> Output {
        self.start(task).wait_with_output().unwrap()
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    fn waits_for(&self, name: &str) {
        let start = Instant::now();
        while !self.dir.path().join(name).exists() {
            assert!(start.elapsed() < Duration::from_secs(60), "no {name}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill")
        .args(["-s", name, &pid])
        .status()
        .unwrap();
    assert!(sent.success());
}

#[test]
fn exit_codes_mean_done_retry_give_up_and_requeue() {
    let done = Node::new("exit 0", "RUNNING", "");
    assert_eq!(done.run(3).status.code(), Some(0));
    assert_eq!(
        (
            done.file("started").as_str(),
            done.file("requeued").as_str()
        ),
        ("3\n", "")
    );

    let failing = Node::new("exit 1", "RUNNING", "");
    let output = failing.run(0);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        failing.file("started"),
        "0\n0\n0\n",
        "once, and two retries"
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("failed 3 times"));

    let mended = Node::new(
        "[ \"$(wc -l < started)\" -ge 2 ] || kill -9 $$",
        "RUNNING",
        "",
    );
    assert_eq!(
        mended.run(0).status.code(),
        Some(0),
        "killed once, then done"
    );

    let configuration = Node::new("exit 2", "RUNNING", "");
    let output = configuration.run(0);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        (
            configuration.file("started").as_str(),
            configuration.file("requeued").as_str()
        ),
        ("0\n", "")
    );

    let interrupted = Node::new("exit 3", "RUNNING", "");
    assert_eq!(interrupted.run(0).status.code(), Some(3));
    assert_eq!(interrupted.run(None).status.code(), Some(3));
    assert_eq!(
        interrupted.file("requeued"),
        "requeue 70_0\nrequeue 77\n",
        "a task is not named by a number that its whole array may have"
    );
    let cancelled = Node::new("exit 3", "COMPLETING", "");
    assert_eq!(cancelled.run(0).status.code(), Some(3));
    assert_eq!(
        cancelled.file("requeued"),
        "",
        "a job that others end does not come back"
    );
}

#[test]
fn the_signal_before_the_time_limit_reaches_the_worker_and_its_code_is_kept() {
    let worker =
        "trap 'echo heard > heard; exit 3' USR1\ntouch ready\nwhile true; do /bin/sleep 0.05; done";
    let node = Node::new(worker, "RUNNING", "");
    let child = node.start(1);
    node.waits_for("ready");
    signal(&child, "USR1");
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        (node.file("heard").as_str(), node.file("requeued").as_str()),
        ("heard\n", "requeue 70_1\n")
    );

    // A worker that is done by then is not run again.
    let worker = "trap 'exit 0' USR1\ntouch ready\nwhile true; do /bin/sleep 0.05; done";
    let node = Node::new(worker, "RUNNING", "");
    let child = node.start(1);
    node.waits_for("ready");
    signal(&child, "USR1");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(node.file("requeued"), "");
}

#[test]
fn a_signal_between_two_tries_starts_no_worker_any_more() {
    let node = Node::new("touch ready; exit 1", "RUNNING", "");
    // The pause lasts until the signal has been sent.
    let pause = "#!/bin/sh\nwhile [ ! -e sent ]; do /bin/sleep 0.02; done\n";
    std::fs::write(
        node.dir.path().join("sleep"),
        pause.replace("sent", &node.dir.path().join("sent").display().to_string()),
    )
    .unwrap();
    let child = node.start(0);
    node.waits_for("ready");
    std::thread::sleep(Duration::from_millis(300));
    signal(&child, "USR1");
    std::fs::write(node.dir.path().join("sent"), "").unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(3));
    assert_eq!(
        (
            node.file("started").as_str(),
            node.file("requeued").as_str()
        ),
        ("0\n", "requeue 70_0\n")
    );
}

#[test]
fn several_workers_of_a_node_have_numbers_and_gpus_of_their_own() {
    let worker = "echo \"$index on $CUDA_VISIBLE_DEVICES\" >> gpus";
    let node = Node::new(worker, "RUNNING", "workers_per_node = 2\n");
    assert_eq!(node.run(1).status.code(), Some(0));
    let gpus = node.file("gpus");
    let mut lines: Vec<&str> = gpus.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["2 on 4", "3 on 5"]);

    // One of them fails by configuration, the other is interrupted: the rest of its work comes first.
    let node = Node::new(
        "exit $((index == 2 ? 2 : 3))",
        "RUNNING",
        "workers_per_node = 2\n",
    );
    assert_eq!(node.run(1).status.code(), Some(3));
    let node = Node::new(
        "exit $((index == 2 ? 2 : 1))",
        "RUNNING",
        "workers_per_node = 2\n",
    );
    assert_eq!(node.run(1).status.code(), Some(2));
}

#[test]
fn a_node_that_does_not_see_the_run_starts_no_worker() {
    let node = Node::new("exit 0", "RUNNING", "modules = [\"cuda/12.8\"]\n");
    assert_eq!(node.run(0).status.code(), Some(0));
    assert_eq!(node.file("modules"), "load cuda/12.8\n");
    std::fs::remove_file(node.dir.path().join("run.json")).unwrap();
    let output = node.run(0);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("does not see the run directory"), "{text}");
    assert_eq!(node.file("started"), "0\n", "of the first run only");
}
