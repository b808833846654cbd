//! Zero-shot classification of image files: no recipe, no store, one result per image.

mod classifier;
mod stream;
mod tally;

pub use classifier::Classifier;
pub use stream::classify_files;
pub use tally::{ClassCounts, Tally};
