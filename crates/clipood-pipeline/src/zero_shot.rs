//! Zero-shot classification of image files: no recipe, no store, one result per image.

mod classifier;
mod stream;
mod tally;

pub use classifier::{Classified, Classifier};
pub use stream::{Outcome as ImageOutcome, classify_files};
pub use tally::{ClassCounts, Tally};
