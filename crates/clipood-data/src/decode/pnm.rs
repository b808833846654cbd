//! PGM, PPM and PFM with the rounding and the tolerance of Pillow (`PpmImagePlugin.py`).

use super::budget::{SHARED, Share};
use super::{DecodeError, DecodeLimits, image_of};
use crate::rgb_image::RgbImage;

const FORMAT: &str = "PNM";

/// Longest number, in bytes.
const MAX_TOKEN: usize = 10;

/// Whether a file is of a kind that is decoded here: PGM, PPM or PFM.
pub fn is_pnm(bytes: &[u8]) -> bool {
    matches!(bytes, [b'P', b'2' | b'3' | b'5' | b'6', ..]) || is_pfm(bytes)
}

/// Whether a file is a PFM of one channel, which Pillow reads.
fn is_pfm(bytes: &[u8]) -> bool {
    matches!(bytes, [b'P', b'f', space, ..] if is_space(*space))
}

pub fn decode(
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<(RgbImage, Share<'static>), DecodeError> {
    if !bytes.get(2).copied().is_some_and(is_space) {
        return Err(corrupt(
            "no white space behind the first two bytes".to_string(),
        ));
    }
    let kind = bytes[1];
    let mut at = 3;
    let width = number(&token(bytes, &mut at)?, "width")?;
    let height = number(&token(bytes, &mut at)?, "height")?;
    limits.check(width, height)?;
    let channels = if matches!(kind, b'3' | b'6') { 3 } else { 1 };
    let area = (width * height) as usize;
    let count = area * channels;
    let (width, height) = (width as u32, height as u32);

    let scale = token(bytes, &mut at)?;
    let (bytes_each, depth) = match kind {
        b'f' => (4, Depth::Real(is_little(&scale)?)),
        _ => {
            let most = number(&scale, "largest value")?;
            let allowed = (1..65536).contains(&most);
            let most = u16::try_from(most)
                .ok()
                .filter(|_| allowed)
                .ok_or_else(|| corrupt(format!("largest value {most}, allowed: 1 to 65535")))?;
            let bytes = if most < 256 { 1 } else { 2 };
            (bytes, Depth::Whole { most, channels })
        }
    };
    let data = bytes.get(at..).unwrap_or_default();
    let is_plain = matches!(kind, b'2' | b'3');
    let least = if is_plain {
        count
    } else {
        count.saturating_mul(bytes_each)
    };
    if data.len() < least {
        return Err(truncated(data.len(), least, "bytes"));
    }
    let share =
        SHARED.take((count + 3 * area) as u64 + if is_plain { data.len() as u64 } else { 0 });
    let mut samples = Vec::with_capacity(count);
    match depth {
        Depth::Real(little) => {
            // The last row comes first.
            for row in data[..least].chunks_exact(4 * width as usize).rev() {
                // The conversion cuts off at 0 and 255, rounds down, and takes what is not a number for 0.
                samples.extend(row.as_chunks::<4>().0.iter().map(|value| match little {
                    true => f32::from_le_bytes(*value) as u8,
                    false => f32::from_be_bytes(*value) as u8,
                }));
            }
        }
        Depth::Whole { most, channels } if is_plain => {
            let text = without_comments(data);
            let words = text
                .split(|byte| is_space(*byte))
                .filter(|word| !word.is_empty());
            for word in words.take(count) {
                let value = number(word, "value")?;
                if value > u64::from(most) {
                    return Err(corrupt(format!("value {value}, at most {most}")));
                }
                samples.push(scaled(value as u16, most, channels));
            }
        }
        Depth::Whole { most: 255, .. } => samples.extend_from_slice(&data[..least]),
        Depth::Whole { most, channels } => {
            let values = data[..least].chunks_exact(bytes_each);
            let value = |bytes: &[u8]| {
                bytes
                    .iter()
                    .fold(0, |high, low| high << 8 | u16::from(*low))
            };
            samples.extend(values.map(|bytes| scaled(value(bytes), most, channels)));
        }
    }
    if samples.len() < count {
        return Err(truncated(samples.len(), count, "values"));
    }
    let pixels = match channels {
        3 => samples,
        _ => samples.iter().flat_map(|grey| [*grey; 3]).collect(),
    };
    Ok((image_of(width, height, pixels, FORMAT)?, share))
}

/// What the values of a file are.
enum Depth {
    /// Numbers of 32 bits, with their low byte first or last.
    Real(bool),
    Whole {
        most: u16,
        channels: usize,
    },
}

/// A value stretched to 0..=255, or, grey of more than 8 bits, to 0..=65535 and then cut off at 255 (Pillow's mode `I`).
fn scaled(value: u16, most: u16, channels: usize) -> u8 {
    let range = if channels == 1 && most > 255 {
        65535.0
    } else {
        255.0
    };
    let stretched = (f64::from(value) / f64::from(most) * range).round_ties_even();
    stretched.min(255.0) as u8
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | 0x09..=0x0D)
}

