//! JPEG: libjpeg-turbo-rs, whose pixels are those of libjpeg-turbo bit for bit, with the checks and conversions that Pillow
//! adds to libjpeg-turbo.

mod inks;
mod restarts;
mod segments;

use std::borrow::Cow;

use libjpeg_turbo_rs::{
    ColorSpace, DecodeWarning, Decoder, JpegError, PixelFormat, decompress_raw,
};

use super::budget::{SHARED, Share};
use super::{DecodeError, DecodeLimits, image_of};
use crate::rgb_image::RgbImage;
use segments::Frame;

const FORMAT: &str = "JPEG";

/// Largest number of scans: encoders write about ten.
const MAX_SCANS: usize = 500;
/// Largest product of scans and pixels, because each scan may cost a pass over the picture: twelve scans of the largest
/// picture.
const MAX_SCANNED_PIXELS: u64 = 1 << 31;

pub fn decode(
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<(RgbImage, Share<'static>), DecodeError> {
    let checked = check(bytes, limits)?;
    let share = SHARED.take(checked.memory);
    let samples = samples(bytes, &checked)?;
    let frame = checked.frame;
    let pixels = match frame.sampling.len() == 4 {
        true => rgb_of_ink(&samples),
        false => samples,
    };
    let (width, height) = (u32::from(frame.width), u32::from(frame.height));
    Ok((image_of(width, height, pixels, FORMAT)?, share))
}

/// A strip or tile of a TIFF file.
pub struct Part {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Components in the file: 1, 3 or 4.
    pub components: usize,
    /// Samples of each pixel side by side: grey three times, RGB, or four as they are stored.
    pub samples: Vec<u8>,
}

/// Decodes a part, whose tables may be in a file of their own. Colours are converted if `is_ycc`, whatever the markers of
/// applications say, as libtiff does. The caller accounts for the memory.
pub fn decode_part(
    tables: &[u8],
    data: &[u8],
    is_ycc: bool,
    limits: &DecodeLimits,
) -> Result<Part, DecodeError> {
    let bytes = segments::joined(tables, data, is_ycc);
    let checked = check(&bytes, limits)?;
    let samples = samples(&bytes, &checked)?;
    Ok(Part {
        width: usize::from(checked.frame.width),
        height: usize::from(checked.frame.height),
        components: checked.frame.sampling.len(),
        samples,
    })
}

/// A file that may be decoded.
struct Checked {
    frame: Frame,
    has_restarts: bool,
    /// Bytes that decoding takes.
    memory: u64,
}

fn check(bytes: &[u8], limits: &DecodeLimits) -> Result<Checked, DecodeError> {
    let ends = segments::has_end(bytes);
    let frame = segments::frame(bytes).ok_or_else(|| no_frame(ends))?;
    let (width, height) = (u64::from(frame.width), u64::from(frame.height));
    limits.check(width, height)?;
    // The decoder would fill missing pixels with grey; Pillow rejects the file.
    if !ends {
        return Err(truncated(format!("no end marker in {} bytes", bytes.len())));
    }
    check_kind(&frame)?;
    let (scans, has_restarts) = segments::scans(bytes);
    check_cost(&frame, bytes.len(), scans)?;
    let memory = memory(&frame, scans);
    Ok(Checked {
        frame,
        has_restarts,
        memory,
    })
}

/// Three samples of each pixel, red, green and blue, or four, as they are stored.
fn samples(bytes: &[u8], checked: &Checked) -> Result<Vec<u8>, DecodeError> {
    let frame = &checked.frame;
    let bytes = match checked.has_restarts {
        true => Cow::Owned(restarts::in_order(bytes)),
        false => Cow::Borrowed(bytes),
    };
    let is_ink = frame.sampling.len() == 4;
    let output = match is_ink {
        true => PixelFormat::Cmyk,
        false => PixelFormat::Rgb,
    };
    // As in libjpeg: an error in the data costs the pixels around it, and a progressive picture whose last scans are
    // missing is smoothed.
    let decoder = Decoder::new(&bytes).map_err(convert)?;
    if is_ink && !ends_are_full(frame) {
        let space = decoder.jpeg_color_space();
        let raw = decompress_raw(&bytes).map_err(convert)?;
        let mut samples = inks::joined(&raw, frame).ok_or_else(|| DecodeError::Unsupported {
            format: FORMAT,
            message: format!("sampling factors {:?}", frame.sampling),
        })?;
        if space == ColorSpace::Ycck {
            for [y, cb, cr, _] in samples.as_chunks_mut::<4>().0 {
                [*y, *cb, *cr] = ycc_to_cmy(*y, *cb, *cr);
            }
        }
        return Ok(samples);
    }
    let decoded = decoder
        .with_lenient(true)
        .with_block_smoothing(true)
        .with_output_format(output)
        .decode_image()
        .map_err(convert)?;
    // Sampling that the decoder does not know comes out grey.
    let unknown = |warning: &DecodeWarning| match warning {
        DecodeWarning::UnsupportedRecovered { detail } => Some(detail.clone()),
        _ => None,
    };
    match decoded.warnings.iter().find_map(unknown) {
        Some(message) => Err(DecodeError::Unsupported {
            format: FORMAT,
            message,
        }),
        None => Ok(decoded.data),
    }
}

/// Whether the first and the last component have as many samples as the picture has pixels.
fn ends_are_full(frame: &Frame) -> bool {
    let most = |pick: fn(&(u8, u8)) -> u8| frame.sampling.iter().map(pick).max();
    let full = most(|f| f.0).zip(most(|f| f.1));
    frame.sampling.first() == full.as_ref() && frame.sampling.last() == full.as_ref()
}

/// Pillow reads pictures of 1, 3 and 4 components with 8 bits.
fn check_kind(frame: &Frame) -> Result<(), DecodeError> {
    let unsupported = |message| {
        Err(DecodeError::Unsupported {
            format: FORMAT,
            message,
        })
    };
    if frame.precision != 8 {
        return unsupported(format!("samples of {} bits, allowed: 8", frame.precision));
    }
    match frame.sampling.len() {
        1 | 3 | 4 => Ok(()),
        count => unsupported(format!("{count} components, allowed: 1, 3, 4")),
    }
}

/// Refuses files that would cost far more time and memory than their size justifies.
fn check_cost(frame: &Frame, length: usize, scans: usize) -> Result<(), DecodeError> {
    let (width, height) = (u64::from(frame.width), u64::from(frame.height));
    // Huffman coding spends one bit at least on each block of 8 x 8 samples.
    let blocks = width.div_ceil(8) * height.div_ceil(8);
    if frame.marker <= 0xC2 && (length as u64).saturating_mul(8) < blocks {
        return Err(truncated(format!(
            "{length} bytes cannot hold {width} x {height} pixels"
        )));
    }
    if scans > MAX_SCANS || (scans as u64).saturating_mul(width * height) > MAX_SCANNED_PIXELS {
        return Err(DecodeError::Unsupported {
            format: FORMAT,
            message: format!(
                "{scans} scans of {width} x {height} pixels, at most {MAX_SCANS} scans and {MAX_SCANNED_PIXELS} pixels in all scans are allowed"
            ),
        });
    }
    Ok(())
}

/// Bytes that decoding takes: the pixels, the samples of all components and, if they come in several scans, their
/// coefficients of 16 bits.
fn memory(frame: &Frame, scans: usize) -> u64 {
    let padded = |side: u16| u64::from(side).next_multiple_of(32);
    let area = padded(frame.width) * padded(frame.height);
    let factors = |pick: fn(&(u8, u8)) -> u8| frame.sampling.iter().map(pick).max().unwrap_or(1);
    let most = u64::from(factors(|f| f.0)) * u64::from(factors(|f| f.1));
    let samples = frame
        .sampling
        .iter()
        .map(|(h, v)| area * u64::from(*h) * u64::from(*v) / most.max(1))
        .sum::<u64>();
    let pixels = area * if frame.sampling.len() == 4 { 7 } else { 3 };
    let coefficients = if scans > 1 { 2 * samples } else { 0 };
    pixels + samples + coefficients
}

fn rgb_of_ink(pixels: &[u8]) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(pixels.len() / 4 * 3);
    for pixel in pixels.as_chunks::<4>().0 {
        rgb.extend(rgb_of_inverted(*pixel));
    }
    rgb
}

