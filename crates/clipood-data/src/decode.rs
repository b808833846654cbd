//! From the bytes of an image file to RGB, as Pillow's `Image.open(file).convert("RGB")` decodes it.
//!
//! Alpha is dropped, not blended; EXIF orientation and colour profiles are ignored; only the first picture of an animation
//! or a multi-page file is decoded. The format is recognised by the first bytes, never by the name of the file.

mod bmp;
mod budget;
mod foreign;
mod gif;
mod jpeg;
mod png;
mod pnm;
mod raster;
mod samples;
mod tiff;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::rgb_image::RgbImage;
use budget::Share;

/// Limits on the resources that decoding a file may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Largest number of pixels; checked against the header before anything is allocated for them.
    pub max_pixels: u64,
}

impl Default for DecodeLimits {
    /// The size above which Pillow raises an error instead of a warning: twice `Image.MAX_IMAGE_PIXELS`, 178,956,970 pixels.
    fn default() -> Self {
        DecodeLimits {
            max_pixels: 178_956_970,
        }
    }
}

impl DecodeLimits {
    /// Checks the size in a header.
    fn check(&self, width: u64, height: u64) -> Result<(), DecodeError> {
        if width == 0 || height == 0 {
            return Err(DecodeError::NoPixels { width, height });
        }
        if width.saturating_mul(height) > self.max_pixels {
            return Err(DecodeError::TooLarge {
                width,
                height,
                limit: self.max_pixels,
            });
        }
        Ok(())
    }
}

/// Why a file could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// An empty file.
    #[error("file is empty")]
    Empty,
    /// The first bytes belong to no supported format.
    #[error("unknown image format: the first bytes are {first_bytes}")]
    UnknownFormat {
        /// The first 8 bytes at most, escaped.
        first_bytes: String,
    },
    /// A known format that is not supported, or no image at all.
    #[error("found {what}; {advice}")]
    Foreign {
        /// What the file is, in words.
        what: &'static str,
        /// What to do with it.
        advice: &'static str,
    },
    /// The file ends before the picture is complete.
    #[error("{format} file is truncated: {message}")]
    Truncated {
        /// Name of the format.
        format: &'static str,
        /// The decoder's explanation.
        message: String,
    },
    /// More pixels than [`DecodeLimits::max_pixels`].
    #[error("image has {width} x {height} pixels, at most {limit} are allowed")]
    TooLarge {
        /// Columns, as stated in the header.
        width: u64,
        /// Rows, as stated in the header.
        height: u64,
        /// The limit, in pixels.
        limit: u64,
    },
    /// A side of 0.
    #[error("image has no pixels: {width} x {height}")]
    NoPixels {
        /// Columns, as stated in the header.
        width: u64,
        /// Rows, as stated in the header.
        height: u64,
    },
    /// A variant of the format that is not supported.
    #[error("{format} file is of an unsupported kind: {message}")]
    Unsupported {
        /// Name of the format.
        format: &'static str,
        /// The decoder's explanation.
        message: String,
    },
    /// Any other error in the file.
    #[error("{format} file is corrupt: {message}")]
    Corrupt {
        /// Name of the format.
        format: &'static str,
        /// The decoder's explanation.
        message: String,
    },
    /// A panic while the file was decoded: a bug of a decoder. Only [`decode_safely`] returns it.
    #[error("{message}")]
    Panicked {
        /// Message of the panic.
        message: String,
    },
}

impl DecodeError {
    /// The kind of error in quarantine tables: `empty`, `unknown-format`, `truncated`, `too-large`, `no-pixels`,
    /// `unsupported`, `corrupt` or `panic`.
    pub fn kind(&self) -> &'static str {
        match self {
            DecodeError::Empty => "empty",
            DecodeError::UnknownFormat { .. } | DecodeError::Foreign { .. } => "unknown-format",
            DecodeError::Truncated { .. } => "truncated",
            DecodeError::TooLarge { .. } => "too-large",
            DecodeError::NoPixels { .. } => "no-pixels",
            DecodeError::Unsupported { .. } => "unsupported",
            DecodeError::Corrupt { .. } => "corrupt",
            DecodeError::Panicked { .. } => "panic",
        }
    }
}

