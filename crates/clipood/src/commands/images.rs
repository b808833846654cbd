//! Reporting image files that cannot be read, for several commands.

use std::path::Path;
use std::process::ExitCode;

use clipood_pipeline::Unreadable;

/// Lists a file that could not be read on standard error.
pub fn report_unreadable(path: &Path, reason: &Unreadable) {
    let Unreadable { kind, message } = reason;
    clipood_pipeline::tell(&format!(
        "cannot read {} ({kind}): {message}",
        clipood_core::shown(path)
    ));
}

/// The error of a command that could read none of its images.
pub fn none_readable(images: usize) -> anyhow::Error {
    anyhow::anyhow!("none of {images} images could be read")
}

/// 0 if all images were read, 1 if some are missing in the output.
pub fn exit_of(unreadable: usize) -> ExitCode {
    match unreadable {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