/// CMYK, inverted ("assume adobe conventions"), to RGB as in Pillow: `(255 - k) * (1 - c / 255)` in its rounding
/// (`Convert.c`, `cmyk2rgb`).
pub fn rgb_of_inverted([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    [c, m, y].map(|ink| {
        let product = u32::from(255 - ink) * u32::from(k) + 128;
        let shade = ((product >> 8) + product) >> 8;
        k.saturating_sub(shade as u8)
    })
}

/// JFIF's YCbCr to RGB with 16 fractional bits, then the complement (libjpeg `jdcolor.c`, `ycck_cmyk_convert`).
fn ycc_to_cmy(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((91_881 * cr + 32_768) >> 16);
    let green = y + ((-22_554 * cb - 46_802 * cr + 32_768) >> 16);
    let blue = y + ((116_130 * cb + 32_768) >> 16);
    [red, green, blue].map(|value| 255 - value.clamp(0, 255) as u8)
}

fn no_frame(ends: bool) -> DecodeError {
    let message = "no frame header before the first scan".to_string();
    match ends {
        true => DecodeError::Corrupt {
            format: FORMAT,
            message,
        },
        false => truncated(message),
    }
}

fn truncated(message: String) -> DecodeError {
    DecodeError::Truncated {
        format: FORMAT,
        message,
    }
}

fn convert(error: JpegError) -> DecodeError {
    let message = error.to_string();
    match error {
        JpegError::Unsupported(_) => DecodeError::Unsupported {
            format: FORMAT,
            message,
        },
        JpegError::UnexpectedEof => truncated(message),
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
    fn inks_become_colours() {
        // Stored inverted: 255 is no ink.
        let cmyk = |pixel: [u8; 4]| rgb_of_ink(&pixel);
        assert_eq!(cmyk([255, 255, 255, 255]), [255, 255, 255]);
        assert_eq!(cmyk([0, 255, 255, 255]), [0, 255, 255]);
        assert_eq!(cmyk([255, 255, 255, 0]), [0, 0, 0]);
        assert_eq!(cmyk([255, 128, 0, 100]), [100, 50, 0]);
    }
}
