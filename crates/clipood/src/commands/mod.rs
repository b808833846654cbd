//! One file a command, and what several of them need: arrays, columns of scores, standard output.

mod arrays;
pub mod bench;
mod columns;
pub mod detect;
pub mod detectors;
pub mod encode;
pub mod explain;
mod features;
pub mod gc;
mod images;
mod look;
pub mod metrics;
mod models;
mod npy;
pub mod plan;
pub mod preprocess;
pub mod prompt;
pub mod report;
pub mod run;
pub mod score;
mod signals;
pub mod similarity;
pub mod status;
pub mod threshold;
pub mod tokenize;
pub mod worker;
pub mod zero_shot;

use std::io::{self, Write};

use anyhow::Context;
use clipood_clip::ClipError;
use clipood_clip::model::{Devices, Dtype, Model};
use clipood_pipeline::{PipelineError, Reporting};

/// 2 for bad usage or configuration, 3 for an interruption, 1 for everything else.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<PipelineError>() {
        Some(error) => error.exit_code(),
        None => match error.downcast_ref::<clipood_core::CoreError>() {
            Some(_) => 2,
            None => 1,
        },
    }
}

/// `--devices` and `--dtype` of a command whose output is a result: simulated devices are refused.
fn devices(devices: &str, dtype: &str) -> Result<Devices, PipelineError> {
    let devices = run_devices(devices, dtype)?;
    if devices.simulated.is_some() {
        return Err(PipelineError::Usage(
            "simulated devices compute nothing; only `clipood plan`, `run` and `worker` take them, for tests".to_string(),
        ));
    }
    Ok(devices)
}

/// `--devices` and `--dtype`; what this build or machine does not have is bad usage.
fn run_devices(devices: &str, dtype: &str) -> Result<Devices, PipelineError> {
    let usage = |error: ClipError| PipelineError::Usage(error.to_string());
    let dtype: Dtype = dtype.parse().map_err(usage)?;
    let devices: Devices = devices.parse().map_err(usage)?;
    dtype.check(devices.first()).map_err(usage)?;
    Ok(devices.with_dtype(dtype))
}

/// A number format that the model's image tower does not run in is bad usage.
fn check_dtype(model: &Model, devices: &Devices) -> Result<(), PipelineError> {
    model
        .check_dtype(devices.first(), devices.dtype)
        .map_err(|error| PipelineError::Usage(error.to_string()))
}

/// Progress for people, or with `--json-log` for machines.
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

/// Whether something was written to standard output. A reader that has seen enough and left, as `head` does, is no error.
fn written(result: io::Result<()>) -> anyhow::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}
