//! The one error type of the crate.

/// What can be wrong with features, detectors or scores.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OodError {
    /// A slice does not have the length that its stated shape asks for.
    #[error("{name}: a shape of {shape} needs {expected} values, found {found}")]
    Length {
        /// Which array.
        name: String,
        /// The stated shape, such as `40 x 64`.
        shape: String,
        /// Product of the shape.
        expected: usize,
        /// Length of the slice.
        found: usize,
    },
    /// A feature is NaN or infinite.
    #[error("{name}: row {row}, column {column} is {value}, expected a finite number")]
    NotFinite {
        /// Which array.
        name: String,
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
        /// The value found.
        value: f32,
    },
    /// A feature row is all zeros (or its squares underflow), so that it has no direction to compare.
    #[error("{name}: row {row} is all zeros and has no direction")]
    ZeroRow {
        /// Which array.
        name: String,
        /// Row, from 0.
        row: usize,
    },
    /// Two arrays do not fit together, or an array is smaller than what uses it asks for.
    #[error("{name}: expected {expected} {what}, found {found}")]
    Mismatch {
        /// Which array.
        name: String,
        /// What is counted: rows, columns, labels.
        what: &'static str,
        /// How many are needed, in words.
        expected: String,
        /// How many there are.
        found: usize,
    },
    /// A label names no row of the text features.
    #[error("{name}: row {row} has class {class}, but there are {classes} classes")]
    Label {
        /// Which array.
        name: String,
        /// Row, from 0.
        row: usize,
        /// The label found.
        class: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A detector is fitted on, or scores, an array that was not given.
    #[error("detector {detector}: needs {missing}, which was not given")]
    Missing {
        /// Name of the detector.
        detector: String,
        /// Name of the array.
        missing: &'static str,
    },
    /// A detector cannot be fitted on or applied to this data.
    #[error("detector {detector}: {problem}")]
    Detector {
        /// Name of the detector.
        detector: String,
        /// What is wrong and what to try.
        problem: String,
    },
    /// The text of a detector specification cannot be read.
    #[error("detector specification {text:?}: {problem}")]
    Spec {
        /// The text.
        text: String,
        /// What is wrong, and the nearest valid word.
        problem: String,
    },
    /// A score is NaN, which has no place in an order.
    #[error("{name}: score {index} is NaN")]
    NanScore {
        /// Which list of scores.
        name: String,
        /// Index, from 0.
        index: usize,
    },
    /// A metric has no meaning for this input.
    #[error("{name}: {problem}")]
    Metric {
        /// Which metric or input.
        name: String,
        /// What is wrong.
        problem: String,
    },
}
