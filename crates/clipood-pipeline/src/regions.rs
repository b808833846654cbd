//! Pictures of what a model sees in an image: which of its patches LoCoOp extracts as background, and how similar every patch
//! is to a class.

mod colours;
mod patches;
mod picture;

pub use self::patches::{HeatMap, PatchCosines, Regions, likeliest_classes};
pub use self::picture::Picture;
