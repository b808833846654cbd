//! Errors of this crate.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A picture with a side of 0 or too many pixels.
    #[error("cannot draw a picture of {width} x {height} pixels")]
    Size {
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// A folder or file of the image trees that cannot be written, moved or replaced.
    #[error("{path}: {action}")]
    File {
        /// The folder or file.
        path: String,
        /// What failed.
        action: &'static str,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A picture that the encoder rejected.
    #[error("{path}: cannot encode the picture: {reason}")]
    Encode {
        /// The file.
        path: String,
        /// The encoder's message.
        reason: String,
    },
}
