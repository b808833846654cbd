//! CLIP in Burn: tokenizer, checkpoints, image and text encoders, prompt learner.
//!
//! # How to
//! Open a [`model::Model`], make the encoder you need, hand it plain slices:
//!
//! ```no_run
//! use clipood_clip::checkpoint::OpenOptions;
//! use clipood_clip::model::{Device, Model};
//!
//! let model = Model::open(std::path::Path::new("models/my-clip"), &OpenOptions::default())?;
//! let device: Device = "auto".parse()?;
//! let names = ["star".to_string(), "fish".to_string()];
//! let text = model.text_encoder(device)?.classes(&names, &["a photo of a {}"])?; // [2, D], normalised
//! let side = model.config.image.size;
//! let pixels = vec![0.0; 3 * side * side]; // one normalised image
//! let image = model.image_encoder(device)?.encode(pixels, true)?; // global [1, D], local [1, positions, D]
//! assert_eq!(image.global.len() * 2, text.len());
//! # Ok::<(), clipood_clip::ClipError>(())
//! ```
//!
//! Everything specific to Burn's version stays inside this crate.

pub mod checkpoint;
pub mod config;
pub mod device;
pub mod encoder;
pub mod error;
pub mod init;
pub mod kernels;
pub mod layers;
pub mod model;
mod packed_vit;
pub mod prompt;
pub mod resnet;
pub mod text;
pub mod tokenizer;
pub mod vit;
pub mod weights;

pub use error::{ClipError, Result};
