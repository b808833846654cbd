//! CLIP in Burn: tokenizer, checkpoints, image and text encoders, prompt learner.

pub mod config;
pub mod encoder;
pub mod error;
pub mod init;
pub mod kernels;
pub mod layers;
pub mod prompt;
pub mod resnet;
pub mod text;
pub mod tokenizer;
pub mod vit;
pub mod weights;

pub use error::{ClipError, Result};
