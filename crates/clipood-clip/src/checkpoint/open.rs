//! Which files of a folder make a checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

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
    let mut warnings = vec![format!(
        "{origin} comes without a configuration: sizes are taken from its tensors, heads are 64 wide, pixel mean and \
         deviation are OpenAI's"
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
        let is_file = |name: &str| folder.join(name).is_file();
        let found = weights.iter().copied().find(|name| is_file(name))?;
        is_file(config).then_some(found)
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
    let preprocessor = "preprocessor_config.json";
    if folder.join(preprocessor).is_file() {
        let (json, origin) = read_text(folder, preprocessor)?;
        hugging_face::preprocess(&mut config, &json, &origin)?;
    } else {
        warnings.push(format!(
            "{} holds no {preprocessor}: pixel mean and deviation are OpenAI's",
            folder.display()
        ));
    }
    Ok(Checkpoint {
        config,
        weights: read_all(folder, name)?,
        warnings,
    })
}

/// A text file of the folder, and its path for messages.
fn read_text(folder: &Path, name: &str) -> Result<(String, String)> {
    let path = folder.join(name);
    let origin = path.display().to_string();
    match std::fs::read_to_string(&path) {
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
            all.insert(name, tensor.shape, tensor.data);
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