/// Decodes a PNG, JPEG, BMP, TIFF, GIF, WebP, PNM (PBM, PGM, PPM) or PFM (of one channel) file.
///
/// The pixels are those of Pillow 12.3 bit for bit, as it reads an open file; TIFF, PNM and PNG in all layouts that it reads,
/// samples of 12, 16 and 32 bits and real numbers included, which its conversion cuts off at 0 and 255. Not read, with an
/// error that names what was found:
///
/// - TIFF in L\*a\*b\*, in Y'CbCr that is not compressed as JPEG, compressed with LZMA, WebP or the JPEG of TIFF 6.0, or
///   with CCITT group 3 in two dimensions; LZW of the order before TIFF 5.0;
/// - progressive JPEG with an invalid Huffman code, which Pillow reads with a warning.
///
/// Read otherwise: JPEG that lost two restart markers in a row, at the second gap; damaged CCITT rows; compressed TIFF of real or
/// signed numbers that start with their high byte, whose bytes Pillow exchanges. Also read, although Pillow refuses them:
/// BMP of 2 bits or with other masks, and PAM. `tests/rare.rs` has a file of most of these.
///
/// Waits while other threads decode pictures that take much memory together: it must not be called from a `view` of
/// [`decode_safely`].
///
/// # Errors
/// Every [`DecodeError`] but [`DecodeError::Panicked`].
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, DecodeError> {
    decode_held(bytes, limits).map(|(image, _)| image)
}

/// [`decode`], with the memory that the picture takes.
fn decode_held(
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<(RgbImage, Share<'static>), DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    match format_of(bytes) {
        Some(Format::Jpeg) => jpeg::decode(bytes, limits),
        Some(Format::Png) => png::decode(bytes, limits),
        Some(Format::Gif) => gif::decode(bytes, limits),
        Some(Format::Bmp) => bmp::decode(bytes, limits),
        Some(Format::Tiff) => tiff::decode(bytes, limits).map_err(|error| {
            foreign::tiff_of_a_camera(bytes).map_or(error, |(what, advice)| DecodeError::Foreign {
                what,
                advice,
            })
        }),
        Some(Format::Pnm) => pnm::decode(bytes, limits),
        Some(Format::Raster(format, name)) => raster::decode(bytes, format, name, limits),
        None => Err(no_format(bytes)),
    }
}

/// Whether the first bytes are those of a supported format.
///
/// # Errors
/// What [`decode`] says of every other file, without decoding anything: [`DecodeError::Empty`], [`DecodeError::Foreign`],
/// [`DecodeError::UnknownFormat`].
pub fn recognise(bytes: &[u8]) -> Result<(), DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    match format_of(bytes) {
        Some(_) => Ok(()),
        None => Err(no_format(bytes)),
    }
}

/// The name of the format that the first bytes are of, such as `JPEG`; `None` if it is not supported.
pub fn format_name(bytes: &[u8]) -> Option<&'static str> {
    Some(match format_of(bytes)? {
        Format::Jpeg => "JPEG",
        Format::Png => "PNG",
        Format::Gif => "GIF",
        Format::Bmp => "BMP",
        Format::Tiff => "TIFF",
        Format::Pnm => "PNM",
        Format::Raster(_, name) => name,
    })
}

