//! The text of a script.
//!
//! A script starts its workers itself, without `srun`: Slurm then signals them directly when it takes the nodes back, and
//! no program in between turns a signal to stop into a kill.

use std::fmt::Write;

use clipood_core::{ClusterManifest, TimeLimit};

use super::log_folder;
use crate::campaign::Campaign;
use crate::jobs::Job;
use crate::shell::{line, quoted};

/// The workers of one script.
pub struct Piece {
    /// Number of the first one.
    pub first: usize,
    /// Their number.
    pub workers: usize,
    /// Whether the script waits for another job.
    pub depends: bool,
}

/// Seconds before work that has failed is tried again.
const PAUSE: u64 = 10;

/// The script of `piece`.
pub fn text(campaign: &Campaign, manifest: &ClusterManifest, job: &Job, piece: &Piece) -> String {
    let mut text = String::from("#!/bin/bash\n");
    for option in options(campaign, manifest, job, piece) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "#SBATCH {option}");
    }
    text += &surroundings(campaign, manifest);
    text += &body(campaign, manifest, job, piece);
    text
}

/// The options of `sbatch`.
fn options(
    campaign: &Campaign,
    manifest: &ClusterManifest,
    job: &Job,
    piece: &Piece,
) -> Vec<String> {
    let (slurm, resources) = (&manifest.slurm, &job.resources);
    let per_node = slurm.workers_per_node.min(piece.workers);
    let tasks = piece.workers.div_ceil(slurm.workers_per_node);
    let is_array = tasks > 1 || job.workers > piece.workers;
    let mut options = vec![format!("--job-name={}", campaign.job_name(job))];
    if is_array {
        let limit = slurm
            .max_running
            .map_or_else(String::new, |n| format!("%{n}"));
        options.push(format!("--array=0-{}{limit}", tasks - 1));
    }
    let log = match is_array {
        true => format!("{}-%A_%a.log", job.name),
        false => format!("{}-%j.log", job.name),
    };
    // A percent sign in the path would start a pattern.
    let folder = log_folder(campaign, manifest).display().to_string();
    options.push(format!("--output=\"{}/{log}\"", folder.replace('%', "%%")));
    options.push("--open-mode=append".to_string());
    options.push("--requeue".to_string());
    options.push(format!("--signal=B:USR1@{}", slurm.signal_seconds));
    if piece.depends {
        options.push("--kill-on-invalid-dep=yes".to_string());
    }
    options.push("--nodes=1".to_string());
    options.push("--ntasks-per-node=1".to_string());
    let gpus = resources.gpus.unwrap_or(0) * per_node;
    match &slurm.gres {
        Some(gres) if resources.gpus != Some(0) => options.push(format!("--gres={gres}")),
        None if gpus > 0 => options.push(format!("--gpus-per-node={gpus}")),
        _ => {}
    }
    if let Some(cpus) = resources.cpus {
        options.push(format!("--cpus-per-task={}", cpus * per_node));
    }
    if let Some(memory) = resources.memory {
        let all = clipood_core::Memory(memory.0 * per_node as u64);
        options.push(format!("--mem={}", all.slurm()));
    }
    let partition = resources.partition.as_ref().or(slurm.partition.as_ref());
    let named = [
        ("time", resources.time.map(TimeLimit::slurm)),
        ("account", slurm.account.clone()),
        ("partition", partition.cloned()),
        ("qos", slurm.qos.clone()),
        ("constraint", slurm.constraint.clone()),
        ("reservation", slurm.reservation.clone()),
    ];
    for (name, value) in named {
        options.extend(value.map(|value| format!("--{name}={value}")));
    }
    options.extend(slurm.options.iter().cloned());
    options
}

/// Modules, variables and lines of the manifest, and the check that this node sees the run directory.
fn surroundings(campaign: &Campaign, manifest: &ClusterManifest) -> String {
    let mut text = String::from("\n");
    for module in &manifest.slurm.modules {
        text += &format!("module load {}\n", quoted(module));
    }
    for (name, value) in &manifest.environment {
        text += &format!("export {name}={}\n", quoted(value));
    }
    for line in &manifest.slurm.setup {
        text += &format!("{line}\n");
    }
    text += "set -u\n";
    text += "echo \"$(date '+%F %T') job $SLURM_JOB_ID on $(hostname), start $((${SLURM_RESTART_COUNT:-0} + 1))\"\n";
    if !campaign.run.contains("://") {
        let file = quoted(&format!("{}/run.json", campaign.run));
        text += &format!(
            "if [ ! -e {file} ]; then\n    \
                 echo \"error: this node does not see the run directory:\" {file} >&2\n    \
                 exit 2\n\
             fi\n"
        );
    }
    text
}

