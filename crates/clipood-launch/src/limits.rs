//! Time limits that no unit fits into.

use clipood_core::ClusterManifest;

use crate::error::{LaunchError, Result};
use crate::jobs::Job;

/// The longest unit of a job, by the rates of the cluster manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct LongestUnit {
    /// The job.
    pub job: &'static str,
    /// What the unit is, for messages: `unit of 1000 views`.
    pub what: String,
    /// Seconds on one worker.
    pub seconds: f64,
}

/// Checks that the longest unit of every job fits between the start of the job and the signal before its time limit.
/// Prompt trainings are not checked: they go on from their checkpoints.
///
/// # Errors
/// [`LaunchError::Usage`] with the job, its limit and the time that its longest unit takes.
pub fn check_time(manifest: &ClusterManifest, jobs: &[Job], units: &[LongestUnit]) -> Result<()> {
    for job in jobs {
        let Some(limit) = job.resources.time else {
            continue;
        };
        let usable = limit.0.saturating_sub(manifest.slurm.signal_seconds) as f64;
        let longest = units.iter().find(|unit| unit.job == job.name);
        if let Some(unit) = longest.filter(|unit| unit.seconds > usable) {
            return Err(LaunchError::Usage(format!(
                "job {}: a {} takes about {:.0} s at the rates of the cluster manifest, and the time limit {} leaves {usable:.0} s \
                 before the signal; give more time, or make `engine.shard_bytes` of the recipe smaller",
                job.name,
                unit.what,
                unit.seconds,
                limit.slurm()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::{OpenStage, jobs};

    #[test]
    fn a_limit_that_one_unit_does_not_fit_into_is_refused() {
        let text = "engine = \"slurm\"\nworkers = 2\n[resources]\ntime = \"00:10:00\"\n[jobs.report]\ntime = \"2-00\"\n";
        let manifest = ClusterManifest::parse(text, "c").unwrap();
        let open = ["extract", "train", "report"].map(|stage| OpenStage {
            stage: stage.into(),
            open: 2,
        });
        let jobs = jobs(&manifest, &open);
        let check = |job: &'static str, seconds: f64| {
            let what = "unit of 1000 views".to_string();
            check_time(&manifest, &jobs, &[LongestUnit { job, what, seconds }])
        };
        // 600 s less the 90 s of the signal.
        assert!(check("extract", 509.0).is_ok() && check("report", 511.0).is_ok());
        let error = check("extract", 511.0).unwrap_err().to_string();
        for word in [
            "extract",
            "1000 views",
            "511 s",
            "00:10:00",
            "510 s",
            "shard_bytes",
        ] {
            assert!(error.contains(word), "{error}");
        }
    }
}
