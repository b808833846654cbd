//! Hand-written prompts: templates filled with the class names, their features averaged per class.

use clipood_clip::model::Device;
use clipood_core::Recipe;
use serde::Serialize;

use super::work::Work;
use crate::error::Result;
use crate::prompts::file::PromptSet;

/// The templates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HandWritten {
    /// Texts with `{}` for the class name.
    pub templates: Vec<String>,
}

impl HandWritten {
    /// The specification in a recipe.
    pub fn of(recipe: &Recipe) -> Self {
        let templates = recipe.prompt.templates.templates();
        Self {
            templates: templates.into_iter().map(String::from).collect(),
        }
    }

    /// Encodes the texts on `device`.
    ///
    /// # Errors
    /// A class name that is too long, a device that fails.
    pub fn make(&self, work: &Work<'_>, device: Device) -> Result<PromptSet> {
        let encoder = work.model.text_encoder(device)?;
        let templates: Vec<&str> = self.templates.iter().map(String::as_str).collect();
        let text = encoder.classes(work.classes, &templates)?;
        work.add(1);
        Ok(PromptSet {
            fingerprint: work.unit.fingerprint.clone(),
            classes: work.classes.to_vec(),
            text,
            state: None,
            probe: None,
            negatives: None,
        })
    }
}