/// A supported format.
enum Format {
    Jpeg,
    Png,
    Gif,
    Bmp,
    Tiff,
    Pnm,
    /// One that the crate `image` reads, and its name.
    Raster(image::ImageFormat, &'static str),
}

fn format_of(bytes: &[u8]) -> Option<Format> {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    if starts(&[0xFF, 0xD8, 0xFF]) {
        return Some(Format::Jpeg);
    }
    if starts(b"\x89PNG\r\n\x1a\n") {
        return Some(Format::Png);
    }
    if starts(b"GIF87a") || starts(b"GIF89a") {
        return Some(Format::Gif);
    }
    // BigTIFF.
    if starts(b"II+\0") || starts(b"MM\0+") {
        return Some(Format::Tiff);
    }
    if pnm::is_pnm(bytes) {
        return Some(Format::Pnm);
    }
    let format = image::guess_format(bytes).ok()?;
    match format {
        image::ImageFormat::Bmp => Some(Format::Bmp),
        image::ImageFormat::Tiff => Some(Format::Tiff),
        other => raster::name(other).map(|name| Format::Raster(other, name)),
    }
}

fn no_format(bytes: &[u8]) -> DecodeError {
    match foreign::name(bytes) {
        Some((what, advice)) => DecodeError::Foreign { what, advice },
        None => DecodeError::UnknownFormat {
            first_bytes: format!("\"{}\"", bytes[..bytes.len().min(8)].escape_ascii()),
        },
    }
}

/// Decodes a file as [`decode`] and applies `view` to the image. A panic in either becomes [`DecodeError::Panicked`]: a
/// bug of a decoder that one file triggers must not stop a run over millions of files.
///
/// ```
/// use clipood_data::{DecodeLimits, decode_safely, eval_view};
///
/// let bytes = b"P6 3 2 255 abcdefghijklmnopqr";
/// let pixels = decode_safely(bytes, &DecodeLimits::default(), |image| eval_view(image, 224))?;
/// assert_eq!(pixels.len(), 224 * 224 * 3);
/// # Ok::<(), clipood_data::DecodeError>(())
/// ```
///
/// # Errors
/// [`DecodeError`].
pub fn decode_safely<T>(
    bytes: &[u8],
    limits: &DecodeLimits,
    view: impl FnOnce(&RgbImage) -> T,
) -> Result<T, DecodeError> {
    // Unwind safety: the bytes and the limits are only read, the image is dropped, and `view` is consumed.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        decode_held(bytes, limits).map(|(image, _share)| view(&image))
    }));
    outcome.unwrap_or_else(|panic| {
        Err(DecodeError::Panicked {
            message: panic_message(&*panic),
        })
    })
}

/// The text of a panic.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_string())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_string())
}

/// The image that a decoder returned as pixels, which must be `width * height * 3` bytes.
fn image_of(
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    format: &'static str,
) -> Result<RgbImage, DecodeError> {
    let found = pixels.len();
    RgbImage::new(width, height, pixels).ok_or_else(|| DecodeError::Corrupt {
        format,
        message: format!("{found} bytes decoded for {width} x {height} pixels"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: &[u8] = b"P6 3 2 255 abcdefghijklmnopqr";

    #[test]
    fn files_that_are_not_recognised_are_those_of_unknown_format() {
        let limits = DecodeLimits::default();
        let files: [&[u8]; 8] = [
            TINY,
            b"",
            b"not a picture",
            b"GIF89a",
            b"\xFF\xD8\xFF\xE0",
            b"\xFF\xD8",
            b"\x89PNG\r\n\x1a\n",
            b"%PDF-1.7",
        ];
        for bytes in files {
            let unknown = matches!(
                decode(bytes, &limits),
                Err(DecodeError::Empty
                    | DecodeError::Foreign { .. }
                    | DecodeError::UnknownFormat { .. })
            );
            assert_eq!(recognise(bytes).is_ok(), !unknown, "{bytes:?}");
        }
    }

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        let limits = DecodeLimits::default();
        let text = decode_safely(TINY, &limits, |_| panic!("index out of range"));
        let formatted = decode_safely(TINY, &limits, |image| {
            assert_eq!(image.width, 4, "width");
        });
        let other = decode_safely(TINY, &limits, |_| std::panic::panic_any(7_u8));
        let expected = ["index out of range", "left: 3", "no message"];
        for (outcome, expected) in [text, formatted, other].into_iter().zip(expected) {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), "panic");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn without_a_panic_the_outcome_is_that_of_decode() {
        let limits = DecodeLimits::default();
        let image = decode(TINY, &limits).unwrap();
        assert_eq!(decode_safely(TINY, &limits, RgbImage::clone), Ok(image));
        for bytes in [&b""[..], b"<html>", b"P6 3 2 255 abc", b"P6 0 2 255 "] {
            let error = decode(bytes, &limits).unwrap_err();
            let view = |_: &RgbImage| panic!("called without an image");
            assert_eq!(decode_safely(bytes, &limits, view), Err::<(), _>(error));
        }
    }
}
