//! What can stop a run, and the exit code that follows from it.

use std::error::Error;
use std::io;

use clipood_clip::ClipError;
use clipood_core::CoreError;
use clipood_core::text_file::TextError;
use clipood_data::DataError;
use clipood_hub::HubError;
use clipood_ood::OodError;

/// An error of a run. Messages name the stage's subject: the dataset, image, prompt set or file.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// Recipe or manifest.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// A text file.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Dataset or image.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Drawing of the demo images.
    #[error("cannot draw the demo images")]
    Demo(#[from] clipood_demo::DemoError),
    /// Model, text or training.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// Checkpoint of the hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Detector or metric.
    #[error(transparent)]
    Ood(#[from] OodError),
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
        /// The action that failed.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// An image that is missing or has changed since it was planned.
    #[error(
        "{path}: {problem}; it was planned with other content: bring that back, or plan again in another run directory, \
         which finds the features of all shards that have not changed"
    )]
    NotAsPlanned {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An image that was alone in work when processes died, and that cannot be judged.
    #[error(
        "{image} was alone in work when a process died, and a process that did nothing but decode it {why}; this says nothing \
         about the image, so it is not put into quarantine: give the process more memory or time, or remove the image and plan \
         again; to try again without this check, remove {notes}"
    )]
    Undecided {
        /// The file.
        image: String,
        /// How that process ended.
        why: String,
        /// The notes of the deaths.
        notes: String,
    },
    /// Recipe, manifest or option that does not fit the data.
    #[error("{0}")]
    Usage(String),
    /// Too many images could not be read.
    #[error(
        "{dataset}: {quarantined} of {planned} images could not be read ({example}), allowed: {images} \
         (engine.max_quarantine_fraction = {allowed} in the recipe)"
    )]
    Quarantine {
        /// Dataset.
        dataset: String,
        /// Images that could not be read.
        quarantined: usize,
        /// Images planned.
        planned: usize,
        /// Images that may be unreadable.
        images: usize,
        /// `engine.max_quarantine_fraction`.
        allowed: f64,
        /// One of them and its reason.
        example: String,
    },
    /// A stage that a requested stage needs, that is not done and was not requested.
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
    /// A table of this run that does not match its plan.
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
    /// Exit code of the command: 3 for an interruption; 2 for configuration, an error that recurs until the command
    /// line, the configuration or the files they name are changed; 1 for failed work, which may succeed when it is
    /// started again.
    pub fn exit_code(&self) -> u8 {
        let is_configuration = match self {
            Self::Interrupted => return 3,
            Self::Core(_) | Self::Usage(_) => true,
            Self::Text(error) => matches!(error, TextError::Encoding(_)),
            Self::Data(error) => is_data_configuration(error),
            Self::Clip(error) => is_clip_configuration(error),
            Self::Hub(error) => is_hub_configuration(error),
            Self::Ood(error) => is_ood_configuration(error),
            Self::Store(error) => is_store_configuration(error),
            Self::File { source, .. } => is_missing(source),
            Self::Demo(_)
            | Self::Table(_)
            | Self::NotAsPlanned { .. }
            | Self::Undecided { .. }
            | Self::Quarantine { .. }
            | Self::StageNotDone { .. }
            | Self::Inconsistent(_)
            | Self::Panicked { .. } => false,
        };
        code(is_configuration)
    }
}

