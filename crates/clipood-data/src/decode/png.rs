//! PNG, with Pillow's tolerance: the chunk IEND and the palette may be missing, rows at the end too if the data end as
//! zlib's should, and the checksum of the picture's data may be wrong, while a wrong checksum of a chunk before the picture is
//! an error. Chunks of unknown kinds are skipped. Texts and colour profiles are never decompressed.

mod repair;

use std::io::Cursor;

use png::{ColorType, DecodeOptions, Decoder, DecodingError, Limits, Transformations};

use super::budget::{SHARED, Share};
use super::samples::{first_three, grey, high, low};
use super::{DecodeError, DecodeLimits, image_of};
use crate::rgb_image::RgbImage;

const FORMAT: &str = "PNG";

/// Bytes that the decoder may allocate beside the picture.
const TABLE_BYTES: usize = 1 << 24;

pub fn decode(
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<(RgbImage, Share<'static>), DecodeError> {
    // Checked first, because the decoder calls every size that it does not support corrupt.
    if let Some(&[w0, w1, w2, w3, h0, h1, h2, h3]) = bytes.get(16..24) {
        let (width, height) = ([w0, w1, w2, w3], [h0, h1, h2, h3]);
        limits.check(
            u64::from(u32::from_be_bytes(width)),
            u64::from(u32::from_be_bytes(height)),
        )?;
    }
    check_checksums(bytes)?;
    let bytes = repair::ended(bytes);
    match decode_whole(&bytes, limits) {
        Err(error) => match repair::with_all_rows(&bytes) {
            Some(bytes) => decode_whole(&bytes, limits),
            None => Err(error),
        },
        decoded => decoded,
    }
}

fn decode_whole(
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<(RgbImage, Share<'static>), DecodeError> {
    let mut options = DecodeOptions::default();
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    options.set_ignore_crc(true);
    // The checksum of zlib counts, unless it is missing.
    options.set_ignore_adler32(false);
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_limits(Limits { bytes: TABLE_BYTES });
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(convert)?;
    let (width, height) = (reader.info().width, reader.info().height);
    let stored = reader.info().color_type;
    let length = reader.output_buffer_size().ok_or(DecodeError::TooLarge {
        width: u64::from(width),
        height: u64::from(height),
        limit: limits.max_pixels,
    })?;
    let area = u64::from(width) * u64::from(height);
    let share = SHARED.take(length as u64 + 3 * area);
    let mut samples = vec![0; length];
    reader.next_frame(&mut samples).map_err(convert)?;

    let (colour, depth) = reader.output_color_type();
    let pixels = match (colour, depth as u8) {
        (ColorType::Rgb, 8) => samples,
        (ColorType::Rgba, 8) => first_three::<1, 4>(&samples, |[v]| v),
        (ColorType::Grayscale, 8) => grey::<1, 1>(&samples, |[v]| v),
        (ColorType::GrayscaleAlpha, 8) => grey::<1, 2>(&samples, |[v]| v),
        (ColorType::Rgb, 16) => first_three::<2, 3>(&samples, high),
        (ColorType::Rgba, 16) => first_three::<2, 4>(&samples, high),
        // Pillow's mode `I;16`, also where a colour is declared transparent, which the decoder turns into alpha.
        (ColorType::Grayscale, 16) => grey::<2, 1>(&samples, low),
        (ColorType::GrayscaleAlpha, 16) if stored == ColorType::Grayscale => {
            grey::<2, 2>(&samples, low)
        }
        (ColorType::GrayscaleAlpha, 16) => grey::<2, 2>(&samples, high),
        (colour, depth) => {
            return Err(DecodeError::Unsupported {
                format: FORMAT,
                message: format!("samples of type {colour:?} with {depth} bits"),
            });
        }
    };
    Ok((image_of(width, height, pixels, FORMAT)?, share))
}

/// Checks the checksums of the chunks before the picture, as Pillow does when it opens a file.
fn check_checksums(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut at = 8;
    while let Some(&[l0, l1, l2, l3, ..]) = bytes.get(at..at + 8) {
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let kind = &bytes[at + 4..at + 8];
        if kind == b"IDAT" || kind == b"IEND" {
            break;
        }
        let Some(&[c0, c1, c2, c3]) = bytes.get(at + 8 + length..at + 12 + length) else {
            break;
        };
        let mut checksum = flate2::Crc::new();
        checksum.update(&bytes[at + 4..at + 8 + length]);
        if checksum.sum() != u32::from_be_bytes([c0, c1, c2, c3]) {
            return Err(DecodeError::Corrupt {
                format: FORMAT,
                message: format!("wrong checksum of chunk {}", kind.escape_ascii()),
            });
        }
        at += 12 + length;
    }
    Ok(())
}

fn convert(error: DecodingError) -> DecodeError {
    let message = error.to_string();
    match error {
        DecodingError::IoError(_) => DecodeError::Truncated {
            format: FORMAT,
            message,
        },
        _ => DecodeError::Corrupt {
            format: FORMAT,
            message,
        },
    }
}
