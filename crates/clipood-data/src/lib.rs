//! Dataset readers, few-shot splits, decoding and Pillow-exact preprocessing of clipood.
//!
//! From the bytes of an image file to the input of the encoder:
//!
//! ```
//! use clipood_core::SplitMix64;
//! use clipood_data::{DecodeLimits, decode, eval_view, normalise, random_resized_crop_box, train_view};
//!
//! // The bytes of a PPM file of 3 x 2 pixels.
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
//! From a dataset manifest to the images of a few-shot split: [`list_dataset`], then [`few_shot_split`]. From an image of
//! the list to its bytes, on whatever machine: [`read`], then [`decode_safely`].
//!
//! # How to add a layout
//!
//! A layout is a way in which the images of a dataset are stored: one folder per class, a list of files, an archive.
//!
//! 1. A variant of `Layout` in `clipood-core/src/manifest.rs`, whose name in kebab case is the `layout` of a manifest, and the
//!    keys that it has in `clipood-core/src/manifest/check.rs`.
//! 2. A file in `src/layouts/` with a function `visit` like that of `flat_folder.rs`. It calls its visitor with an
//!    [`ImageRecord`] for every image, in any order, and with every file that holds several images or describes some. The uri
//!    of a [`Source`] is the root of the dataset joined with the path below it, so that [`Roots`] can relocate it.
//! 3. Lines in the matches of [`visit_dataset`] and [`visit_files`] (`src/layouts.rs`), which do not compile without them.
//! 4. Tests in `tests/layouts.rs` or `tests/archives.rs`, and the layout in the list of `clipood/tests/layouts.rs`.
//!
//! Nothing after the plan knows layouts: everything else reads bytes from a [`Source`]. A new kind of place for them, such
//! as a row of a table, is a variant of [`At`], a line in [`read`], and its form in the table of the plan.

mod blocks;
mod byte_file;
mod census;
mod csv_file;
mod decode;
mod error;
mod extensions;
mod few_shot;
mod folder;
mod layouts;
mod left_out;
mod loose;
mod open_files;
mod pairs;
mod place;
mod record;
mod remote;
mod resize;
mod rgb_image;
mod source;
mod split_file;
mod table;
mod uri;
mod views;
mod walk;

pub use census::{Census, Guess, Sample, candidates, census, sample};
pub use decode::{
    DecodeError, DecodeLimits, decode, decode_safely, format_name, panic_message, recognise,
};
pub use error::DataError;
pub use extensions::EXTENSIONS;
pub use few_shot::{ClassShots, FewShotSplit, few_shot_split, subsample_classes};
pub use layouts::{list_dataset, settle, visit_dataset, visit_files};
pub use left_out::{LeftOut, LeftOutCounts, LeftOutGroup, Why};
pub use loose::{FoundImage, find_images};
pub use pairs::{PairColumns, PairImage, PairRow, PairRows};
pub use place::content_hash;
pub use record::{Found, ImageRecord, Listing, Split};
pub use remote::facts_of;
pub use rgb_image::RgbImage;
pub use source::{At, MAX_IMAGE_BYTES, PlaneSize, Roots, Source, read};
pub use split_file::{Reroot, SplitDifference, SplitFile, SplitImage};
pub use uri::{path_of, uri_of};
pub use views::{
    CropBox, eval_view, eval_view_as, normalise, random_resized_crop_box, train_view, train_view_as,
};