/// The next word of the header; moves `at` behind the white space that ends it. As in Pillow, a comment ends no word.
fn token(bytes: &[u8], at: &mut usize) -> Result<Vec<u8>, DecodeError> {
    let mut word = Vec::new();
    let mut is_comment = false;
    while word.len() <= MAX_TOKEN {
        let byte = *bytes.get(*at).ok_or_else(truncated_header)?;
        *at += 1;
        match byte {
            b'\r' | b'\n' if is_comment => is_comment = false,
            _ if is_comment => {}
            b'#' => is_comment = true,
            _ if !is_space(byte) => word.push(byte),
            _ if !word.is_empty() => break,
            _ => {}
        }
    }
    Ok(word)
}

fn number(word: &[u8], what: &str) -> Result<u64, DecodeError> {
    let text = str::from_utf8(word)
        .ok()
        .filter(|word| word.len() <= MAX_TOKEN);
    text.and_then(|word| word.parse::<u32>().ok())
        .map(u64::from)
        .ok_or_else(|| {
            let start = word[..word.len().min(MAX_TOKEN + 1)].escape_ascii();
            corrupt(format!(
                "found \"{start}\" for the {what}, expected a number"
            ))
        })
}

/// Whether numbers start with their low byte: the sign of the scale, which is not applied.
fn is_little(scale: &[u8]) -> Result<bool, DecodeError> {
    let text = str::from_utf8(scale)
        .ok()
        .filter(|word| word.len() <= MAX_TOKEN);
    let value = text.and_then(|word| word.parse::<f64>().ok());
    match value.filter(|scale| scale.is_finite() && *scale != 0.0) {
        Some(scale) => Ok(scale < 0.0),
        None => Err(corrupt(
            "scale must be a finite number other than 0".to_string(),
        )),
    }
}

/// A text without what stands from each `#` to the end of its line.
fn without_comments(text: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    let mut is_comment = false;
    for byte in text {
        match byte {
            b'\r' | b'\n' if is_comment => is_comment = false,
            b'#' => is_comment = true,
            _ if is_comment => {}
            _ => kept.push(*byte),
        }
    }
    kept
}

fn corrupt(message: String) -> DecodeError {
    DecodeError::Corrupt {
        format: FORMAT,
        message,
    }
}

fn truncated_header() -> DecodeError {
    DecodeError::Truncated {
        format: FORMAT,
        message: "the file ends in its header".to_string(),
    }
}

fn truncated(found: usize, expected: usize, what: &str) -> DecodeError {
    DecodeError::Truncated {
        format: FORMAT,
        message: format!("{found} {what}, expected {expected}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_to_even_like_pillow() {
        assert_eq!(
            [0, 1, 2, 3, 100].map(|v| scaled(v, 100, 3)),
            [0, 3, 5, 8, 255]
        );
        // 0.5 of 255 is 127.5.
        assert_eq!(scaled(1, 2, 3), 128);
        assert_eq!(scaled(200, 100, 3), 255);
        assert_eq!([0, 1, 3, 4].map(|v| scaled(v, 1000, 1)), [0, 66, 197, 255]);
    }

    #[test]
    fn comments_may_stand_between_all_words() {
        let limits = DecodeLimits::default();
        let file = b"P3 # one\n1#two\n 1 255\n1 # three\n2 3";
        assert_eq!(decode(file, &limits).unwrap().0.pixels, [1, 2, 3]);
        for length in 3..file.len() - 1 {
            assert!(decode(&file[..length], &limits).is_err(), "{length}");
        }
    }
}
