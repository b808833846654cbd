//! Slurm: one job array per [`Job`], each started when the one before has succeeded.

mod script;
mod submit;

use std::path::PathBuf;

use clipood_core::ClusterManifest;

use crate::campaign::Campaign;
use crate::jobs::Job;
use crate::record::LOGS;

pub use submit::{active, submit};

/// A script for `sbatch`: a job array, or one of the arrays of a job that is larger than the cluster allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Name of the job, such as `extract`.
    pub job: &'static str,
    /// Name on the cluster.
    pub cluster_name: String,
    /// Name of the script's file, such as `extract.sh` or `extract-1000.sh`.
    pub file: String,
    /// Number of its workers.
    pub workers: usize,
    /// Number of its first worker.
    pub first: usize,
    /// The script.
    pub text: String,
}

/// The scripts of all jobs, in the order in which they run. All scripts of a job run at the same time.
pub fn scripts(campaign: &Campaign, manifest: &ClusterManifest, jobs: &[Job]) -> Vec<Script> {
    let mut all = Vec::new();
    for (number, job) in jobs.iter().enumerate() {
        let per_array = manifest.slurm.max_array_size * manifest.slurm.workers_per_node;
        for first in (0..job.workers).step_by(per_array) {
            let workers = per_array.min(job.workers - first);
            let piece = script::Piece {
                first,
                workers,
                depends: number > 0,
            };
            all.push(Script {
                job: job.name,
                cluster_name: campaign.job_name(job),
                file: match first {
                    0 => format!("{}.sh", job.name),
                    _ => format!("{}-{first}.sh", job.name),
                },
                workers,
                first,
                text: script::text(campaign, manifest, job, &piece),
            });
        }
    }
    all
}

/// The folder of the logs: that of the manifest, the folder of the submission in a run directory on disk, or
/// `clipood-logs` in the working directory for a run in an object store.
pub fn log_folder(campaign: &Campaign, manifest: &ClusterManifest) -> PathBuf {
    let number = campaign.number.to_string();
    match &manifest.slurm.logs {
        Some(folder) => folder.clone(),
        None if campaign.run.contains("://") => {
            let name = format!("clipood-logs/{}-{}", campaign.recipe, campaign.short());
            PathBuf::from(name).join(number)
        }
        None => PathBuf::from(&campaign.run).join(LOGS).join(number),
    }
}

/// All scripts as one text for `--dry-run`, with the command that would submit each.
pub fn dry_run(scripts: &[Script]) -> String {
    let mut text = String::new();
    let mut before: Vec<&str> = Vec::new();
    let mut current: (&str, Vec<&str>) = ("", Vec::new());
    for script in scripts {
        if script.job != current.0 {
            before = std::mem::take(&mut current.1);
            current.0 = script.job;
        }
        let after = match before.is_empty() {
            true => String::new(),
            false => {
                let ids: Vec<String> = before
                    .iter()
                    .map(|file| format!("<job of {file}>"))
                    .collect();
                format!(" --dependency=afterok:{}", ids.join(":"))
            }
        };
        text += &format!("# sbatch{after} {}\n{}\n", script.file, script.text);
        current.1.push(&script.file);
    }
    text
}
