//! What can go wrong with a checkpoint, a configuration or an input.

/// An error of this crate. Messages name the file, the tensor and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A model folder or file has no weights in a known format.
    #[error("{path}: no CLIP weights found (looked for {looked_for})")]
    NoWeights {
        /// The folder or file.
        path: String,
        /// File names that would have been read.
        looked_for: String,
    },
    /// A weight file is damaged or not in the format its name says.
    #[error("{origin}: not a readable weight file: {reason}")]
    Format {
        /// The file.
        origin: String,
        /// What the reader said.
        reason: String,
    },
    /// A configuration file is malformed.
    #[error("{origin}: {reason}")]
    Config {
        /// The file.
        origin: String,
        /// The key and what is wrong with it.
        reason: String,
    },
    /// A tensor that the architecture needs is missing.
    #[error("{origin}: tensor `{name}` is missing (expected shape {expected:?})")]
    MissingTensor {
        /// The weight file.
        origin: String,
        /// OpenAI state-dict name.
        name: String,
        /// Shape the configuration asks for.
        expected: Vec<usize>,
    },
    /// A weight file holds tensors that this architecture does not have.
    #[error(
        "{origin}: tensors that this architecture does not have ({count}: {names}); the model would be computed \
         without them"
    )]
    ExtraTensors {
        /// The weight file.
        origin: String,
        /// How many.
        count: usize,
        /// The first of their names.
        names: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{origin}: tensor `{name}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The weight file.
        origin: String,
        /// OpenAI state-dict name.
        name: String,
        /// Shape the configuration asks for.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A tensor holds NaN or infinite values.
    #[error("{origin}: tensor `{name}` holds a value that is not finite at position {position}")]
    NotFinite {
        /// The weight file.
        origin: String,
        /// OpenAI state-dict name.
        name: String,
        /// Index in row-major order.
        position: usize,
    },
    /// A tensor holds a value that no model can have been trained to.
    #[error("{origin}: tensor `{name}` holds {found:?} at position {position}, allowed: {allowed}")]
    Value {
        /// The weight file.
        origin: String,
        /// OpenAI state-dict name.
        name: String,
        /// Index in row-major order.
        position: usize,
        /// The value.
        found: f32,
        /// Which values are possible.
        allowed: &'static str,
    },
    /// Data handed to an encoder has the wrong size.
    #[error("{what}: expected {expected} values, found {found}")]
    Input {
        /// What was handed over.
        what: &'static str,
        /// Values expected.
        expected: usize,
        /// Values found.
        found: usize,
    },
    /// A device that this build or machine does not have.
    #[error("{0}")]
    Device(String),
    /// A text does not fit the context.
    #[error("text does not fit: {0}")]
    Text(String),
    /// Prompt training cannot go on.
    #[error("prompt training: {0}")]
    Training(String),
    /// Fine-tuning cannot go on.
    #[error("fine-tuning: {0}")]
    Tuning(String),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, ClipError>;
