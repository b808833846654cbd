//! From image files to classes and scores, in order.

use clipood_clip::model::EncodedImages;
use clipood_data::Source;

use super::classifier::{Classified, Classifier};
use crate::encode::{Engine, Unreadable, convert_files};
use crate::error::Result;

/// The classification of a file, or the reason why it could not be read.
pub type Outcome = std::result::Result<Classified, Unreadable>;

/// Encodes every file on the devices of `engine`, classifies it and calls `each` with the outcome, in the order of
/// `files`. Files that cannot be read do not end it. Patch features are computed if the classifier uses them, whatever
/// the setting of the engine.
///
/// # Errors
/// The first error of `each`; as [`Engine::run`].
pub fn classify_files(
    engine: &Engine<'_>,
    files: &[Source],
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
