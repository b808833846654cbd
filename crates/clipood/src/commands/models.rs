//! `--model` and `--activation` of the commands that take one model.

use anyhow::Result;
use clipood_clip::checkpoint::OpenOptions;
use clipood_clip::config::Activation;
use clipood_clip::model::Model;
use clipood_pipeline::{PipelineError, Reporting, open_named};

use super::args::heading;

/// The model, and settings that its checkpoint may lack.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// Model: `demo`, a folder (open_clip or Hugging Face), a weight file, or a name on the Hugging Face hub such as
    /// openai/clip-vit-base-patch16.
    #[arg(long, help_heading = heading::MODEL)]
    model: Option<String>,
    /// Activation of a checkpoint that does not name it, or names the wrong one: gelu or quick_gelu.
    #[arg(long, help_heading = heading::MODEL)]
    activation: Option<Activation>,
}

impl ModelArgs {
    /// Opens the model, which must be given; assumptions about its checkpoint are reported on standard error.
    pub fn open(&self) -> Result<Model> {
        match &self.model {
            Some(name) => self.open_or(name),
            None => {
                let problem = "--model is missing; name one, such as demo or a folder".to_owned();
                Err(PipelineError::Usage(problem).into())
            }
        }
    }

    /// Opens the model, or `default` if none is given.
    pub fn open_or(&self, default: &str) -> Result<Model> {
        let options = OpenOptions {
            activation: self.activation,
        };
        Ok(open_named(self.name_or(default), &options, Reporting::Human)?.model)
    }

    /// The model's name.
    pub fn name_or<'a>(&'a self, default: &'a str) -> &'a str {
        self.model.as_deref().unwrap_or(default)
    }
}
