//! One file per command, and code that several of them share: options, arrays, columns of scores, standard output.

mod args;
mod arrays;
pub mod bench;
mod class_list;
mod clusters;
mod columns;
pub mod compare;
pub mod completions;
pub mod data;
pub mod detect;
pub mod detectors;
pub mod encode;
mod estimate;
pub mod explain;
mod features;
pub mod finetune;
pub mod gc;
mod images;
pub mod judge_image;
mod look;
pub mod metrics;
mod models;
mod npy;
mod npz;
pub mod plan;
pub mod preprocess;
pub mod prompt;
pub mod recipes;
pub mod regions;
pub mod report;
pub mod run;
pub mod schema;
pub mod score;
pub mod search;
mod signals;
pub mod similarity;
pub mod status;
pub mod submit;
pub mod threshold;
pub mod tokenize;
pub mod worker;
pub mod zero_shot;

use std::io::{self, Write};

use anyhow::Context;
use clipood_clip::model::{Devices, Model};
use clipood_pipeline::{PipelineError, Reporting};

/// Exit code: 2 for bad usage or configuration, 3 for an interruption, 1 for everything else. It is determined by the
/// outermost error in the chain that comes from the pipeline or a library below it.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    error
        .chain()
        .find_map(clipood_pipeline::exit_code)
        .unwrap_or(1)
}

/// Rejects a number format that the image tower of the model does not support, as bad usage.
fn check_dtype(model: &Model, devices: &Devices) -> Result<(), PipelineError> {
    model
        .check_dtype(devices.first(), devices.dtype)
        .map_err(|error| PipelineError::Usage(error.to_string()))
}

/// How progress is reported: as text, or with `--json-log` as JSON.
fn reporting(json_log: bool) -> Reporting {
    match json_log {
        true => Reporting::Json,
        false => Reporting::Human,
    }
}

/// Writes a text to standard output.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))?;
    Ok(())
}

/// Whether the text was written to standard output. If the reader has closed the pipe, as `head` does, this is not an
/// error.
pub fn written(result: io::Result<()>) -> anyhow::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use clipood_clip::ClipError;
    use clipood_core::CoreError;

    use super::*;

    #[test]
    fn the_exit_code_is_found_below_any_context() {
        let code = |error: anyhow::Error| exit_code(&error.context("detector").context("the file"));
        let path = "gone".to_string();
        let missing = ClipError::Read {
            path: path.clone(),
            source: io::ErrorKind::NotFound.into(),
        };
        assert_eq!(code(missing.into()), 2);
        assert_eq!(code(ClipError::Training(path.clone()).into()), 1);
        assert_eq!(
            code(CoreError::Fingerprint { text: path.clone() }.into()),
            2
        );
        assert_eq!(code(PipelineError::Usage(path.clone()).into()), 2);
        assert_eq!(code(PipelineError::Inconsistent(path).into()), 1);
        assert_eq!(code(PipelineError::Interrupted.into()), 3);
        assert_eq!(code(anyhow::anyhow!("no image in the folders given")), 1);
        assert_eq!(code(io::Error::from(io::ErrorKind::NotFound).into()), 1);
    }
}
