//! From the bytes of an image file to RGB, as Pillow's `Image.open(file).convert("RGB")` has it.
//!
//! Alpha is dropped, not blended; EXIF orientation and colour profiles are ignored; of an animation or a multi-page
//! file the first picture counts. The format is told by the first bytes, never by the file's name.

mod gif;
mod jpeg;
mod raster;

use crate::rgb_image::RgbImage;

/// What a file may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Most pixels of an image; checked against the header, before anything is allocated for them.
    pub max_pixels: u64,
}

impl Default for DecodeLimits {
    /// Pillow's bound between "suspicious" and "refused": twice `Image.MAX_IMAGE_PIXELS`, 178,956,970 pixels.
    fn default() -> Self {
        DecodeLimits {
            max_pixels: 178_956_970,
        }
    }
}

impl DecodeLimits {
    /// Checks the size that a header states.
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

/// Why a file is no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A file without a byte.
    #[error("file is empty")]
    Empty,
    /// The first bytes belong to no format that is read here.
    #[error("unknown image format: the first bytes are {first_bytes}")]
    UnknownFormat {
        /// Up to 8 of them, escaped.
        first_bytes: String,
    },
    /// The file ends before the picture does.
    #[error("{format} file is truncated: {message}")]
    Truncated {
        /// Name of the format.
        format: &'static str,
        /// What the decoder missed.
        message: String,
    },
    /// More pixels than [`DecodeLimits::max_pixels`].
    #[error("image has {width} x {height} pixels, at most {limit} are allowed")]
    TooLarge {
        /// Columns, as the header has them.
        width: u64,
        /// Rows.
        height: u64,
        /// The limit, in pixels.
        limit: u64,
    },
    /// A header with a side of 0.
    #[error("image has no pixels: {width} x {height}")]
    NoPixels {
        /// Columns, as the header has them.
        width: u64,
        /// Rows.
        height: u64,
    },
    /// A variant of the format that the decoder does not know.
    #[error("{format} file is of an unsupported kind: {message}")]
    Unsupported {
        /// Name of the format.
        format: &'static str,
        /// The decoder's explanation.
        message: String,
    },
    /// Anything else that is wrong with the file.
    #[error("{format} file is corrupt: {message}")]
    Corrupt {
        /// Name of the format.
        format: &'static str,
        /// The decoder's explanation.
        message: String,
    },
}

impl DecodeError {
    /// One word for tables: `empty`, `unknown-format`, `truncated`, `too-large`, `no-pixels`, `unsupported` or `corrupt`.
    pub fn kind(&self) -> &'static str {
        match self {
            DecodeError::Empty => "empty",
            DecodeError::UnknownFormat { .. } => "unknown-format",
            DecodeError::Truncated { .. } => "truncated",
            DecodeError::TooLarge { .. } => "too-large",
            DecodeError::NoPixels { .. } => "no-pixels",
            DecodeError::Unsupported { .. } => "unsupported",
            DecodeError::Corrupt { .. } => "corrupt",
        }
    }
}

/// Decodes a PNG, JPEG, BMP, TIFF, GIF, WebP or PNM (PBM, PGM, PPM) file.
///
/// The bytes are Pillow's, except that JPEG is rounded differently (by up to 4 levels, 0.1 in the mean), and CMYK TIFF by
/// 1. TIFF with a palette is not supported.
///
/// # Errors
/// [`DecodeError`], whose [`kind`](DecodeError::kind) is for quarantine tables.
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    if bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
        return jpeg::decode(bytes, limits);
    }
    if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
        return gif::decode(bytes, limits);
    }
    match image::guess_format(bytes).ok().and_then(raster::name) {
        Some((format, name)) => raster::decode(bytes, format, name, limits),
        None => Err(DecodeError::UnknownFormat {
            first_bytes: format!("\"{}\"", bytes[..bytes.len().min(8)].escape_ascii()),
        }),
    }
}

/// An image of what a decoder gave, which must be `width * height * 3` bytes.
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