/// Exit code for an error of this crate or of the libraries below it; `None` for any other error.
pub fn exit_code(error: &(dyn Error + 'static)) -> Option<u8> {
    if let Some(error) = error.downcast_ref::<PipelineError>() {
        return Some(error.exit_code());
    }
    let is_configuration = if error.is::<CoreError>() {
        true
    } else if let Some(error) = error.downcast_ref() {
        matches!(error, TextError::Encoding(_))
    } else if let Some(error) = error.downcast_ref() {
        is_data_configuration(error)
    } else if let Some(error) = error.downcast_ref() {
        is_clip_configuration(error)
    } else if let Some(error) = error.downcast_ref() {
        is_hub_configuration(error)
    } else if let Some(error) = error.downcast_ref() {
        is_ood_configuration(error)
    } else if let Some(error) = error.downcast_ref() {
        is_store_configuration(error)
    } else {
        return None;
    };
    Some(code(is_configuration))
}

fn code(is_configuration: bool) -> u8 {
    match is_configuration {
        true => 2,
        false => 1,
    }
}

/// A missing file is a wrong path, that is configuration; failing disks and networks report other kinds of errors.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn is_data_configuration(error: &DataError) -> bool {
    match error {
        DataError::MissingFolder { .. }
        | DataError::NoClasses { .. }
        | DataError::EmptyClass { .. }
        | DataError::ClassMissing { .. }
        | DataError::NoNamedFolder { .. }
        | DataError::UnknownSplit { .. }
        | DataError::ImageCount { .. }
        | DataError::NoFiles { .. }
        | DataError::Content { .. }
        | DataError::Pairs { .. }
        | DataError::NotClasses { .. }
        | DataError::ClassFolderName { .. }
        | DataError::LongPath { .. }
        | DataError::TooFewToDivide { .. }
        | DataError::NoTrainImages { .. }
        | DataError::TooFewShots { .. }
        | DataError::SplitFile { .. }
        | DataError::Key(_) => true,
        DataError::Io { source, .. } => {
            use std::io::ErrorKind as K;
            matches!(
                source.kind(),
                K::NotFound | K::Unsupported | K::InvalidInput
            )
        }
    }
}

/// A checkpoint or a text that the model does not accept is configuration. Device errors are not: names of devices and
/// number formats are checked before anything is opened ([`PipelineError::Usage`]), so here a device has failed while
/// working.
fn is_clip_configuration(error: &ClipError) -> bool {
    match error {
        ClipError::Read { source, .. } => is_missing(source),
        ClipError::NoWeights { .. }
        | ClipError::Format { .. }
        | ClipError::Config { .. }
        | ClipError::MissingTensor { .. }
        | ClipError::ExtraTensors { .. }
        | ClipError::Shape { .. }
        | ClipError::NotFinite { .. }
        | ClipError::Value { .. }
        | ClipError::Text(_) => true,
        ClipError::Write { .. }
        | ClipError::Input { .. }
        | ClipError::Device(_)
        | ClipError::Training(_)
        | ClipError::Tuning(_) => false,
    }
}

/// A repository that does not exist on the hub or is not accessible is configuration. One that is not cached is
/// configuration if the hub must not be asked; otherwise the network is usually unavailable for a time only.
fn is_hub_configuration(error: &HubError) -> bool {
    match error {
        HubError::Name { .. }
        | HubError::Unauthorized { .. }
        | HubError::NotFound { .. }
        | HubError::Option { .. }
        | HubError::NoCheckpoint { .. }
        | HubError::NoData { .. } => true,
        HubError::NotCached { offline, .. } => *offline,
        HubError::Stopped
        | HubError::Http { .. }
        | HubError::Corrupt { .. }
        | HubError::Io { .. } => false,
    }
}

/// The specification of a detector is configuration; the contents of its arrays and scores are not.
fn is_ood_configuration(error: &OodError) -> bool {
    match error {
        OodError::Spec { .. } => true,
        OodError::Length { .. }
        | OodError::NotFinite { .. }
        | OodError::ZeroRow { .. }
        | OodError::Mismatch { .. }
        | OodError::Label { .. }
        | OodError::Missing { .. }
        | OodError::Detector { .. }
        | OodError::NanScore { .. }
        | OodError::Metric { .. } => false,
    }
}

