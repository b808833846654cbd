//! Panics as errors.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::ScopedJoinHandle;

use crate::error::{PipelineError, Result};

pub use clipood_data::panic_message;

/// Calls `run`; a panic becomes an error.
///
/// # Errors
/// Those of `run`, and [`PipelineError::Panicked`].
pub fn guarded<T>(stage: &'static str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(panicked(stage, &*panic)))
}

/// Waits for a thread; a panic becomes an error.
///
/// # Errors
/// Those of the thread, and [`PipelineError::Panicked`].
pub fn joined<T>(stage: &'static str, thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    let end = thread.join();
    end.unwrap_or_else(|panic| Err(panicked(stage, &*panic)))
}

fn panicked(stage: &'static str, panic: &(dyn Any + Send)) -> PipelineError {
    let message = panic_message(panic);
    PipelineError::Panicked { stage, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        let made: Result<()> = guarded("encode", || panic!("out of memory"));
        assert!(made.is_err_and(|e| e.to_string().contains("out of memory")));
        let made: Result<()> = guarded("encode", || panic!("card {}", 3));
        assert!(made.is_err_and(|e| e.to_string().contains("card 3")));
        let ended = std::thread::scope(|scope| {
            joined("decode", scope.spawn(|| -> Result<()> { panic!("lost") }))
        });
        let message = ended.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(
            message.contains("`decode`") && message.contains("lost"),
            "{message}"
        );
    }
}
