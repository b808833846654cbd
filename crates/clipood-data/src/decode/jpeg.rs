//! JPEG: zune-jpeg, with the checks and conversions that Pillow adds to libjpeg-turbo.
//!
//! Measured on photographs, against libjpeg-turbo 3 as Pillow 11.3 calls it: zune-jpeg differs in 1 to 6% of the bytes,
//! by 3 levels at most; the `jpeg-decoder` crate in 3 to 6% and takes twice as long.

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use super::{DecodeError, DecodeLimits, image_of};
use crate::rgb_image::RgbImage;

const FORMAT: &str = "JPEG";

/// Largest number of scans in a progressive file: encoders write about ten, and each may cost a pass over the picture.
const MAX_SCANS: usize = 100;

pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, DecodeError> {
    let ends = has_end(bytes);
    let options = DecoderOptions::default()
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .set_strict_mode(false)
        .jpeg_set_max_scans(MAX_SCANS)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder
        .decode_headers()
        .map_err(|error| convert(&error, ends))?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    limits.check(width as u64, height as u64)?;
    // The decoder would fill missing pixels with grey; Pillow rejects the file.
    if !ends {
        return Err(DecodeError::Truncated {
            format: FORMAT,
            message: format!("no end marker in {} bytes", bytes.len()),
        });
    }
    let ink = match decoder.input_colorspace() {
        Some(space @ (ColorSpace::CMYK | ColorSpace::YCCK)) if components(&decoder) == 4 => {
            decoder.set_options(options.jpeg_set_out_colorspace(space));
            Some(space)
        }
        _ => None,
    };
    let mut pixels = decoder.decode().map_err(|error| convert(&error, ends))?;
    if let Some(space) = ink {
        pixels = rgb_of_ink(&pixels, space);
    }
    // Both casts are exact: the format has 16 bits for each side.
    image_of(width as u32, height as u32, pixels, FORMAT)
}

fn components(decoder: &JpegDecoder<ZCursor<&[u8]>>) -> u8 {
    decoder.info().map_or(0, |info| info.components)
}

/// CMYK to RGB as in Pillow: inverted ("assume adobe conventions"), then `(255 - k) * (1 - c / 255)` in its rounding
/// (`Convert.c`, `cmyk2rgb`).
fn rgb_of_ink(pixels: &[u8], space: ColorSpace) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(pixels.len() / 4 * 3);
    for &[a, b, c, k] in pixels.as_chunks::<4>().0 {
        let stored = match space {
            ColorSpace::YCCK => ycc_to_cmy(a, b, c),
            _ => [a, b, c],
        };
        for ink in stored {
            let product = u32::from(255 - ink) * u32::from(k) + 128;
            let shade = ((product >> 8) + product) >> 8;
            rgb.push(k.saturating_sub(shade as u8));
        }
    }
    rgb
}

/// JFIF's YCbCr to RGB with 16 fractional bits, then the complement (libjpeg `jdcolor.c`, `ycck_cmyk_convert`).
fn ycc_to_cmy(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((91_881 * cr + 32_768) >> 16);
    let green = y + ((-22_554 * cb - 46_802 * cr + 32_768) >> 16);
    let blue = y + ((116_130 * cb + 32_768) >> 16);
    [red, green, blue].map(|value| 255 - value.clamp(0, 255) as u8)
}

/// Whether the end marker of the picture is present. The segments before the picture are skipped one by one, so that the
/// end marker of a thumbnail in one of them does not count. In entropy-coded data 0xFF is escaped, so that the two bytes
/// can only be a marker.
fn has_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xFF, marker]) = bytes.get(at..at + 2) {
        at += match marker {
            0xD9 => return true,
            0xDA => {
                return bytes[at..]
                    .windows(2)
                    .rev()
                    .any(|pair| pair == [0xFF, 0xD9]);
            }
            // A fill byte; the next line has the markers without a segment.
            0xFF => 1,
            0x00 | 0x01 | 0xD0..=0xD8 => 2,
            _ => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else {
                    return false;
                };
                2 + usize::from(u16::from_be_bytes([high, low]))
            }
        };
    }
    // Bytes between segments that are no marker: the decoder decides whether they are an error.
    bytes.len() >= at + 2
}

fn convert(error: &DecodeErrors, ends: bool) -> DecodeError {
    let message = error.to_string();
    match error {
        DecodeErrors::ZeroError => DecodeError::NoPixels {
            width: 0,
            height: 0,
        },
        DecodeErrors::Unsupported(_) => DecodeError::Unsupported {
            format: FORMAT,
            message,
        },
        _ if !ends => DecodeError::Truncated {
            format: FORMAT,
            message,
        },
        _ => DecodeError::Corrupt {
            format: FORMAT,
            message,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_marker_is_the_pictures_own() {
        let head = [0xFF, 0xD8, 0xFF, 0xE1, 0, 6, 0xFF, 0xD9, 1, 1];
        assert!(!has_end(&head), "a thumbnail's end marker");
        let mut file = head.to_vec();
        file.extend([0xFF, 0xDA, 0, 2, 5, 0xFF, 0, 0xFF, 0xD0, 7]);
        assert!(!has_end(&file), "entropy-coded data only");
        file.extend([0xFF, 0xFF, 0xD9]);
        assert!(has_end(&file));
        for length in 0..file.len() {
            assert!(!has_end(&file[..length]), "cut at {length}");
        }
    }

    #[test]
    fn inks_become_colours() {
        // Stored inverted: 255 is no ink.
        let cmyk = |pixel: [u8; 4]| rgb_of_ink(&pixel, ColorSpace::CMYK);
        assert_eq!(cmyk([255, 255, 255, 255]), [255, 255, 255]);
        assert_eq!(cmyk([0, 255, 255, 255]), [0, 255, 255]);
        assert_eq!(cmyk([255, 255, 255, 0]), [0, 0, 0]);
        assert_eq!(cmyk([255, 128, 0, 100]), [100, 50, 0]);
        // A grey luminance has no chroma: its complement is the ink.
        assert_eq!(ycc_to_cmy(200, 128, 128), [55, 55, 55]);
        assert_eq!(ycc_to_cmy(76, 85, 255), [1, 255, 255]);
        assert_eq!(
            rgb_of_ink(&[55, 128, 128, 255], ColorSpace::YCCK),
            [200, 200, 200]
        );
    }
}
