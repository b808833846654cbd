//! A [`Campaign`]: what all jobs of one submission have in common.

use clipood_core::ClusterManifest;

use crate::jobs::Job;

/// A planned run as the nodes see it. Paths are absolute or URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    /// Name of the recipe, for the names of the jobs.
    pub recipe: String,
    /// Fingerprint of the run. A worker refuses a run directory with another one, so that jobs that have been waiting in a
    /// queue never work on a run that has taken its place.
    pub fingerprint: String,
    /// The run directory.
    pub run: String,
    /// The store of features and prompts.
    pub store: String,
    /// The folder that relative dataset roots start from.
    pub data: String,
    /// The command on the nodes.
    pub program: String,
    /// Number of the submission in the run, from 1.
    pub number: usize,
}

impl Campaign {
    /// Name of a job: recipe, the first digits of the fingerprint, job. Letters, digits, `-`, `_` and `.`.
    pub fn job_name(&self, job: &Job) -> String {
        format!("clipood-{}-{}-{}", self.recipe, self.short(), job.name)
    }

    /// The first eight digits of the fingerprint.
    pub(crate) fn short(&self) -> &str {
        self.fingerprint.get(..8).unwrap_or(&self.fingerprint)
    }

    /// The words of the worker's command, without index and number of workers.
    pub(crate) fn worker(
        &self,
        manifest: &ClusterManifest,
        uses_devices: bool,
        stages: &[&str],
    ) -> Vec<String> {
        let mut words: Vec<String> = [
            "worker",
            &self.run,
            "--store",
            &self.store,
            "--data",
            &self.data,
        ]
        .map(String::from)
        .into();
        words.extend(["--stages".into(), stages.join(",")]);
        words.extend(["--fingerprint".into(), self.fingerprint.clone()]);
        // Scores and metrics are computed on the processor, whatever has computed the features.
        if uses_devices {
            words.extend(["--devices".into(), manifest.devices().to_string()]);
            words.extend(["--dtype".into(), manifest.dtype.clone()]);
            if let Some(batch) = manifest.batch {
                words.extend(["--batch".into(), batch.to_string()]);
            }
        }
        words
    }
}
