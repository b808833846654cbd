//! Dataset readers, few-shot splits, decoding and Pillow-exact preprocessing of clipood.
//!
//! From the bytes of an image file to what the encoder takes:
//!
//! ```
//! use clipood_core::SplitMix64;
//! use clipood_data::{DecodeLimits, decode, eval_view, normalise, random_resized_crop_box, train_view};
//!
//! // A file would come from `std::fs::read`; this is a PPM of 3 x 2 pixels.
//! let bytes = b"P6 3 2 255 abcdefghijklmnopqr";
//! let image = decode(bytes, &DecodeLimits::default())?;
//! assert_eq!((image.width, image.height), (3, 2));
//!
//! let pixels = eval_view(&image, 224); // [224, 224, 3]
//! let input = normalise(&pixels, [0.481, 0.458, 0.408], [0.269, 0.261, 0.276]); // [3, 224, 224]
//! assert_eq!(input.len(), 3 * 224 * 224);
//!
//! // View 5 of this image is the same on every machine.
//! let mut rng = SplitMix64::keyed(1, "birds/train/robin/1.jpg", 5);
//! let crop = random_resized_crop_box(image.width, image.height, [0.08, 1.0], &mut rng);
//! assert_eq!(train_view(&image, &crop, 224).len(), pixels.len());
//!
//! let error = decode(b"<html>", &DecodeLimits::default()).unwrap_err();
//! assert_eq!(error.kind(), "unknown-format");
//! # Ok::<(), clipood_data::DecodeError>(())
//! ```
//!
//! From a dataset manifest to the images of a few-shot split: [`list_dataset`], then [`few_shot_split`].

mod dataset;
mod decode;
mod error;
mod few_shot;
mod folder;
mod loose;
mod resize;
mod rgb_image;
mod views;

pub use crate::rgb_image::RgbImage;
pub use dataset::{Found, ImageRecord, Listing, Split, list_dataset, visit_dataset};
pub use decode::{DecodeError, DecodeLimits, decode};
pub use error::DataError;
pub use few_shot::{FewShotSplit, few_shot_split, subsample_classes};
pub use folder::EXTENSIONS;
pub use loose::{FoundImage, find_images};
pub use resize::resize_bicubic;
pub use views::{CropBox, eval_view, normalise, random_resized_crop_box, train_view};
