//! What the `image` crate leaves out of TIFF: palettes, and the orientation, which Pillow applies to this format.

use super::budget::Share;
use super::raster;
use super::{DecodeError, DecodeLimits};
use crate::rgb_image::RgbImage;
use image::ImageFormat;

const FORMAT: &str = "TIFF";
const BITS: u16 = 258;
const PHOTOMETRIC: u16 = 262;
const ORIENTATION: u16 = 274;
const COLOUR_MAP: u16 = 320;
/// Value of [`PHOTOMETRIC`] for a palette.
const PALETTE: u64 = 3;

pub fn decode(
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<(RgbImage, Share<'static>), DecodeError> {
    let directory = Directory::first(bytes);
    let value = |tag| directory.as_ref().and_then(|d| d.first_value(tag));
    let (mut image, share) = if value(PHOTOMETRIC) == Some(PALETTE) {
        // Decoded as grey, which leaves the indices.
        let mut indices = bytes.to_vec();
        if let Some(place) = directory.as_ref().and_then(|d| d.place(PHOTOMETRIC)) {
            let one = if directory.as_ref().is_some_and(|d| d.little) {
                0
            } else {
                1
            };
            indices[place + one] = 1;
        }
        let (mut image, share) = raster::decode(&indices, ImageFormat::Tiff, FORMAT, limits)?;
        let bits = value(BITS).unwrap_or(1).clamp(1, 8);
        let map = directory
            .as_ref()
            .map(|d| d.values(COLOUR_MAP))
            .unwrap_or_default();
        colour(&mut image, &map, bits as u32)?;
        (image, share)
    } else {
        raster::decode(bytes, ImageFormat::Tiff, FORMAT, limits)?
    };
    if let Some(orientation @ 2..=8) = value(ORIENTATION) {
        image = turned(&image, orientation);
    }
    Ok((image, share))
}

/// Replaces indices, which came out as grey stretched to 0..=255, by their colours: the high bytes of `map`, red, then
/// green, then blue.
fn colour(image: &mut RgbImage, map: &[u64], bits: u32) -> Result<(), DecodeError> {
    let colours = 1_usize << bits;
    if map.len() != 3 * colours {
        return Err(DecodeError::Corrupt {
            format: FORMAT,
            message: format!(
                "colour map of {} values, expected {}",
                map.len(),
                3 * colours
            ),
        });
    }
    for pixel in image.pixels.as_chunks_mut::<3>().0 {
        let index = usize::from(pixel[0]) * (colours - 1) / 255;
        *pixel = [0, 1, 2].map(|channel| (map[channel * colours + index] / 256) as u8);
    }
    Ok(())
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

/// The first directory of a file: its entries with their tag, type, count and the place of their values.
struct Directory<'a> {
    bytes: &'a [u8],
    little: bool,
    entries: Vec<(u16, usize, usize, usize)>,
}

impl<'a> Directory<'a> {
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let little = bytes.starts_with(b"II");
        let number = |at: usize, size: usize| number(bytes, at, size, little);
        let big = number(2, 2)? == 43;
        // Sizes of the count of entries, of a place, and of an entry.
        let (count, word, entry) = if big { (8, 8, 20) } else { (2, 4, 12) };
        let start = number(word, word)? as usize;
        let mut entries = Vec::new();
        for index in 0..(number(start, count)? as usize).min(4096) {
            let at = start + count + index * entry;
            let (tag, kind) = (number(at, 2)? as u16, number(at + 2, 2)?);
            let size = match kind {
                1 => 1,
                3 => 2,
                4 => 4,
                16 => 8,
                _ => continue,
            };
            let values = number(at + 4, word)? as usize;
            let mut place = at + 4 + word;
            if values.checked_mul(size)? > word {
                place = number(place, word)? as usize;
            }
            entries.push((tag, size, values, place));
        }
        Some(Directory {
            bytes,
            little,
            entries,
        })
    }

    /// Place of the values of an entry.
    fn place(&self, tag: u16) -> Option<usize> {
        let entry = self.entries.iter().find(|entry| entry.0 == tag)?;
        Some(entry.3)
    }

    /// Unsigned values of an entry; empty if there is none, or if the file ends before them.
    fn values(&self, tag: u16) -> Vec<u64> {
        let Some(&(_, size, count, place)) = self.entries.iter().find(|entry| entry.0 == tag)
        else {
            return Vec::new();
        };
        if count > self.bytes.len() {
            return Vec::new();
        }
        let value = |index| {
            number(
                self.bytes,
                place.checked_add(index * size)?,
                size,
                self.little,
            )
        };
        (0..count).map_while(value).collect()
    }

    fn first_value(&self, tag: u16) -> Option<u64> {
        self.values(tag).first().copied()
    }
}

/// The unsigned number of `size` bytes at `at`.
fn number(bytes: &[u8], at: usize, size: usize, little: bool) -> Option<u64> {
    let found = bytes.get(at..at.checked_add(size)?)?.iter();
    let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    Some(if little {
        found.rev().fold(0, join)
    } else {
        found.fold(0, join)
    })
}
