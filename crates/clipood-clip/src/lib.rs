//! CLIP in Burn: tokenizer, checkpoints, image and text encoders, prompt learner, contrastive training.
//!
//! # How to
//! Open a [`model::Model`], create the encoder you need from it, and pass plain slices:
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
//! let pixels = vec![0; 3 * side * side]; // one image [side, side, 3]
//! let image = model.image_encoder(device)?.encode_bytes(pixels, true)?; // global [1, D], local [1, positions, D]
//! assert_eq!(image.global.len() * 2, text.len());
//! # Ok::<(), clipood_clip::ClipError>(())
//! ```
//!
//! Code that depends on Burn's version is confined to this crate and to the training program of the demo model.

pub mod checkpoint;
pub mod config;
pub mod contrastive;
mod cpu_text;
mod cpu_tower;
pub mod device;
pub mod encoder;
mod error;
mod image_features;
pub mod init;
pub mod kernels;
pub mod layers;
pub mod model;
mod named;
pub mod patch_scores;
pub mod prompt;
mod resnet;
pub mod safetensors_file;
pub mod text;
pub mod tokenizer;
mod vit;
pub mod weights;

pub use error::{ClipError, Result};
