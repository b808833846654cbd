//! Samples to RGB, as Pillow's `convert("RGB")`.

use super::super::DecodeError;
use super::super::jpeg;
use super::corrupt;
use super::directory::Directory;
use super::layout::{Layout, Meaning, Number};

const COLOUR_MAP: u16 = 320;

/// The pixels of rows of interleaved samples.
pub fn rgb(samples: &[u8], layout: &Layout, directory: &Directory) -> Result<Vec<u8>, DecodeError> {
    let mut pixels = Vec::with_capacity(3 * layout.width * layout.height);
    let table = match layout.meaning {
        Meaning::Palette => palette(&directory.values(COLOUR_MAP), layout.bits)?,
        Meaning::Grey { inverted } => shades(layout.bits, inverted),
        _ => Vec::new(),
    };
    let high = usize::from(layout.little);
    let bytes = layout.bits / 8;
    // The first byte of sample `channel` of a pixel: the only one of 8 bits, and the high one of 16.
    let byte = |pixel: &[u8], channel: usize| match bytes {
        2 => pixel[2 * channel + high],
        _ => pixel[channel],
    };
    let row_bytes = layout.row_bytes(layout.width, layout.samples);
    for row in samples.chunks_exact(row_bytes) {
        let whole = || row.chunks_exact(layout.samples * bytes);
        match layout.meaning {
            Meaning::Grey { .. } | Meaning::Palette => match layout.bits {
                8 => pixels.extend(whole().flat_map(|p| table[usize::from(p[0])])),
                bits => pixels
                    .extend((0..layout.width).flat_map(|x| table[usize::from(part(row, x, bits))])),
            },
            Meaning::Clamped(number) => {
                pixels.extend((0..layout.width).flat_map(|x| [clamped(row, x, number, layout); 3]));
            }
            Meaning::Rgb { associated: false } | Meaning::YCbCr
                if bytes == 1 && layout.samples == 3 =>
            {
                pixels.extend_from_slice(row);
            }
            Meaning::Rgb { associated: false } | Meaning::YCbCr => {
                pixels.extend(whole().flat_map(|p| [byte(p, 0), byte(p, 1), byte(p, 2)]));
            }
            Meaning::Rgb { associated: true } => pixels.extend(whole().flat_map(|p| {
                let alpha = byte(p, 3);
                [0, 1, 2].map(|channel| divided(byte(p, channel), alpha))
            })),
            Meaning::Cmyk => pixels.extend(whole().flat_map(|p| {
                jpeg::rgb_of_inverted([0, 1, 2, 3].map(|channel| 255 - byte(p, channel)))
            })),
        }
    }
    Ok(pixels)
}

/// Sample `x` of less than 8 bits.
fn part(row: &[u8], x: usize, bits: usize) -> u8 {
    let per = 8 / bits;
    let shift = 8 - bits * (x % per + 1);
    (row[x / per] >> shift) & ((1 << bits) - 1)
}

/// A sample of 12, 16 or 32 bits, cut off at 0 and 255 and rounded down.
fn clamped(row: &[u8], x: usize, number: Number, layout: &Layout) -> u8 {
    let at = x * layout.bits / 8;
    let joined = |size: usize| {
        let bytes = row[at..at + size].iter();
        let join = |value: u32, byte: &u8| value << 8 | u32::from(*byte);
        match layout.little {
            true => bytes.rev().fold(0, join),
            false => bytes.fold(0, join),
        }
    };
    let value = match (layout.bits, number) {
        // Two samples in three bytes.
        (12, _) if x.is_multiple_of(2) => i32::from(row[at]) << 4 | i32::from(row[at + 1] >> 4),
        (12, _) => i32::from(row[at] & 15) << 8 | i32::from(row[at + 1]),
        (16, Number::Signed) => i32::from(joined(2) as u16 as i16),
        (16, _) => joined(2) as i32,
        // The conversion cuts off, and takes what is not a number for 0.
        (_, Number::Float) => return f32::from_bits(joined(4)) as u8,
        // Pillow keeps numbers without a sign in a type with one.
        _ => joined(4) as i32,
    };
    value.clamp(0, 255) as u8
}

/// A colour that was multiplied by its alpha, divided by it.
fn divided(colour: u8, alpha: u8) -> u8 {
    let (colour, alpha) = (u32::from(colour), u32::from(alpha));
    (colour * 255).checked_div(alpha).unwrap_or(0).min(255) as u8
}

/// Shades of grey, stretched to 0..=255.
fn shades(bits: usize, inverted: bool) -> Vec<[u8; 3]> {
    let most = (1_usize << bits) - 1;
    let shade = |value: usize| match inverted {
        true => 255 - value * 255 / most,
        false => value * 255 / most,
    };
    (0..=most).map(|value| [shade(value) as u8; 3]).collect()
}

/// The colours of a map: all reds, then all greens, then all blues, of which the high bytes count.
fn palette(map: &[u64], bits: usize) -> Result<Vec<[u8; 3]>, DecodeError> {
    let (colours, needed) = (map.len() / 3, 1_usize << bits);
    if colours < needed {
        return Err(corrupt(format!(
            "colour map of {} values, expected {}",
            map.len(),
            3 * needed
        )));
    }
    let colour = |index| [0, 1, 2].map(|channel| (map[channel * colours + index] / 256) as u8);
    Ok((0..needed).map(colour).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_bytes_come_from_the_high_bits_down() {
        let row = [0b1101_0010, 0b0110_0000];
        assert_eq!(
            [0, 1, 2, 3, 8, 9].map(|x| part(&row, x, 1)),
            [1, 1, 0, 1, 0, 1]
        );
        assert_eq!([0, 1, 2, 3, 4].map(|x| part(&row, x, 2)), [3, 1, 0, 2, 1]);
        assert_eq!([0, 1, 2].map(|x| part(&row, x, 4)), [13, 2, 6]);
    }

    #[test]
    fn associated_alpha_is_divided_out() {
        assert_eq!(divided(50, 0), 0);
        assert_eq!(divided(50, 100), 127);
        assert_eq!(divided(200, 100), 255);
        assert_eq!(divided(200, 255), 200);
    }
}
