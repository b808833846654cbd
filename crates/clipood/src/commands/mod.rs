//! One file a command, and what several of them need: arrays, columns of scores, standard output.

mod arrays;
mod columns;
pub mod detectors;
pub mod encode;
pub mod metrics;
pub mod preprocess;
pub mod run;
pub mod score;
pub mod similarity;
pub mod tokenize;
pub mod zero_shot;

use std::io::{self, Write};

use anyhow::Context;
use clipood_pipeline::PipelineError;

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
