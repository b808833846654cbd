//! Which files of a folder make a checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use clipood_core::files::read_file;
use serde::Deserialize;

use super::infer::{Shapes, infer};
use super::weight_file::read_weights;
use super::{hugging_face, names};
use crate::config::{Activation, ClipConfig};
use crate::error::{ClipError, Result};
use crate::weights::Weights;

/// Most extra tensors that a message lists.
const NAMED_EXTRAS: usize = 3;

const OPEN_CLIP_CONFIG: &str = "open_clip_config.json";
const OPEN_CLIP_WEIGHTS: [&str; 2] = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"];
const HUGGING_FACE_CONFIG: &str = "config.json";
const HUGGING_FACE_WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Where transformers keeps the preprocessing of images, in the order in which its version 5 looks for it.
const PROCESSORS: [&str; 2] = ["processor_config.json", "preprocessor_config.json"];
/// Most bytes of a configuration or of an index of weights; those of the largest models are below 200 kB.
const MAX_TEXT: u64 = 16 << 20;

/// Settings of the user that override a checkpoint's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// The MLP activation. It overrides the configuration's; a weight file alone does not contain it.
    pub activation: Option<Activation>,
}

/// An opened checkpoint. Every tensor in it belongs to the configuration; some may be missing.
pub(crate) struct Checkpoint {
    pub(crate) config: ClipConfig,
    pub(crate) weights: Weights,
    pub(crate) warnings: Vec<String>,
}

/// Opens the folder or file at `path`.
///
/// # Errors
/// Files that are missing, damaged or of another architecture, and configurations with settings that this crate does not
/// implement.
pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    let mut checkpoint = if path.is_dir() {
        open_folder(path)?
    } else {
        open_file(path, options)?
    };
    if let Some(activation) = options.activation {
        checkpoint.config.activation = activation;
    }
    // What models trained with SigLIP's loss add to every logit, which changes no softmax over classes.
    if checkpoint.weights.remove("logit_bias").is_some() {
        checkpoint.warnings.push(format!(
            "{} holds `logit_bias`, which is passed over: the same number for all classes, it changes no score of a softmax",
            checkpoint.weights.origin
        ));
    }
    refuse_extras(&checkpoint)?;
    Ok(checkpoint)
}

/// A weight file alone.
fn open_file(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    let weights = names::to_openai(read_weights(path)?)?;
    let shapes = Shapes {
        origin: &weights.origin,
        tensors: weights
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice()))
            .collect(),
    };
    let config = infer(&shapes, options.activation.unwrap_or(Activation::QuickGelu))?;
    let origin = &weights.origin;
    let image = &config.image;
    let image_head = image.family.attention_width(image.width) / image.heads;
    let heads = match (image_head, config.text.width / config.text.heads) {
        (image, text) if image == text => format!("heads are {text} wide"),
        (image, text) => format!("heads are {image} wide for images and {text} wide for texts"),
    };
    let mut warnings = vec![format!(
        "{origin} comes without a configuration: sizes are taken from its tensors, {heads}, pixel mean and deviation are \
         OpenAI's"
    )];
    if options.activation.is_none() {
        warnings.push(format!(
            "{origin} does not say its activation: QuickGELU is assumed, as OpenAI's models have it; most of LAION's \
             need `--activation gelu`"
        ));
    }
    Ok(Checkpoint {
        config,
        weights,
        warnings,
    })
}

