//! Searching cached features: the images that are nearest to a text or to another image, exactly.

mod index;
mod recall;
mod stored;

pub use self::index::SearchIndex;
pub use self::recall::{BothRecalls, Recall, recall};
pub use self::stored::StoredFeatures;
