//! From a planned image to the pixels of its views.

use std::sync::OnceLock;

use clipood_clip::config::ClipConfig;
use clipood_core::{Resize, SplitMix64, shown, stored};
use clipood_data::{eval_view_as, random_resized_crop_box, train_view_as};

use crate::encode::{EVAL_VIEW, decoded};
use crate::error::{PipelineError, Result};
use crate::plan::PlannedImage;
use crate::tables::QuarantineRow;

/// Seed of the training crops. It is the same for all few-shot seeds, so that they share the features.
const CROP_SEED: u64 = 0;

/// Pixels of each view, `[side, side, 3]`, or the reason why there are none.
pub type Views = std::result::Result<Vec<Vec<u8>>, Box<QuarantineRow>>;

/// Checks, decodes and crops one image, given the result of reading its file. Never panics: a panic of a decoder
/// becomes the reason why there are no pixels.
///
/// Whether an image is put into quarantine follows from the planned bytes alone, because all runs of a store share it.
///
/// # Errors
/// A file that could be read when it was planned and cannot be read now, or that has different bytes now: the cause is
/// the machine or the time, not the image.
pub fn views_of(
    image: &PlannedImage,
    read: std::io::Result<Vec<u8>>,
    views: &[i16],
    crop_scale: [f64; 2],
    resize: Resize,
    config: &ClipConfig,
) -> Result<Views> {
    let reject = |kind: &str, message: String| {
        Box::new(QuarantineRow {
            image_key: image.key.clone(),
            uri: stored(&image.path()),
            stage: "extract".to_string(),
            error_kind: kind.to_string(),
            message,
            content_hash: image.content_hash.clone(),
        })
    };
    let gone = |problem: String| PipelineError::NotAsPlanned {
        path: shown(image.path()),
        problem,
    };
    if image.content_hash.is_empty() {
        let reason = match read {
            Err(error) => error.to_string(),
            Ok(_) => "it could not be read when it was planned".to_string(),
        };
        return Ok(Err(reject("unreadable", reason)));
    }
    let bytes = read.map_err(|error| gone(error.to_string()))?;
    let hash = blake3::hash(&bytes).to_hex();
    if hash.as_str() != image.content_hash {
        let planned = &image.content_hash;
        return Err(gone(format!(
            "its content hash is {hash}, planned {planned}"
        )));
    }
    if aborts_on(&image.content_hash) {
        std::process::abort();
    }
    let made = decoded(&bytes, |decoded| {
        let side = config.image.size as u32;
        let crop = |view: &i16| {
            if *view == EVAL_VIEW {
                return eval_view_as(decoded, side, resize);
            }
            let mut rng = SplitMix64::keyed(CROP_SEED, &image.key, *view as u64);
            let (width, height) = (decoded.width, decoded.height);
            let crop = random_resized_crop_box(width, height, crop_scale, &mut rng);
            train_view_as(decoded, &crop, side, resize)
        };
        views.iter().map(crop).collect()
    });
    Ok(made.map_err(|reason| reject(&reason.kind, reason.message)))
}

/// A test hook: the process dies on the image whose hash is in `CLIPOOD_TEST_ABORT_ON`, as it would on one that
/// overflows the stack of its decoder. Only tests set it.
pub(super) fn aborts_on(content_hash: &str) -> bool {
    static HASH: OnceLock<Option<String>> = OnceLock::new();
    let hash = HASH.get_or_init(|| std::env::var("CLIPOOD_TEST_ABORT_ON").ok());
    hash.as_deref() == Some(content_hash)
}
