//! The arguments that every trainer receives.

use std::sync::Mutex;

use clipood_clip::model::Model;
use clipood_store::{Store, Unit};

use crate::interrupt::Interrupt;
use crate::progress::StageProgress;
use crate::sync::locked;

/// One prompt set to make, without its training data.
pub struct Work<'a> {
    /// Name of the prompt set, for messages.
    pub name: String,
    /// Its unit.
    pub unit: &'a Unit,
    /// Name of the recipe.
    pub recipe: &'a str,
    /// Class names, by label.
    pub classes: &'a [String],
    /// The model.
    pub model: &'a Model,
    /// The store of prompts, for checkpoints and logs.
    pub store: &'a Store,
    /// Steps between two checkpoints.
    pub checkpoint_steps: usize,
    /// Set by signals.
    pub interrupt: &'a Interrupt,
    /// Progress of the stage, in epochs.
    pub progress: &'a Mutex<StageProgress>,
}

impl Work<'_> {
    /// Prints a line about this prompt set.
    pub fn note(&self, text: &str) {
        locked(self.progress).note(&format!("{}: {text}", self.name));
    }

    /// `epochs` more are done.
    pub fn add(&self, epochs: u64) {
        locked(self.progress).add(epochs);
    }

    /// A step is done.
    pub fn step(&self) {
        locked(self.progress).step();
    }
}
