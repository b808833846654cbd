//! `kubectl`.

use super::{Manifest, yaml};
use crate::command::run;
use crate::error::Result;
use crate::record::{JobRecord, Submission};

/// What to do about a missing program.
const HINT: &str =
    "install it and choose the context of the cluster, or print the manifests with --dry-run";

/// Creates the Jobs, in `namespace` if one is given.
///
/// # Errors
/// [`LaunchError::Usage`](crate::LaunchError::Usage) if there is no `kubectl`, its message if it fails.
pub fn submit(manifests: &[Manifest], namespace: Option<&str>) -> Result<Vec<JobRecord>> {
    let text = yaml(manifests)?;
    // All or nothing: the server checks every object before the first is created.
    run(
        "kubectl",
        &words(namespace, &["create", "--dry-run=server", "-f", "-"]),
        &text,
        HINT,
    )?;
    run(
        "kubectl",
        &words(namespace, &["create", "-f", "-"]),
        &text,
        HINT,
    )?;
    let records = manifests.iter().map(|manifest| JobRecord {
        name: manifest.job.to_string(),
        id: manifest.cluster_name.clone(),
        cluster_name: manifest.cluster_name.clone(),
        workers: manifest.workers,
        first: 0,
    });
    Ok(records.collect())
}

/// The jobs of `submissions` that have pods.
///
/// # Errors
/// As [`submit`].
pub fn active(submissions: &[Submission], namespace: Option<&str>) -> Result<Vec<JobRecord>> {
    let jobs: Vec<&JobRecord> = submissions.iter().flat_map(|one| &one.jobs).collect();
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = words(namespace, &["get", "jobs", "--ignore-not-found"]);
    let template = "jsonpath={range .items[?(@.status.active)]}{.metadata.name}{\"\\n\"}{end}";
    query.extend([
        "--selector=app.kubernetes.io/name=clipood".to_string(),
        "-o".into(),
        template.into(),
    ]);
    let listed = run("kubectl", &query, "", HINT)?;
    let is_listed = |job: &&JobRecord| listed.lines().any(|name| name.trim() == job.id);
    Ok(jobs.into_iter().filter(is_listed).cloned().collect())
}

fn words(namespace: Option<&str>, words: &[&str]) -> Vec<String> {
    let namespace = namespace.map(|name| format!("--namespace={name}"));
    namespace
        .into_iter()
        .chain(words.iter().map(|word| word.to_string()))
        .collect()
}
