//! From the bytes of an image file to pixels.

use std::path::Path;

use clipood_core::Resize;
use clipood_data::{DecodeLimits, RgbImage, Roots, Source, decode_safely, eval_view_as, read};

/// Why an image could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The kind, one word as in the quarantine table: `unreadable`, `panic`, or the kind of the decoder's error.
    pub kind: String,
    /// The error.
    pub message: String,
}

impl Unreadable {
    pub(crate) fn new(kind: &str, message: String) -> Self {
        Self {
            kind: kind.to_string(),
            message,
        }
    }
}

/// Decodes an image and calls `make` on it. Never panics: a panic of the decoder or of `make` becomes the reason.
///
/// # Errors
/// Bytes that are not an image of a supported format, or one that is damaged or too large.
pub(crate) fn decoded<T>(bytes: &[u8], make: impl FnOnce(&RgbImage) -> T) -> Result<T, Unreadable> {
    decode_safely(bytes, &DecodeLimits::default(), make)
        .map_err(|error| Unreadable::new(error.kind(), error.to_string()))
}

/// Pixels `[side, side, 3]` of the evaluation view (short side resized to `side`, centre cropped) of an image file,
/// RGB.
///
/// # Errors
/// A file that cannot be read or decoded, and a panic of the decoder.
pub fn read_eval_view(path: &Path, side: u32) -> Result<Vec<u8>, Unreadable> {
    read_eval_view_as(path, side, Resize::default())
}

/// [`read_eval_view`] with the resizing of a version of Pillow.
///
/// # Errors
/// As [`read_eval_view`].
pub fn read_eval_view_as(path: &Path, side: u32, resize: Resize) -> Result<Vec<u8>, Unreadable> {
    eval_view_of(read_image_file(path), side, resize)
}

/// The bytes of an image file; reading is retried after errors that may be transient.
fn read_image_file(path: &Path) -> std::io::Result<Vec<u8>> {
    read(&Source::found(path), &Roots::default())
}

/// [`read_eval_view`] of a file that was `read`.
pub(crate) fn eval_view_of(
    bytes: std::io::Result<Vec<u8>>,
    side: u32,
    resize: Resize,
) -> Result<Vec<u8>, Unreadable> {
    let bytes = bytes.map_err(|error| Unreadable::new("unreadable", error.to_string()))?;
    decoded(&bytes, |image| eval_view_as(image, side, resize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_has_a_kind_and_a_message() {
        let absent = read_eval_view(Path::new("absent.png"), 8).unwrap_err();
        assert_eq!(absent.kind, "unreadable");
        assert!(!absent.message.is_empty());
        let text = eval_view_of(Ok(b"not an image".to_vec()), 8, Resize::Pillow12).unwrap_err();
        assert!(text.kind != "unreadable" && !text.message.is_empty());

        let white = b"P6 2 2 255\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";
        assert_eq!(
            eval_view_of(Ok(white.to_vec()), 1, Resize::Pillow13),
            Ok(vec![255; 3])
        );
        let panics = decoded::<()>(white, |_| panic!("crop of {} pixels", 0));
        let expected = Unreadable::new("panic", "crop of 0 pixels".to_string());
        assert_eq!(panics, Err(expected));
    }
}
