//! Stage `train`: the prompt sets of a recipe, hand-written or trained, and the linear probes in their place, kept in the
//! store under their fingerprints.

mod checkpoint;
mod data;
mod file;
mod probe;
mod stage;

pub use data::{labels_of, shot_features};
pub use file::{PromptSet, prompt_footer};
pub use stage::{
    PromptKey, STAGE as TRAIN, prompt_inputs, prompt_keys, prompt_sets, prompt_unit, prompt_units,
};
