//! What can go wrong when the demo world is drawn.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A picture of no or too many pixels.
    #[error("cannot draw a picture of {width} x {height} pixels")]
    Size {
        /// Pixels a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// A folder or file of the image trees.
    #[error("{path}: {action}")]
    File {
        /// The folder or file.
        path: String,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A picture that its encoder refused.
    #[error("{path}: cannot encode the picture: {reason}")]
    Encode {
        /// The file.
        path: String,
        /// What the encoder said.
        reason: String,
    },
}
