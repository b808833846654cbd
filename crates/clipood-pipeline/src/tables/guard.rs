//! Readers that never panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::errors::ParquetError;

use super::error::{Result, TableError};
use crate::panics::panic_message;

/// Runs a reader. The decoder panics on some corrupt files, which becomes an error like any other.
pub(super) fn guard<T>(file: &str, read: impl FnOnce() -> Result<T>) -> Result<T> {
    // Anything that a panic leaves incomplete belongs to `read` and is dropped with it.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let text = format!("the decoder panicked: {}", panic_message(&*panic));
        Err(TableError::unreadable(file, ParquetError::General(text)))
    })
}
