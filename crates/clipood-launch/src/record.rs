//! What was submitted, recorded in the run directory: `_run/jobs/<number>.json`.
//!
//! It is information for people, for `clipood status` and for the next submission; no worker reads it.

use bytes::Bytes;
use clipood_store::{Created, Seal, Store, check_json_seal, seal_json};
use serde::{Deserialize, Serialize};

use crate::error::{LaunchError, Result};

/// Folder of records, scripts and logs of jobs in a run directory.
pub const LOGS: &str = "_run/jobs";

/// One submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// Its number in the run, from 1.
    pub number: usize,
    /// `slurm` or `kubernetes`.
    pub engine: String,
    /// The cluster manifest that was used, as the user named it.
    pub cluster: String,
    /// Time of the submission, in seconds since 1970.
    pub at: u64,
    /// The jobs in the order in which they run.
    pub jobs: Vec<JobRecord>,
}

/// A job of a submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its name, such as `extract`.
    pub name: String,
    /// Its number on Slurm, its name on Kubernetes.
    pub id: String,
    /// Its name on the cluster.
    pub cluster_name: String,
    /// Number of its workers.
    pub workers: usize,
    /// The number of a split array's first worker, 0 otherwise.
    pub first: usize,
}

/// The number of the next submission of a run.
///
/// # Errors
/// A run directory that cannot be read.
pub fn next_number(run: &Store) -> Result<usize> {
    let numbers = numbers(run)?;
    Ok(numbers.last().map_or(1, |(number, _)| number + 1))
}

/// The submissions of a run, the first one first. Records that are damaged are skipped.
///
/// # Errors
/// A run directory that cannot be read.
pub fn read_submissions(run: &Store) -> Result<Vec<Submission>> {
    let paths: Vec<String> = numbers(run)?.into_iter().map(|(_, path)| path).collect();
    let found = run.get_many(&paths)?;
    Ok(found
        .iter()
        .flatten()
        .filter(|bytes| !matches!(check_json_seal(bytes), Seal::Broken { .. }))
        .filter_map(|bytes| serde_json::from_slice(bytes).ok())
        .collect())
}

/// Records a submission.
///
/// # Errors
/// [`LaunchError::Usage`] if another one has the same number: two submissions at the same time.
pub fn write_submission(run: &Store, submission: &Submission) -> Result<()> {
    let path = format!("{LOGS}/{}.json", submission.number);
    let failed = |error: serde_json::Error| LaunchError::Usage(format!("{path}: {error}"));
    let json = serde_json::to_vec_pretty(submission).map_err(failed)?;
    match run.create(&path, Bytes::from(seal_json(json)))? {
        Created::New | Created::Identical => Ok(()),
        Created::Existed(_) => Err(LaunchError::Usage(format!(
            "{}: another submission of this run was made at the same time",
            run.display(&path)
        ))),
    }
}

/// Numbers and paths of the records, in order.
fn numbers(run: &Store) -> Result<Vec<(usize, String)>> {
    let mut found: Vec<(usize, String)> = run
        .list(LOGS)?
        .into_iter()
        .filter_map(|object| {
            let name = object.path.strip_prefix(LOGS)?.trim_start_matches('/');
            let number = name.strip_suffix(".json")?.parse().ok()?;
            Some((number, object.path))
        })
        .collect();
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission(number: usize) -> Submission {
        Submission {
            number,
            engine: "slurm".into(),
            cluster: "here".into(),
            at: 1_790_000_000,
            jobs: vec![JobRecord {
                name: "extract".into(),
                id: "12".into(),
                cluster_name: "clipood-demo-01234567-extract".into(),
                workers: 8,
                first: 0,
            }],
        }
    }

    #[test]
    fn submissions_are_numbered_and_read_back_in_order() {
        let run = Store::memory();
        assert_eq!(
            (next_number(&run).unwrap(), read_submissions(&run).unwrap()),
            (1, vec![])
        );
        for number in 1..=11 {
            assert_eq!(next_number(&run).unwrap(), number);
            write_submission(&run, &submission(number)).unwrap();
        }
        run.put("_run/jobs/1/extract.sh", "#!/bin/bash".into())
            .unwrap();
        run.put("_run/jobs/12.json", "{".into()).unwrap();
        let all = read_submissions(&run).unwrap();
        assert_eq!(all.len(), 11);
        assert_eq!(all[10], submission(11), "sorted by number, not by text");
        let mut other = submission(11);
        other.at += 1;
        let error = write_submission(&run, &other).unwrap_err().to_string();
        assert!(error.contains("_run/jobs/11.json"), "{error}");
    }
}