fn open_folder(folder: &Path) -> Result<Checkpoint> {
    let first = |config: &str, weights: &[&'static str]| -> Option<&'static str> {
        // What is there and is no file is refused by name when it is opened.
        let exists = |name: &str| folder.join(name).exists();
        let found = weights.iter().copied().find(|name| exists(name))?;
        exists(config).then_some(found)
    };
    if let Some(name) = first(OPEN_CLIP_CONFIG, &OPEN_CLIP_WEIGHTS) {
        let (json, origin) = read_text(folder, OPEN_CLIP_CONFIG)?;
        return Ok(Checkpoint {
            config: ClipConfig::from_open_clip(&json, &origin)?,
            weights: read_all(folder, name)?,
            warnings: Vec::new(),
        });
    }
    if let Some(name) = first(HUGGING_FACE_CONFIG, &HUGGING_FACE_WEIGHTS) {
        return open_hugging_face(folder, name);
    }
    Err(ClipError::NoWeights {
        path: folder.display().to_string(),
        looked_for: format!(
            "{OPEN_CLIP_CONFIG} with {}; or {HUGGING_FACE_CONFIG} with {}",
            OPEN_CLIP_WEIGHTS.join(" or "),
            HUGGING_FACE_WEIGHTS.join(" or ")
        ),
    })
}

fn open_hugging_face(folder: &Path, name: &str) -> Result<Checkpoint> {
    let (json, origin) = read_text(folder, HUGGING_FACE_CONFIG)?;
    let mut config = hugging_face::config(&json, &origin)?;
    let mut warnings = Vec::new();
    preprocess(folder, &mut config, &mut warnings)?;
    Ok(Checkpoint {
        config,
        weights: read_all(folder, name)?,
        warnings,
    })
}

/// Takes the preprocessing from the first of the folder's files that has it.
fn preprocess(folder: &Path, config: &mut ClipConfig, warnings: &mut Vec<String>) -> Result<()> {
    let [nested, alone] = PROCESSORS;
    let mut found = Vec::new();
    for name in PROCESSORS {
        if !folder.join(name).exists() {
            continue;
        }
        let (json, origin) = read_text(folder, name)?;
        let settings = if name == nested {
            hugging_face::image_processor(&json, &origin)?
        } else {
            let settings = serde_json::from_str(&json).map_err(|e| ClipError::Config {
                origin: origin.clone(),
                reason: e.to_string(),
            })?;
            Some(settings)
        };
        found.extend(settings.map(|settings| (settings, origin)));
    }
    let mut found = found.into_iter();
    let Some((settings, origin)) = found.next() else {
        warnings.push(format!(
            "{} holds neither {alone} nor a {nested} with `image_processor`: pixel mean and deviation are OpenAI's",
            folder.display()
        ));
        return Ok(());
    };
    let before = config.clone();
    hugging_face::preprocess(config, settings, &origin)?;
    for (settings, other) in found {
        let mut second = before.clone();
        let read = hugging_face::preprocess(&mut second, settings, &other);
        if read.is_err() || second != *config {
            warnings.push(format!(
                "{origin} and {other} differ: the first counts, as in transformers 5"
            ));
        }
    }
    Ok(())
}

/// A text file of the folder, and its path for messages.
fn read_text(folder: &Path, name: &str) -> Result<(String, String)> {
    let path = folder.join(name);
    let origin = path.display().to_string();
    let text = read_file(&path, MAX_TEXT).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    });
    match text {
        Ok(text) => Ok((text, origin)),
        Err(source) => Err(ClipError::Read {
            path: origin,
            source,
        }),
    }
}

/// Which file holds which tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The tensors of the file called `name`, or of the files that it lists.
fn read_all(folder: &Path, name: &str) -> Result<Weights> {
    if !name.ends_with(".index.json") {
        return names::to_openai(read_weights(&folder.join(name))?);
    }
    let (json, origin) = read_text(folder, name)?;
    let fail = |reason: String| ClipError::Config {
        origin: origin.clone(),
        reason,
    };
    let index: Index = serde_json::from_str(&json).map_err(|e| fail(e.to_string()))?;
    let files: BTreeSet<&String> = index.weight_map.values().collect();
    let mut all = Weights::new(origin.clone());
    for file in files {
        // The parts must be in the folder of the index.
        if file.contains(['/', '\\']) || file.starts_with('.') {
            return Err(fail(format!("`{file}` is no name of a file beside it")));
        }
        for (name, tensor) in read_weights(&folder.join(file))?.into_tensors() {
            all.insert_tensor(name, tensor);
        }
    }
    names::to_openai(all)
}

/// Refuses tensors that do not belong to the configuration.
fn refuse_extras(checkpoint: &Checkpoint) -> Result<()> {
    let known: BTreeSet<String> = checkpoint
        .config
        .parameters()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let extras: Vec<&str> = checkpoint
        .weights
        .names()
        .filter(|name| !known.contains(*name))
        .collect();
    if extras.is_empty() {
        return Ok(());
    }
    Err(ClipError::ExtraTensors {
        origin: checkpoint.weights.origin.clone(),
        count: extras.len(),
        names: extras[..extras.len().min(NAMED_EXTRAS)].join(", "),
    })
}
