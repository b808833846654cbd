//! Contrastive fine-tuning of a checkpoint on pairs of images and captions.
//!
//! [`PairSet::gather`] reads the files of pairs and finds the images, [`fine_tune`] trains, and an [`OutFolder`] takes the result,
//! all of it or nothing; until then [`Checkpoints`] keep the state of the training. With frozen towers ([`Part::Projections`]) every image and every caption is encoded once, by the engine on
//! all devices; the training itself then works on small matrices. Whole towers see the evaluation view of every image in each epoch.

mod checkpoint;
mod folder;
mod pairs;
mod train;
mod views;

pub use clipood_clip::contrastive::{AdamWOptions, Part};

pub use self::checkpoint::Checkpoints;
pub use self::folder::OutFolder;
pub use self::pairs::{PairSet, Skipped};
pub use self::train::{CurvePoint, FineTuning, fine_tune};
