//! The demo world of clipood: drawn scenes, captions and the program that trains the demo CLIP on them.
//!
//! # How to
//! [`ensure_dataset`] draws the image folders of the benchmark, and [`training_example`] one example of the stream that the model
//! is trained on:
//!
//! ```
//! let example = clipood_demo::training_example(1, 0, 64, 1.0)?;
//! assert_eq!(example.picture.pixels.len(), 64 * 64 * 3);
//! assert!(!example.caption.is_empty());
//! # Ok::<(), clipood_demo::DemoError>(())
//! ```
//!
//! Everything is a pure function of seeds and indices. The stream and the benchmark use differently keyed random number
//! generators and different styles, so no test picture is ever trained on.

mod error;
mod model;
mod objects;
mod paint;
mod scenes;
mod stream;
#[cfg(feature = "train")]
pub mod train;
mod trees;

pub use error::DemoError;
pub use model::{ModelFiles, model_files};
pub use objects::{ID_CLASSES, NEAR_CLASSES, OTHER_CLASSES};
pub use paint::Picture;
pub use stream::{Example, training_example};
pub use trees::{PlannedPicture, draw_planned, ensure_dataset, planned_pictures};
