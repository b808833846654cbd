//! A decoded image.

/// Pixels of an image, 8 bits per channel.
///
/// [`decode`](crate::decode) and [`RgbImage::new`] ensure that `pixels` holds `height * width * 3` bytes and that no side
/// is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RgbImage {
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
    /// `[height, width, 3]`, row-major, channels in the order red, green, blue.
    pub pixels: Vec<u8>,
}

impl RgbImage {
    /// An image of these pixels, `[height, width, 3]`; `None` if a side is 0 or the number of bytes is not
    /// `height * width * 3`.
    pub fn new(width: u32, height: u32, pixels: Vec<u8>) -> Option<RgbImage> {
        let expected = u64::from(width)
            .checked_mul(u64::from(height))?
            .checked_mul(3)?;
        (expected > 0 && expected == pixels.len() as u64).then_some(RgbImage {
            width,
            height,
            pixels,
        })
    }
}
