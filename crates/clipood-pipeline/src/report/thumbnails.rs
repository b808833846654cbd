//! Small copies of images for pages, made from the files if they are still where they were.

use std::collections::BTreeMap;

use clipood_core::Resize;
use clipood_data::{Roots, Source, eval_view_as, read};
use serde::Serialize;

use super::bounds::THUMBNAIL;
use super::page::data_url;
use super::scored::Mistake;
use super::table::percent;
use crate::encode::decoded;
use crate::job::Job;
use crate::plan::{PlannedImage, planned_images};
use crate::regions::Picture;

/// An image with words below it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tile {
    /// The image as a `data:` URL; absent if it cannot be shown.
    pub image: Option<String>,
    /// Why there is no image.
    pub missing: String,
    /// The line that stands out.
    pub heading: String,
    /// The lines below it.
    pub lines: Vec<String>,
    /// The name of the image: its key or its path.
    pub name: String,
}

/// Quality of the JPEG files, of 100.
const QUALITY: u8 = 80;

/// The mistakes with their images.
pub fn mistake_tiles(job: &Job, mistakes: &[&Mistake]) -> Vec<Tile> {
    let mut parts: BTreeMap<&str, Vec<PlannedImage>> = BTreeMap::new();
    let mut all = Vec::new();
    for mistake in mistakes {
        // A part that cannot be read leaves its images without thumbnails.
        let images = parts
            .entry(&mistake.part)
            .or_insert_with(|| planned_images(job, &mistake.part).unwrap_or_default());
        let image = images.iter().find(|image| image.key == mistake.image_key);
        let made = match image {
            Some(image) => thumbnail(&image.source, &image.roots, &image.content_hash),
            None => Err("the plan does not list it".to_string()),
        };
        let tile = Tile {
            heading: format!(
                "{} {}%",
                mistake.prediction,
                percent(f64::from(mistake.prob))
            ),
            lines: vec![
                format!("is {}", mistake.truth),
                format!("score {:.4}", mistake.score),
            ],
            name: mistake.image_key.clone(),
            ..Tile::default()
        };
        all.push(tile.with(made));
    }
    all
}

impl Tile {
    /// The tile with an image, or with the reason why there is none.
    pub fn with(mut self, made: Result<String, String>) -> Self {
        match made {
            Ok(url) => self.image = Some(url),
            Err(reason) => self.missing = reason,
        }
        self
    }
}

/// The evaluation view of an image, `[side, side, 3]`.
///
/// # Errors
/// In words: an image that cannot be read, is not an image any more, or has another BLAKE3 hash than `content_hash`, where
/// one is given.
pub fn checked_view(
    source: &Source,
    roots: &Roots,
    content_hash: &str,
    side: u32,
    resize: Resize,
) -> Result<Vec<u8>, String> {
    let bytes = read(source, roots).map_err(|error| format!("cannot be read: {error}"))?;
    if !content_hash.is_empty() && blake3::hash(&bytes).to_hex().as_str() != content_hash {
        return Err("is another image now than when it was planned".to_string());
    }
    decoded(&bytes, |image| eval_view_as(image, side, resize))
        .map_err(|reason| format!("cannot be decoded: {}", reason.message))
}

/// The centre of an image, [`THUMBNAIL`] pixels wide and high, as a JPEG in a `data:` URL.
///
/// # Errors
/// Those of [`checked_view`].
pub fn thumbnail(source: &Source, roots: &Roots, content_hash: &str) -> Result<String, String> {
    let pixels = checked_view(source, roots, content_hash, THUMBNAIL, Resize::default())?;
    let side = THUMBNAIL as usize;
    let jpeg = Picture::of_view(&pixels, side, side)
        .jpeg(QUALITY)
        .map_err(|error| format!("cannot be made small: {error}"))?;
    Ok(data_url("image/jpeg", &jpeg))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_cannot_be_shown_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots::default();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            Source::found(&path)
        };
        let white = [b"P6 2 2 255\n".as_slice(), &[255; 12]].concat();
        let image = write("white.ppm", &white);
        let url = thumbnail(&image, &roots, "").unwrap();
        assert!(url.starts_with("data:image/jpeg;base64,"), "{url}");
        let hash = blake3::hash(&white).to_hex();
        assert_eq!(thumbnail(&image, &roots, &hash), Ok(url));

        let cases = [
            (image, "0123", "another image"),
            (write("text.png", b"not a picture"), "", "cannot be decoded"),
            (
                Source::found(&folder.path().join("gone.png")),
                "",
                "cannot be read",
            ),
        ];
        for (source, hash, words) in cases {
            let reason = thumbnail(&source, &roots, hash).unwrap_err();
            assert!(reason.contains(words), "{source}: {reason}");
        }
    }
}
