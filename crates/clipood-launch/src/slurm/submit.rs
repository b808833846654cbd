//! `sbatch`, `squeue` and `scancel`.

use std::collections::BTreeSet;

use super::Script;
use crate::command::run;
use crate::error::{LaunchError, Result};
use crate::record::{JobRecord, Submission};

/// What to do about a missing program.
const HINT: &str = "run this on a login node of the cluster, or print the scripts with --dry-run";

/// Queues `scripts`, each after the ones of the job before. If one is refused, those before it are cancelled.
///
/// # Errors
/// [`LaunchError::Usage`] if there is no `sbatch`, [`LaunchError::Program`] with its message.
pub fn submit(scripts: &[Script]) -> Result<Vec<JobRecord>> {
    let mut queued: Vec<JobRecord> = Vec::new();
    for script in scripts {
        match sbatch(script, &queued) {
            Ok(id) => queued.push(JobRecord {
                name: script.job.to_string(),
                id,
                cluster_name: script.cluster_name.clone(),
                workers: script.workers,
                first: script.first,
            }),
            Err(error) => return Err(taken_back(error, &queued)),
        }
    }
    Ok(queued)
}

fn sbatch(script: &Script, queued: &[JobRecord]) -> Result<String> {
    let mut words = vec!["--parsable".to_string()];
    let before = queued.iter().rev().find(|job| job.name != script.job);
    if let Some(before) = before {
        let ids = queued.iter().filter(|job| job.name == before.name);
        let ids: Vec<&str> = ids.map(|job| job.id.as_str()).collect();
        words.push(format!("--dependency=afterok:{}", ids.join(":")));
    }
    let answer = run("sbatch", &words, &script.text, HINT)?;
    // With several clusters it is followed by the name of one; sites print other lines before it.
    let line = answer.lines().last().unwrap_or_default();
    let id = line.split(';').next().unwrap_or_default().trim();
    match !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Ok(id.to_string()),
        false => Err(LaunchError::Program {
            program: "sbatch".to_string(),
            status: None,
            message: format!("expected the number of a job, found `{answer}`"),
        }),
    }
}

/// Cancels what is queued; the error says so if that fails too.
fn taken_back(error: LaunchError, queued: &[JobRecord]) -> LaunchError {
    let ids: Vec<String> = queued.iter().map(|job| job.id.clone()).collect();
    if ids.is_empty() {
        return error;
    }
    match run("scancel", &ids, "", HINT) {
        Ok(_) => error,
        Err(second) => LaunchError::Usage(format!(
            "{error}; jobs {} are queued and could not be cancelled ({second}): cancel them with `scancel {}`",
            ids.join(", "),
            ids.join(" ")
        )),
    }
}

/// The jobs of `submissions` that are queued or running.
///
/// # Errors
/// As [`submit`], for `squeue`.
pub fn active(submissions: &[Submission]) -> Result<Vec<JobRecord>> {
    let jobs: Vec<&JobRecord> = submissions.iter().flat_map(|one| &one.jobs).collect();
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    // By name, since squeue fails for numbers that it does not know any more.
    let names: BTreeSet<&str> = jobs.iter().map(|job| job.cluster_name.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let words = [
        "--noheader".to_string(),
        format!("--name={}", names.join(",")),
        "--format=%F".to_string(),
    ];
    let listed = run("squeue", &words, "", HINT)?;
    let listed: BTreeSet<&str> = listed.lines().map(str::trim).collect();
    let jobs = jobs
        .into_iter()
        .filter(|job| listed.contains(job.id.as_str()));
    Ok(jobs.cloned().collect())
}