/// The command of a worker: container, program and options, but for its index.
fn command(campaign: &Campaign, manifest: &ClusterManifest, job: &Job) -> String {
    let mut words: Vec<String> = Vec::new();
    if let Some(image) = &manifest.container {
        words.extend(["apptainer", "exec"].map(String::from));
        if job.uses_devices && manifest.devices().starts_with("cuda") {
            words.push("--nv".to_string());
        }
        words.extend(manifest.slurm.container_options.iter().cloned());
        words.push(image.clone());
    }
    words.push(campaign.program.clone());
    words.extend(campaign.worker(manifest, job.uses_devices, job.stages));
    line(&words)
}

/// Starts the workers and acts on their exit codes.
fn body(campaign: &Campaign, manifest: &ClusterManifest, job: &Job, piece: &Piece) -> String {
    let per_node = manifest.slurm.workers_per_node;
    let gpus = job.resources.gpus.unwrap_or(0);
    // Several workers on a node must not use each other's GPUs.
    let (devices, prefix) = match per_node > 1 && gpus > 0 {
        true => (
            "IFS=, read -r -a gpus <<< \"${CUDA_VISIBLE_DEVICES:-}\"\n",
            format!(
                "CUDA_VISIBLE_DEVICES=$(IFS=,; echo \"${{gpus[*]:$(((worker - first) * {gpus})):{gpus}}}\") "
            ),
        ),
        false => ("", String::new()),
    };
    format!(
        r#"
# Slurm sends USR1 to this script {signal} s before the time limit. The workers then end with exit code 3.
workers=()
heard=
asked=
stop() {{
    heard=1
    asked=1
    [ "${{#workers[@]}}" -eq 0 ] || kill -USR1 "${{workers[@]}}" 2> /dev/null
}}
trap stop USR1
# When Slurm takes the node back, it signals the workers itself.
trap 'heard=1' TERM

# Sets `status` to the exit code of process $1. A signal to this script only interrupts the wait.
settle() {{
    while heard=; do
        wait "$1"
        status=$?
        [ -n "$heard" ] || break
    done
}}

{devices}first=$(({first} + ${{SLURM_ARRAY_TASK_ID:-0}} * {per_node}))
failures=0
while true; do
    workers=()
    code=0
    if [ -n "$asked" ]; then
        code=3
    else
        for ((worker = first; worker < first + {per_node} && worker < {end}; worker++)); do
            {prefix}{command} --index "$worker" --count {count} &
            workers+=("$!")
        done
    fi
    for worker in "${{workers[@]}}"; do
        settle "$worker"
        case $status in
            0) ;;
            3) code=3 ;;
            2) [ "$code" -eq 3 ] || code=2 ;;
            *) [ "$code" -ne 0 ] || code=1 ;;
        esac
    done
    case $code in
        0) exit 0 ;;
        1)
            failures=$((failures + 1))
            if [ "$failures" -gt {retries} ]; then
                echo "error: the work has failed $failures times" >&2
                exit 1
            fi
            sleep {PAUSE}
            ;;
        2)
            echo "error: the configuration has to be changed, trying again does not help" >&2
            exit 2
            ;;
        3)
            # One task of an array has the number of the whole array, so it is named by its index.
            job=$SLURM_JOB_ID
            [ -z "${{SLURM_ARRAY_TASK_ID:-}}" ] || job=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
            # A job that is cancelled, preempted or requeued by others is not running any more.
            if scontrol show job "$job" | grep -q JobState=RUNNING; then
                echo "interrupted: this job queues itself again"
                scontrol requeue "$job" && sleep 300
            fi
            exit 3
            ;;
    esac
done
"#,
        signal = manifest.slurm.signal_seconds,
        first = piece.first,
        end = piece.first + piece.workers,
        count = job.workers,
        command = command(campaign, manifest, job),
        retries = manifest.retries,
    )
}
