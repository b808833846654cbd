//! One file a command.

pub mod run;

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
