//! GIF: the first frame. The palette is applied here rather than by the decoder, because a transparent pixel must keep its
//! palette colour, as in Pillow.

use std::num::NonZeroU64;

use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};

use super::budget::{SHARED, Share};
use super::{DecodeError, DecodeLimits, image_of};
use crate::rgb_image::RgbImage;

const FORMAT: &str = "GIF";

pub fn decode(
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<(RgbImage, Share<'static>), DecodeError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    // One byte per pixel. This bounds the frame, which may be larger than the canvas; the canvas is checked below.
    options.set_memory_limit(MemoryLimit::Bytes(
        NonZeroU64::new(limits.max_pixels).unwrap_or(NonZeroU64::MIN),
    ));
    let mut decoder = options.read_info(bytes).map_err(convert)?;
    let canvas = (u32::from(decoder.width()), u32::from(decoder.height()));
    let global = decoder.global_palette().map(<[u8]>::to_vec);

    let none = || DecodeError::Truncated {
        format: FORMAT,
        message: "no frame found".to_string(),
    };
    let info = decoder
        .next_frame_info()
        .map_err(convert)?
        .ok_or_else(none)?;
    let (left, top) = (usize::from(info.left), usize::from(info.top));
    let (frame_width, frame_height) = (usize::from(info.width), usize::from(info.height));
    let transparent = info.transparent;
    // One of the two exists: the decoder rejects a frame that has neither.
    let palette = info.palette.clone().or(global).unwrap_or_default();
    // A frame that does not fit enlarges the canvas.
    let width = canvas.0.max((left + frame_width) as u32);
    let height = canvas.1.max((top + frame_height) as u32);
    limits.check(u64::from(width), u64::from(height))?;
    let area = u64::from(width) * u64::from(height);
    let share = SHARED.take(decoder.buffer_size() as u64 + 3 * area);
    let mut indices = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indices).map_err(convert)?;

    // Pillow fills the canvas around the frame with the transparent index, or with index 0.
    let around = colour(&palette, transparent.unwrap_or(0));
    let mut pixels = around.repeat(width as usize * height as usize);
    if frame_width > 0 {
        for (row, line) in indices.chunks_exact(frame_width).enumerate() {
            let start = ((top + row) * width as usize + left) * 3;
            let target = &mut pixels[start..start + frame_width * 3];
            for (pixel, index) in target.as_chunks_mut::<3>().0.iter_mut().zip(line) {
                *pixel = colour(&palette, *index);
            }
        }
    }
    Ok((image_of(width, height, pixels, FORMAT)?, share))
}

/// Colour of an index; black beyond the palette's end.
fn colour(palette: &[u8], index: u8) -> [u8; 3] {
    let colours = palette.as_chunks::<3>().0;
    colours.get(usize::from(index)).copied().unwrap_or_default()
}

fn convert(error: DecodingError) -> DecodeError {
    let message = error.to_string();
    match error {
        DecodingError::UnexpectedEof => DecodeError::Truncated {
            format: FORMAT,
            message,
        },
        _ => DecodeError::Corrupt {
            format: FORMAT,
            message,
        },
    }
}
