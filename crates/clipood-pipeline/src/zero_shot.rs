//! Zero-shot classification of image files: no recipe, no store, a row an image.
//!
//! Images are decoded in parallel, encoded and scored on worker threads and handed over in their order; bounded channels
//! join the steps, so memory does not grow with the number of images.

mod stream;
mod tally;

pub use stream::{Classifier, Unreadable, classify_files};
pub use tally::{ClassCounts, Tally};
