//! A flag that signals set and that stages check between pieces of work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{PipelineError, Result};

/// Shared flag; clones see the same one.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Asks every stage to stop after its current unit.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether a stop was requested.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// # Errors
    /// [`PipelineError::Interrupted`] once a stop was requested.
    pub fn check(&self) -> Result<()> {
        if self.is_set() {
            return Err(PipelineError::Interrupted);
        }
        Ok(())
    }
}
