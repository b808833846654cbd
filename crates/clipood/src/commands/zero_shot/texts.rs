//! The texts of the classes and their features.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clipood_clip::ClipError;
use clipood_clip::model::{Device, Model};
use clipood_clip::tokenizer::Tokenizer;
use clipood_core::text_file::read_text;
use clipood_core::{CoreError, DescriptionFormat, TemplateSet, class_descriptions};
use clipood_pipeline::PipelineError;

use super::super::arrays::extension;

/// Which texts stand for the classes.
#[derive(clap::Args)]
pub struct TextArgs {
    /// Class names separated by commas, or a file with one per line, with or without its WordNet id, or a JSON list.
    /// Names may repeat: an image that fits several classes of one name is given to the first. `zero-shot` and `threshold`
    /// need no list: they take the names of the class folders.
    #[arg(long, value_name = "NAMES|FILE")]
    pub classes: Option<PathBuf>,
    /// Templates: simple, openai7, openai80, or a file with one per line, `{}` for the class name.
    #[arg(long, default_value = "simple", value_name = "SET|FILE")]
    pub templates: String,
    /// Texts that describe each class, instead of templates: a .json or .toml file with a list of texts per class.
    #[arg(long, value_name = "FILE", conflicts_with = "templates")]
    pub descriptions: Option<PathBuf>,
}

impl TextArgs {
    /// What the texts are made from, for the report.
    pub fn origin(&self) -> String {
        match &self.descriptions {
            Some(path) => path.display().to_string(),
            None => self.templates.clone(),
        }
    }

    /// The texts of each class: its descriptions, or its name in every template.
    pub fn class_texts(&self, classes: &[String]) -> Result<Vec<Vec<String>>> {
        let Some(path) = &self.descriptions else {
            let set = templates(&self.templates)?;
            let templates = set.templates();
            let filled = |name: &String| -> Vec<String> {
                templates.iter().map(|t| t.replace("{}", name)).collect()
            };
            return Ok(classes.iter().map(filled).collect());
        };
        let format = match extension(path).as_str() {
            "json" => DescriptionFormat::Json,
            "toml" => DescriptionFormat::Toml,
            _ => {
                return Err(PipelineError::Usage(format!(
                    "--descriptions {}: expected a file named .json or .toml",
                    path.display()
                ))
                .into());
            }
        };
        let text = read_text(path)?;
        let origin = path.display().to_string();
        Ok(class_descriptions(&text, &origin, format, classes)?)
    }

    /// Normalised features of the classes, `[classes, D]`.
    ///
    /// # Errors
    /// A text that is longer than the context, with the class and the position of the text.
    pub fn encode(
        &self,
        model: &Model,
        device: Device,
        classes: &[String],
        texts: &[Vec<String>],
    ) -> Result<Vec<f32>> {
        match model.text_encoder(device)?.ensembles(texts) {
            Err(ClipError::Text(message)) => {
                let problem = self.too_long(model, classes, texts).unwrap_or(message);
                Err(PipelineError::Usage(problem).into())
            }
            other => other.map_err(anyhow::Error::from),
        }
    }

    /// Class and position of the first text that is too long.
    fn too_long(&self, model: &Model, classes: &[String], texts: &[Vec<String>]) -> Option<String> {
        let tokenizer = Tokenizer::new();
        let context = model.config.text.context;
        let (class, error) = texts.iter().enumerate().find_map(|(class, texts)| {
            let mut errors = texts
                .iter()
                .filter_map(|text| tokenizer.tokenize(text, context).err());
            Some((class, errors.next()?))
        })?;
        let place = match (&self.descriptions, &self.classes) {
            (Some(path), _) => format!("{}: ", path.display()),
            (None, Some(path)) if extension(path) == "json" => format!("{}: ", path.display()),
            // No line of a class list is blank.
            (None, Some(path)) => format!("{}:{}: ", path.display(), class + 1),
            (None, None) => String::new(),
        };
        Some(format!("{place}class `{}`: {error}", classes[class]))
    }
}

/// A named set, or a file. A name wins over a file of the same name.
fn templates(name: &str) -> Result<TemplateSet> {
    match TemplateSet::named(name) {
        Ok(set) => Ok(set),
        Err(_) if Path::new(name).is_file() => {
            let text = read_text(Path::new(name))?;
            Ok(TemplateSet::from_lines(&text, name)?)
        }
        Err(CoreError::UnknownName { hint, .. }) => Err(PipelineError::Usage(format!(
            "--templates {name}: neither a file nor a template set; {hint}"
        ))
        .into()),
        Err(error) => Err(error.into()),
    }
}
