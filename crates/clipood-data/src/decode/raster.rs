//! BMP, WebP and PNM through the `image` crate, and Pillow's rules for modes that are not 8-bit RGB.

use std::io::Cursor;

use image::error::{ImageError, LimitErrorKind};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::budget::{SHARED, Share};
use super::{DecodeError, DecodeLimits, image_of};
use crate::rgb_image::RgbImage;

/// Bytes that a decoder may allocate for each allowed pixel (16-bit RGBA).
const BYTES_PER_PIXEL: u64 = 8;
/// Bytes that a decoder may allocate for its tables.
const TABLE_BYTES: u64 = 1 << 24;

/// The format with its name, if it is decoded here.
pub fn name(format: ImageFormat) -> Option<&'static str> {
    match format {
        ImageFormat::WebP => Some("WebP"),
        ImageFormat::Pnm => Some("PNM"),
        _ => None,
    }
}

pub fn decode(
    bytes: &[u8],
    format: ImageFormat,
    name: &'static str,
    limits: &DecodeLimits,
) -> Result<(RgbImage, Share<'static>), DecodeError> {
    let mut allowed = Limits::no_limits();
    let pixels = limits.max_pixels.saturating_mul(BYTES_PER_PIXEL);
    allowed.max_alloc = Some(pixels.saturating_add(TABLE_BYTES));
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(allowed);
    let decoder = reader.into_decoder().map_err(|e| convert(e, name))?;
    let (width, height) = decoder.dimensions();
    limits.check(u64::from(width), u64::from(height))?;
    let area = u64::from(width) * u64::from(height);
    let share = SHARED.take(decoder.total_bytes().saturating_add(3 * area));
    let decoded = DynamicImage::from_decoder(decoder).map_err(|e| convert(e, name))?;
    Ok((image_of(width, height, rgb(decoded, name)?, name)?, share))
}

/// Pillow's `convert("RGB")`: grey is repeated, alpha dropped. 16-bit samples keep their high byte, except for grey without
/// alpha (Pillow's mode `I;16`), whose values are clamped at 255.
fn rgb(decoded: DynamicImage, name: &'static str) -> Result<Vec<u8>, DecodeError> {
    Ok(match decoded {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageRgba8(image) => first_three(image.as_raw(), |v| v),
        DynamicImage::ImageLuma8(image) => grey::<_, 1>(image.as_raw(), |v| v),
        DynamicImage::ImageLumaA8(image) => grey::<_, 2>(image.as_raw(), |v| v),
        DynamicImage::ImageLuma16(image) => grey::<_, 1>(image.as_raw(), |v| v.min(255) as u8),
        DynamicImage::ImageLumaA16(image) => grey::<_, 2>(image.as_raw(), high),
        DynamicImage::ImageRgb16(image) => image.as_raw().iter().copied().map(high).collect(),
        DynamicImage::ImageRgba16(image) => first_three(image.as_raw(), high),
        other => {
            return Err(DecodeError::Unsupported {
                format: name,
                message: format!("samples of type {:?}", other.color()),
            });
        }
    })
}

fn high(sample: u16) -> u8 {
    (sample >> 8) as u8
}

fn first_three<T: Copy>(rgba: &[T], byte: impl Fn(T) -> u8) -> Vec<u8> {
    let pixels = rgba.as_chunks::<4>().0.iter();
    pixels
        .flat_map(|&[r, g, b, _]| [byte(r), byte(g), byte(b)])
        .collect()
}

fn grey<T: Copy, const CHANNELS: usize>(samples: &[T], byte: impl Fn(T) -> u8) -> Vec<u8> {
    let pixels = samples.as_chunks::<CHANNELS>().0.iter();
    pixels.flat_map(|pixel| [byte(pixel[0]); 3]).collect()
}

fn convert(error: ImageError, format: &'static str) -> DecodeError {
    let message = error.to_string();
    match error {
        ImageError::IoError(_) => DecodeError::Truncated { format, message },
        ImageError::Unsupported(_) => DecodeError::Unsupported { format, message },
        ImageError::Limits(limit) if matches!(limit.kind(), LimitErrorKind::Unsupported { .. }) => {
            DecodeError::Unsupported { format, message }
        }
        _ => DecodeError::Corrupt { format, message },
    }
}
