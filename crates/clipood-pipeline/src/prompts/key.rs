//! Keys of prompt sets: method, shots and seed.

use clipood_core::{Method, Recipe};

use crate::error::{PipelineError, Result};

/// Identifies a prompt set: the column `prompt` of every table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PromptKey {
    /// The method.
    pub method: Method,
    /// Training images per class; `None` for hand-written prompts.
    pub shots: Option<usize>,
    /// Seed of split and training; `None` for hand-written prompts.
    pub seed: Option<u64>,
}

impl PromptKey {
    /// `zero-shot`, `coop-16shot-seed1`.
    pub fn name(&self) -> String {
        match (self.shots, self.seed) {
            (Some(shots), Some(seed)) => format!("{}-{shots}shot-seed{seed}", self.method),
            _ => self.method.to_string(),
        }
    }

    /// Shots and seed of a method that learns from images.
    ///
    /// # Errors
    /// A key without them, which cannot come from a recipe.
    pub fn shots_and_seed(&self) -> Result<(usize, u64)> {
        match (self.shots, self.seed) {
            (Some(shots), Some(seed)) => Ok((shots, seed)),
            _ => Err(PipelineError::Inconsistent(format!(
                "prompt set {} has no shots to learn from",
                self.name()
            ))),
        }
    }
}

/// The prompt sets of a recipe: every method, number of shots and seed.
pub fn prompt_keys(recipe: &Recipe) -> Vec<PromptKey> {
    let mut keys = Vec::new();
    for method in &recipe.methods {
        if !method.uses_shots() {
            keys.push(PromptKey {
                method: *method,
                shots: None,
                seed: None,
            });
            continue;
        }
        for shots in &recipe.shots {
            for seed in &recipe.seeds {
                keys.push(PromptKey {
                    method: *method,
                    shots: Some(*shots),
                    seed: Some(*seed),
                });
            }
        }
    }
    keys
}
