//! What can stop a run.

/// An error of a run. Messages name the stage's subject: the dataset, image, prompt set or file.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// Recipe or manifest.
    #[error(transparent)]
    Core(#[from] clipood_core::CoreError),
    /// Dataset or image.
    #[error(transparent)]
    Data(#[from] clipood_data::DataError),
    /// Drawing of the demo images.
    #[error("cannot draw the demo images")]
    Demo(#[from] clipood_demo::DemoError),
    /// Model, text or training.
    #[error(transparent)]
    Clip(#[from] clipood_clip::ClipError),
    /// Checkpoint of the hub.
    #[error(transparent)]
    Hub(#[from] clipood_hub::HubError),
    /// Detector or metric.
    #[error(transparent)]
    Ood(#[from] clipood_ood::OodError),
    /// Store or commit.
    #[error(transparent)]
    Store(#[from] clipood_store::Error),
    /// Parquet table.
    #[error(transparent)]
    Table(#[from] crate::tables::TableError),
    /// A file outside the store.
    #[error("{path}: {action}")]
    File {
        /// The file.
        path: String,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// An image that is not there any more as it was planned.
    #[error(
        "{path}: {problem}; it was planned with other content: bring that back, or plan again in another run directory, \
         which finds the features of all shards that have not changed"
    )]
    NotAsPlanned {
        /// The file.
        path: String,
        /// What is wrong with it now.
        problem: String,
    },
    /// Recipe, manifest or option that does not fit the data.
    #[error("{0}")]
    Usage(String),
    /// Too many images could not be read.
    #[error(
        "{dataset}: {quarantined} of {planned} images could not be read, more than the allowed share of {allowed} ({example})"
    )]
    Quarantine {
        /// Dataset.
        dataset: String,
        /// Images that could not be read.
        quarantined: usize,
        /// Images planned.
        planned: usize,
        /// `engine.max_quarantine_fraction`.
        allowed: f64,
        /// One of them and its reason.
        example: String,
    },
    /// A stage that another one needs and that nobody has been asked to do here.
    #[error(
        "stage `{stage}` has {open} of {units} units left, and the stages after it need them; run it first, or wait for its workers"
    )]
    StageNotDone {
        /// The stage.
        stage: &'static str,
        /// Units that are not done.
        open: usize,
        /// All its units.
        units: usize,
    },
    /// A table of this run does not fit its plan.
    #[error("{0}")]
    Inconsistent(String),
    /// A thread of a stage panicked.
    #[error("a worker of stage `{stage}` panicked: {message}")]
    Panicked {
        /// Stage.
        stage: &'static str,
        /// Panic message.
        message: String,
    },
    /// Ctrl-C or a termination signal; the run can be resumed.
    #[error("interrupted; run the same command again to go on")]
    Interrupted,
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, PipelineError>;

impl PipelineError {
    /// Exit code of the command: 2 for bad usage or configuration, 3 for an interruption, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Core(_) | Self::Usage(_) => 2,
            Self::Store(
                clipood_store::Error::OtherConfiguration { .. }
                | clipood_store::Error::Location { .. }
                | clipood_store::Error::NoRun { .. },
            ) => 2,
            Self::Interrupted => 3,
            _ => 1,
        }
    }
}
