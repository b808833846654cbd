//! The texts of the classes and their features.

use std::path::Path;

use anyhow::{Context, Result};
use clipood_clip::ClipError;
use clipood_clip::model::{Device, Model};
use clipood_clip::tokenizer::Tokenizer;
use clipood_core::{CoreError, DescriptionFormat, TemplateSet, class_descriptions};
use clipood_pipeline::PipelineError;

use super::super::arrays::extension;
use super::task::Task;

/// What the texts are made from, for people.
pub fn origin(task: &Task) -> String {
    match &task.descriptions {
        Some(path) => path.display().to_string(),
        None => task.templates.clone(),
    }
}

/// The texts of each class: its descriptions, or its name in every template.
pub fn class_texts(task: &Task, classes: &[String]) -> Result<Vec<Vec<String>>> {
    let Some(path) = &task.descriptions else {
        let set = templates(&task.templates)?;
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
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the descriptions {}", path.display()))?;
    let origin = path.display().to_string();
    Ok(class_descriptions(&text, &origin, format, classes)?)
}

/// A named set, or a file. A name wins over a file of the same name.
fn templates(name: &str) -> Result<TemplateSet> {
    match TemplateSet::named(name) {
        Ok(set) => Ok(set),
        Err(_) if Path::new(name).is_file() => {
            let text = std::fs::read_to_string(name)
                .with_context(|| format!("cannot read the templates {name}"))?;
            Ok(TemplateSet::from_lines(&text, name)?)
        }
        Err(CoreError::UnknownName { hint, .. }) => Err(PipelineError::Usage(format!(
            "--templates {name}: neither a file nor a template set; {hint}"
        ))
        .into()),
        Err(error) => Err(error.into()),
    }
}

/// Normalised features of the classes, `[classes, D]`.
///
/// # Errors
/// A text that is longer than the context, with the class and its place.
pub fn encode(
    model: &Model,
    device: Device,
    task: &Task,
    classes: &[String],
    texts: &[Vec<String>],
) -> Result<Vec<f32>> {
    match model.text_encoder(device)?.ensembles(texts) {
        Err(ClipError::Text(message)) => {
            let problem = too_long(model, task, classes, texts).unwrap_or(message);
            Err(PipelineError::Usage(problem).into())
        }
        other => other.map_err(anyhow::Error::from),
    }
}

/// Where the first text that is too long comes from.
fn too_long(
    model: &Model,
    task: &Task,
    classes: &[String],
    texts: &[Vec<String>],
) -> Option<String> {
    let tokenizer = Tokenizer::new();
    let context = model.config.text.context;
    let (class, error) = texts.iter().enumerate().find_map(|(class, texts)| {
        let mut errors = texts
            .iter()
            .filter_map(|text| tokenizer.tokenize(text, context).err());
        Some((class, errors.next()?))
    })?;
    let place = match (&task.descriptions, &task.classes) {
        (Some(path), _) => format!("{}: ", path.display()),
        // No line of a class list is blank.
        (None, Some(path)) => format!("{}:{}: ", path.display(), class + 1),
        (None, None) => String::new(),
    };
    Some(format!("{place}class `{}`: {error}", classes[class]))
}
