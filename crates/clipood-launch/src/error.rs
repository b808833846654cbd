//! What can stop a submission.

/// An error of this crate. Nothing is queued after any of them.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Something that only a person can mend: a missing program, a path that the nodes cannot see, a time limit.
    #[error("{0}")]
    Usage(String),
    /// A program of the cluster that has failed.
    #[error("{program} failed{}: {message}", code(.status))]
    Program {
        /// The program with its first words.
        program: String,
        /// Its exit code, if it ended by itself.
        status: Option<i32>,
        /// What it wrote, or why it could not be started.
        message: String,
    },
    /// Manifests that cannot be written as YAML.
    #[error("cannot write the manifest of job {job}: {message}")]
    Yaml {
        /// The job.
        job: String,
        /// The message of the serialiser.
        message: String,
    },
    /// The run directory.
    #[error(transparent)]
    Store(#[from] clipood_store::Error),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, LaunchError>;

fn code(status: &Option<i32>) -> String {
    status.map_or_else(String::new, |code| format!(" with exit code {code}"))
}
