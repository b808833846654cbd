//! Run-length encoding as Pillow decodes it (`BmpImagePlugin.py`, `BmpRleDecoder`).

use super::super::budget::{SHARED, Share};
use super::super::{DecodeError, DecodeLimits, image_of};
use super::FORMAT;
use crate::rgb_image::RgbImage;

/// `None` for other files, and for those that leave pixels at the end out, which Pillow refuses.
pub fn decode(
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<Option<(RgbImage, Share<'static>)>, DecodeError> {
    let Some(header) = Header::of(bytes) else {
        return Ok(None);
    };
    let (width, height) = (header.width, header.height);
    limits.check(u64::from(width), u64::from(height))?;
    let (width, height) = (width as usize, height as usize);
    let share = SHARED.take(5 * (width * height) as u64);
    let Some(indices) = indices(bytes, &header, width * height) else {
        return Ok(None);
    };
    let mut pixels = Vec::with_capacity(3 * width * height);
    let row = |y| &indices[y * width..][..width];
    for y in 0..height {
        let stored = if header.top_down { y } else { height - 1 - y };
        for index in row(stored) {
            // Colours behind the palette are black.
            let colour = header.palette.get(usize::from(*index));
            pixels.extend(colour.map_or([0; 3], |[b, g, r, _]| [*r, *g, *b]));
        }
    }
    let image = image_of(header.width, header.height, pixels, FORMAT)?;
    Ok(Some((image, share)))
}

struct Header<'a> {
    width: u32,
    height: u32,
    top_down: bool,
    four_bits: bool,
    /// Place of the runs.
    data: usize,
    /// Blue, green, red and a byte without meaning.
    palette: &'a [[u8; 4]],
}

impl<'a> Header<'a> {
    /// `None` if the file is not run-length encoded.
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let size = number(14)?;
        if !matches!(size, 40 | 52 | 56 | 64 | 108 | 124) {
            return None;
        }
        let bits = number(28)? & 0xFFFF;
        let four_bits = match (number(30)?, bits) {
            (1, 8) => false,
            (2, 4) => true,
            _ => return None,
        };
        let top_down = bytes.get(25) == Some(&0xFF);
        let height = number(22)?;
        let start = 14 + size as usize;
        let colours = match number(46)? {
            0 => 1 << bits,
            colours => colours as usize,
        };
        let end = start.checked_add(colours.checked_mul(4)?)?;
        let mut data = number(10)? as usize;
        if data == start {
            data = end;
        }
        Some(Header {
            width: number(18)?,
            height: if top_down {
                height.wrapping_neg()
            } else {
                height
            },
            top_down,
            four_bits,
            data,
            palette: bytes.get(start..end)?.as_chunks::<4>().0,
        })
    }
}

/// The first `area` indices, row by row as stored; `None` if there are fewer.
fn indices(bytes: &[u8], header: &Header, area: usize) -> Option<Vec<u8>> {
    let width = header.width as usize;
    let mut out: Vec<u8> = Vec::with_capacity(area);
    let (mut at, mut x) = (header.data, 0);
    while out.len() < area {
        let &[count, value] = bytes.get(at..)?.first_chunk()?;
        at += 2;
        let pair = [value >> 4, value & 15];
        match (count, value) {
            (0, 0) => {
                out.resize(out.len().next_multiple_of(width), 0);
                x = 0;
            }
            (0, 1) => break,
            (0, 2) => {
                let &[right, up] = bytes.get(at..)?.first_chunk()?;
                at += 2;
                out.resize(out.len() + usize::from(right) + usize::from(up) * width, 0);
                x = out.len() % width;
            }
            // As in Pillow, the last of an odd number of pixels of 4 bits is lost.
            (0, _) if header.four_bits => {
                let bytes = bytes.get(at..at + usize::from(value / 2))?;
                out.extend(bytes.iter().flat_map(|pair| [pair >> 4, pair & 15]));
                at += bytes.len();
                at += at % 2;
                x += usize::from(value);
            }
            (0, _) => {
                out.extend(bytes.get(at..at + usize::from(value))?);
                at += usize::from(value);
                at += at % 2;
                x += usize::from(value);
            }
            _ => {
                let run = usize::from(count).min(width.saturating_sub(x));
                match header.four_bits {
                    true => out.extend(pair.iter().cycle().take(run)),
                    false => out.resize(out.len() + run, value),
                }
                x += run;
            }
        }
    }
    out.truncate(area);
    (out.len() == area).then_some(out)
}
