//! From image files to classes and scores, in order.

use std::path::PathBuf;

use clipood_clip::model::EncodedImages;

use super::classifier::{Classified, Classifier};
use crate::encode::{Engine, Unreadable, convert_files};
use crate::error::Result;

/// What a file shows, or why it could not be read.
pub type Outcome = std::result::Result<Classified, Unreadable>;

/// Encodes every file on the devices of `engine`, classifies it and hands the outcome to `each`, in the order of `files`. A
/// file that cannot be read stops nothing. Patch features are made if the classifier uses them, whatever the engine says.
///
/// # Errors
/// The first error of `each`; as [`Engine::run`].
pub fn classify_files(
    engine: &Engine<'_>,
    files: &[PathBuf],
    classifier: &Classifier,
    each: impl FnMut(usize, Outcome) -> Result<()>,
) -> Result<()> {
    let engine = Engine {
        local: classifier.uses_patches(),
        ..engine.clone()
    };
    let classify = |features: EncodedImages| classifier.classify(&features.global, &features.local);
    convert_files(&engine, files, classify, each)
}
