//! BMP of 16 bits, whose channels of 5 or 6 bits Pillow stretches to 8 rounding down, and the `image` crate to the nearest,
//! and of runs, whose short rows Pillow fills with the first colour.

mod rle;

use image::ImageFormat;

use super::budget::Share;
use super::raster;
use super::{DecodeError, DecodeLimits};
use crate::rgb_image::RgbImage;

const FORMAT: &str = "BMP";

pub fn decode(
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<(RgbImage, Share<'static>), DecodeError> {
    if let Some(decoded) = rle::decode(bytes, limits)? {
        return Ok(decoded);
    }
    let (mut image, share) = raster::decode(bytes, ImageFormat::Bmp, FORMAT, limits)?;
    if let Some(bits) = channel_bits(bytes) {
        let tables = bits.map(table);
        for pixel in image.pixels.as_chunks_mut::<3>().0 {
            *pixel = [0, 1, 2].map(|channel| tables[channel][usize::from(pixel[channel])]);
        }
    }
    Ok((image, share))
}

/// Bits of red, green and blue in a file of 16 bits; `None` for the others.
fn channel_bits(bytes: &[u8]) -> Option<[u32; 3]> {
    let number = |at: usize| {
        bytes
            .get(at..at + 4)?
            .try_into()
            .ok()
            .map(u32::from_le_bytes)
    };
    if number(14)? < 40 || number(28)? & 0xFFFF != 16 {
        return None;
    }
    match number(30)? {
        0 => Some([5, 5, 5]),
        3 => Some([
            number(54)?.count_ones(),
            number(58)?.count_ones(),
            number(62)?.count_ones(),
        ]),
        _ => None,
    }
}

/// From the nearest value to the one rounded down; nothing changes for other than 5 and 6 bits.
fn table(bits: u32) -> [u8; 256] {
    std::array::from_fn(|value| match bits {
        5 | 6 => {
            let most = (1 << bits) - 1;
            ((value * most + 127) / 255 * 255 / most) as u8
        }
        _ => value as u8,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretched_channels_are_rounded_down() {
        for bits in [5, 6] {
            let most = (1_usize << bits) - 1;
            for value in 0..=most {
                let nearest = (value * 255 * 2 + most) / (2 * most);
                let down = value * 255 / most;
                assert_eq!(
                    usize::from(table(bits)[nearest]),
                    down,
                    "{value} of {bits} bits"
                );
            }
        }
    }
}
