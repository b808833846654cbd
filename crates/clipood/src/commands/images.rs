//! Finding the images that the command line names, and reporting those that cannot be read, for several commands.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clipood_core::files::kind_of;
use clipood_core::{key_part, shown};
use clipood_data::{EXTENSIONS, FoundImage, find_images};
use clipood_pipeline::{PipelineError, Reporting, Unreadable, report_left_out};

/// An image file that the command line names, or that lies in a folder that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The file.
    pub path: PathBuf,
    /// Its name without folders, or its path below the folder that the command line names; with the escapes of image keys.
    pub name: String,
}

/// The files themselves and the images below the folders. Files are not looked at, so that one that cannot be read costs
/// nothing but itself.
///
/// # Errors
/// A folder that cannot be read, and folders without an image.
pub fn named_images(paths: &[PathBuf]) -> Result<Vec<Named>> {
    let mut all = Vec::with_capacity(paths.len());
    for path in paths {
        if !path.is_dir() {
            let name = key_part(path.file_name().unwrap_or(path.as_os_str()));
            let path = path.clone();
            all.push(Named { path, name });
            continue;
        }
        for image in images_below(path)? {
            let below = image.path.strip_prefix(path).unwrap_or(&image.path);
            let parts: Vec<String> = below.iter().map(key_part).collect();
            let name = parts.join("/");
            let path = image.path;
            all.push(Named { path, name });
        }
    }
    if all.is_empty() {
        bail!(
            "no image in the folders given; expected files named {}",
            EXTENSIONS.join(", ")
        );
    }
    Ok(all)
}

/// The images below a folder. What is left out is counted on standard error.
///
/// # Errors
/// A folder that cannot be read.
pub fn images_below(folder: &Path) -> Result<Vec<FoundImage>> {
    let (found, left_out) = find_images(folder).map_err(PipelineError::from)?;
    report_left_out(Reporting::Human, &shown(folder), &left_out);
    Ok(found)
}

/// Checks that a path leads to a regular file.
///
/// # Errors
/// A path that leads nowhere, and a FIFO, a device or the like, which would be waited for.
pub fn check_file(path: &Path) -> Result<()> {
    let found = std::fs::metadata(path)
        .with_context(|| format!("cannot read {}", shown(path)))?
        .file_type();
    if found.is_file() {
        return Ok(());
    }
    let (path, kind) = (shown(path), kind_of(found));
    let problem = format!("{path} is {kind}, expected an image file or a folder");
    Err(PipelineError::Usage(problem).into())
}

/// Lists a file that could not be read on standard error.
pub fn report_unreadable(path: impl AsRef<OsStr>, reason: &Unreadable) {
    let Unreadable { kind, message } = reason;
    clipood_pipeline::tell(&format!("cannot read {} ({kind}): {message}", shown(path)));
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
