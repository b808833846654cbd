//! Thumbnails of images, made from the files if they are still where the plan finds them.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clipood_core::Resize;
use clipood_data::{eval_view_as, read};
use serde::Serialize;

use super::bounds::THUMBNAIL;
use super::scored::Mistake;
use super::table::percent;
use crate::encode::decoded;
use crate::job::Job;
use crate::plan::{PlannedImage, planned_images};

/// A mistake with its image.
#[derive(Debug, Clone, Serialize)]
pub struct Thumbnail {
    /// The image as a `data:` URL; absent if it is not here any more.
    pub image: Option<String>,
    /// `dataset/split/relative/path`.
    pub key: String,
    /// What it is.
    pub truth: String,
    /// What it was taken for.
    pub prediction: String,
    /// Probability of the prediction in percent.
    pub prob: String,
    /// Its score.
    pub score: String,
}

/// Quality of the JPEG files, of 100.
const QUALITY: u8 = 80;

/// The mistakes with their images.
pub fn thumbnails(job: &Job, mistakes: &[&Mistake]) -> Vec<Thumbnail> {
    let mut parts: BTreeMap<&str, Vec<PlannedImage>> = BTreeMap::new();
    let mut all = Vec::new();
    for mistake in mistakes {
        // A part that cannot be read leaves its images without thumbnails.
        let images = parts
            .entry(&mistake.part)
            .or_insert_with(|| planned_images(job, &mistake.part).unwrap_or_default());
        let image = images.iter().find(|image| image.key == mistake.image_key);
        all.push(Thumbnail {
            image: image.and_then(data_url),
            key: mistake.image_key.clone(),
            truth: mistake.truth.clone(),
            prediction: mistake.prediction.clone(),
            prob: percent(f64::from(mistake.prob)),
            score: format!("{:.4}", mistake.score),
        });
    }
    all
}

/// The evaluation view of an image, `[side, side, 3]`; `None` if it cannot be read or is not the image that was planned.
pub fn planned_view(image: &PlannedImage, side: u32, resize: Resize) -> Option<Vec<u8>> {
    let bytes = read(&image.source, &image.roots).ok()?;
    if !image.content_hash.is_empty()
        && blake3::hash(&bytes).to_hex().as_str() != image.content_hash
    {
        return None;
    }
    decoded(&bytes, |image| eval_view_as(image, side, resize)).ok()
}

/// The centre of an image as a small JPEG; `None` if it cannot be read or is not the image that was planned.
fn data_url(image: &PlannedImage) -> Option<String> {
    let pixels = planned_view(image, THUMBNAIL, Resize::default())?;
    let mut jpeg = Vec::new();
    let side = u16::try_from(THUMBNAIL).ok()?;
    jpeg_encoder::Encoder::new(&mut jpeg, QUALITY)
        .encode(&pixels, side, side, jpeg_encoder::ColorType::Rgb)
        .ok()?;
    Some(format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)))
}