fn is_store_configuration(error: &clipood_store::Error) -> bool {
    use clipood_store::Error as E;
    match error {
        E::Location { .. } | E::OtherConfiguration { .. } | E::NoRun { .. } => true,
        E::InvalidPath { .. }
        | E::InvalidName { .. }
        | E::Range { .. }
        | E::Changed { .. }
        | E::TooLarge { .. }
        | E::OutOfSpace { .. }
        | E::Denied { .. }
        | E::Operation { .. }
        | E::Unstable { .. }
        | E::Random(_)
        | E::Runtime(_)
        | E::InsideRuntime
        | E::Json { .. }
        | E::Version { .. }
        | E::Damaged(_)
        | E::RunFileDamaged { .. }
        | E::NotCommitted { .. }
        | E::RecordMismatch { .. }
        | E::Footer { .. }
        | E::OtherFingerprint { .. }
        | E::ForeignPart { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of an error on its own, which must not change inside a [`PipelineError`].
    fn code_of<E>(error: E) -> u8
    where
        E: Error + 'static,
        PipelineError: From<E>,
    {
        let alone = exit_code(&error).unwrap();
        let wrapped = PipelineError::from(error);
        assert_eq!(wrapped.exit_code(), alone, "{wrapped}");
        assert_eq!(exit_code(&wrapped), Some(alone));
        alone
    }

    fn read(kind: io::ErrorKind) -> ClipError {
        let path = "model/config.json".to_string();
        ClipError::Read {
            path,
            source: kind.into(),
        }
    }

    fn not_cached(offline: bool) -> HubError {
        HubError::NotCached {
            name: "a/b".to_string(),
            why: "HF_HUB_OFFLINE is set".to_string(),
            files: "config.json".to_string(),
            place: "cache".into(),
            offline,
        }
    }

    #[test]
    fn what_only_a_person_can_mend_is_configuration() {
        let name = || "name".to_string();
        assert_eq!(code_of(CoreError::Fingerprint { text: name() }), 2);
        let folder = DataError::MissingFolder {
            dataset: name(),
            key: "root".to_string(),
            path: "gone".into(),
            problem: "no folder",
        };
        assert_eq!(code_of(folder), 2);
        assert_eq!(code_of(DataError::NoTrainImages { dataset: name() }), 2);
        let shots = DataError::TooFewShots {
            dataset: name(),
            class: "fish".to_string(),
            found: 4,
            wanted: 16,
        };
        assert_eq!(code_of(shots), 2);
        assert_eq!(code_of(read(io::ErrorKind::NotFound)), 2);
        assert_eq!(code_of(ClipError::Text("102 tokens".to_string())), 2);
        let shape = ClipError::Shape {
            origin: name(),
            name: "proj".to_string(),
            expected: vec![2],
            found: vec![3],
        };
        assert_eq!(code_of(shape), 2);
        let unknown = HubError::NotFound {
            url: name(),
            what: "repository",
        };
        assert_eq!(code_of(unknown), 2);
        assert_eq!(code_of(not_cached(true)), 2);
        let spec = OodError::Spec {
            text: "mmc".to_string(),
            problem: "did you mean mcm".to_string(),
        };
        assert_eq!(code_of(spec), 2);
        assert_eq!(code_of(clipood_store::Error::NoRun { path: name() }), 2);
        let gone = PipelineError::File {
            path: name(),
            action: "cannot open the folder",
            source: io::ErrorKind::NotFound.into(),
        };
        assert_eq!(gone.exit_code(), 2);
        assert_eq!(PipelineError::Usage(name()).exit_code(), 2);
    }

    #[test]
    fn what_may_succeed_when_it_is_started_again_is_failed_work() {
        let name = || "name".to_string();
        let folder = DataError::Io {
            path: "data".into(),
            source: io::ErrorKind::PermissionDenied.into(),
        };
        assert_eq!(code_of(folder), 1);
        assert_eq!(code_of(read(io::ErrorKind::TimedOut)), 1);
        assert_eq!(
            code_of(ClipError::Device("the device failed".to_string())),
            1
        );
        assert_eq!(
            code_of(ClipError::Training("the loss is NaN".to_string())),
            1
        );
        let network = HubError::Http {
            url: name(),
            problem: "timeout".to_string(),
        };
        assert_eq!(code_of(network), 1);
        assert_eq!(code_of(not_cached(false)), 1);
        let scores = OodError::NanScore {
            name: name(),
            index: 3,
        };
        assert_eq!(code_of(scores), 1);
        assert_eq!(code_of(clipood_store::Error::Unstable { path: name() }), 1);
        let panic = PipelineError::Panicked {
            stage: "train",
            message: name(),
        };
        assert_eq!(panic.exit_code(), 1);
        let quarantine = PipelineError::Quarantine {
            dataset: name(),
            quarantined: 2,
            planned: 10,
            images: 1,
            allowed: 0.1,
            example: name(),
        };
        assert_eq!(quarantine.exit_code(), 1);
    }

    #[test]
    fn an_interruption_has_a_code_of_its_own_and_a_foreign_error_none() {
        assert_eq!(exit_code(&PipelineError::Interrupted), Some(3));
        assert_eq!(exit_code(&io::Error::other("disk")), None);
    }
}
