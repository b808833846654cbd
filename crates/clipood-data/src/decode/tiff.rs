//! TIFF, with the layouts that Pillow reads (`TiffImagePlugin.py`, `OPEN_INFO`) and its conversions, and the orientation,
//! which Pillow applies to this format.

mod colours;
mod compression;
mod directory;
mod fax;
mod layout;
mod pieces;

use super::budget::{SHARED, Share};
use super::{DecodeError, DecodeLimits, image_of};
use crate::rgb_image::RgbImage;
use directory::Directory;
use layout::Layout;

const FORMAT: &str = "TIFF";

/// Tag of the orientation.
const ORIENTATION: u16 = 274;

pub fn decode(
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<(RgbImage, Share<'static>), DecodeError> {
    let directory = Directory::first(bytes)
        .ok_or_else(|| truncated("the file ends before its first directory".to_string()))?;
    let layout = Layout::of(&directory, limits)?;
    let orientation = directory.first_value(ORIENTATION);
    let turns = matches!(orientation, Some(2..=8));
    let share = SHARED.take(layout.memory(turns));
    let samples = pieces::read(bytes, &directory, &layout)?;
    let pixels = colours::rgb(&samples, &layout, &directory)?;
    drop(samples);
    let mut image = image_of(layout.width as u32, layout.height as u32, pixels, FORMAT)?;
    if let Some(orientation @ 2..=8) = orientation {
        image = turned(&image, orientation);
    }
    Ok((image, share))
}

fn unsupported(message: String) -> DecodeError {
    DecodeError::Unsupported {
        format: FORMAT,
        message,
    }
}

fn corrupt(message: String) -> DecodeError {
    DecodeError::Corrupt {
        format: FORMAT,
        message,
    }
}

fn truncated(message: String) -> DecodeError {
    DecodeError::Truncated {
        format: FORMAT,
        message,
    }
}

/// Whether a piece has all its bytes.
fn complete(found: usize, expected: usize) -> Result<(), DecodeError> {
    match found == expected {
        true => Ok(()),
        false => Err(truncated(format!(
            "{found} bytes in a piece, expected {expected}"
        ))),
    }
}

/// The picture in the orientation that TIFF 6.0 numbers 1 to 8: which side of the scene row 0 and column 0 show.
fn turned(image: &RgbImage, orientation: u64) -> RgbImage {
    let (width, height) = (image.width as usize, image.height as usize);
    let exchanged = orientation >= 5;
    let (columns, rows) = if exchanged {
        (height, width)
    } else {
        (width, height)
    };
    let source = image.pixels.as_chunks::<3>().0;
    let mut pixels = Vec::with_capacity(image.pixels.len());
    for row in 0..rows {
        for column in 0..columns {
            let (mut x, mut y) = if exchanged {
                (row, column)
            } else {
                (column, row)
            };
            if matches!(orientation, 2 | 3 | 7 | 8) {
                x = width - 1 - x;
            }
            if matches!(orientation, 3 | 4 | 6 | 7) {
                y = height - 1 - y;
            }
            pixels.extend(source[y * width + x]);
        }
    }
    RgbImage {
        width: columns as u32,
        height: rows as u32,
        pixels,
    }
}
