//! [`Picture`]: the view of an image with what is drawn over it.

use super::colours::colour;
use crate::error::{PipelineError, Result};

/// Colour of extracted patches: vermilion of Okabe and Ito's palette, which readers with any colour vision tell from grey.
const MARK: [u8; 3] = [213, 94, 0];
/// Weight of [`MARK`] in an extracted patch.
const MARKED: f64 = 0.45;
/// Weight of black in every other patch.
const DIMMED: f64 = 0.6;
/// Weight of white in the lines between patches.
const LINE: f64 = 0.4;
/// Weight of a colour of a heat map over the grey image.
const HEAT: f64 = 0.6;

/// A picture, RGB, three bytes per pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Columns.
    width: usize,
    /// `[rows, width, 3]`.
    pixels: Vec<u8>,
}

impl Picture {
    /// The view `[side, side, 3]` of an image, every pixel enlarged to a square by the smallest whole factor that gives at least
    /// `least` columns.
    pub fn of_view(view: &[u8], side: usize, least: usize) -> Self {
        let factor = least.div_ceil(side.max(1)).max(1);
        let width = side * factor;
        let mut pixels = Vec::with_capacity(3 * width * width);
        for row in view.chunks_exact((3 * side).max(1)) {
            let wide: Vec<u8> = row
                .as_chunks::<3>()
                .0
                .iter()
                .flat_map(|pixel| std::iter::repeat_n(*pixel, factor))
                .flatten()
                .collect();
            (0..factor).for_each(|_| pixels.extend_from_slice(&wide));
        }
        Self { width, pixels }
    }

    /// The colours of heat maps from the smallest value, on the left, to the largest.
    pub fn colour_bar(width: usize, height: usize) -> Self {
        let last = width.saturating_sub(1).max(1) as f64;
        let row: Vec<u8> = (0..width).flat_map(|x| colour(x as f64 / last)).collect();
        Self {
            width,
            pixels: row.repeat(height),
        }
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.pixels.len() / (3 * self.width).max(1)
    }

    /// The colour of a pixel; `None` outside of the picture.
    pub fn pixel(&self, x: usize, y: usize) -> Option<[u8; 3]> {
        let pixels = self.pixels.as_chunks::<3>().0;
        (x < self.width).then(|| pixels.get(y * self.width + x).copied())?
    }

    /// A square picture of `grid` by `grid` patches with the extracted ones, `[grid * grid]`, marked and the others dimmed, and
    /// lines between all.
    #[must_use]
    pub fn with_extracted(self, grid: usize, extracted: &[bool]) -> Self {
        self.drawn(grid, |pixel, patch, on_line| {
            let pixel = match extracted.get(patch) {
                Some(true) => mixed(pixel, MARK, MARKED),
                _ => mixed(pixel, [0; 3], DIMMED),
            };
            match on_line {
                true => mixed(pixel, [255; 3], LINE),
                false => pixel,
            }
        })
    }

    /// A square picture in grey with the colours of `values` `[grid * grid]` over its patches; the first colour stands for
    /// `range.0`, the last for `range.1`.
    #[must_use]
    pub fn with_heat(self, grid: usize, values: &[f32], range: (f32, f32)) -> Self {
        let (least, most) = (f64::from(range.0), f64::from(range.1));
        let share = |value: &f32| match most > least {
            true => (f64::from(*value) - least) / (most - least),
            false => 0.5,
        };
        let colours: Vec<[u8; 3]> = values.iter().map(|value| colour(share(value))).collect();
        self.drawn(grid, |pixel, patch, _| {
            let colour = colours.get(patch).copied().unwrap_or_default();
            mixed(grey(pixel), colour, HEAT)
        })
    }

    /// Every pixel replaced by `paint`, which gets its colour, the number of its patch, and whether it is the first in a row or
    /// column of a patch beside another.
    fn drawn(mut self, grid: usize, paint: impl Fn([u8; 3], usize, bool) -> [u8; 3]) -> Self {
        let width = self.width;
        let cell = |at: usize| at * grid / width;
        let begins = |at: usize| at > 0 && cell(at) != cell(at - 1);
        for (y, row) in self.pixels.chunks_exact_mut((3 * width).max(1)).enumerate() {
            for (x, pixel) in row.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                *pixel = paint(*pixel, cell(y) * grid + cell(x), begins(x) || begins(y));
            }
        }
        self
    }

    /// The picture as a PNG file.
    ///
    /// # Errors
    /// A picture without pixels.
    pub fn png(&self) -> Result<Vec<u8>> {
        let fail = |error: png::EncodingError| PipelineError::Inconsistent(format!("PNG: {error}"));
        let (width, height) = (self.width as u32, self.height() as u32);
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().map_err(fail)?;
        writer.write_image_data(&self.pixels).map_err(fail)?;
        writer.finish().map_err(fail)?;
        Ok(file)
    }

    /// The picture as a JPEG file.
    ///
    /// # Errors
    /// A picture without pixels, or of more than 65,535 columns or rows.
    pub fn jpeg(&self, quality: u8) -> Result<Vec<u8>> {
        let side = |side: usize| {
            u16::try_from(side).map_err(|_| {
                PipelineError::Inconsistent(format!("JPEG: found a side of {side} pixels"))
            })
        };
        let (width, height) = (side(self.width)?, side(self.height())?);
        let mut file = Vec::new();
        jpeg_encoder::Encoder::new(&mut file, quality)
            .encode(&self.pixels, width, height, jpeg_encoder::ColorType::Rgb)
            .map_err(|error| PipelineError::Inconsistent(format!("JPEG: {error}")))?;
        Ok(file)
    }
}

/// `other` over `pixel` with a weight of 0 to 1.
fn mixed(pixel: [u8; 3], other: [u8; 3], weight: f64) -> [u8; 3] {
    std::array::from_fn(|channel| {
        let (a, b) = (f64::from(pixel[channel]), f64::from(other[channel]));
        (a * (1.0 - weight) + b * weight).round() as u8
    })
}

/// The luma of a pixel (ITU-R BT.601, as Pillow's grey).
fn grey([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let sum = 299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue);
    [((sum + 500) / 1000) as u8; 3]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 4 x 4 pixels in four flat patches: red, green, blue, white.
    fn view() -> Vec<u8> {
        let colours = [[200, 0, 0], [0, 200, 0], [0, 0, 200], [255, 255, 255]];
        let pixel = |at: usize| colours[at / 8 * 2 + at % 4 / 2];
        (0..16).flat_map(pixel).collect()
    }

    #[test]
    fn extracted_patches_are_marked_and_the_others_dimmed() {
        let picture =
            Picture::of_view(&view(), 4, 40).with_extracted(2, &[true, false, false, true]);
        assert_eq!((picture.width(), picture.height()), (40, 40));
        let at = |x, y| picture.pixel(x, y).unwrap();
        // 0.55 * 200 + 0.45 * 213, 0.45 * 94, 0.
        assert_eq!(at(10, 10), [206, 42, 0]);
        assert_eq!(at(30, 10), [0, 80, 0]);
        assert_eq!(at(10, 30), [0, 0, 80]);
        // 0.55 * 255 + 0.45 * mark.
        assert_eq!(at(30, 30), [236, 183, 140]);
        // The first column of the right patches is lighter: 0.6 * 80 + 0.4 * 255; the last of the left ones is not.
        assert_eq!(at(20, 10), [102, 150, 102]);
        assert_eq!(at(19, 10), [206, 42, 0]);
        assert_eq!(at(0, 0), [206, 42, 0]);
        assert_eq!(picture.pixel(40, 0), None);
        assert_eq!(picture.pixel(0, 40), None);
    }

    #[test]
    fn heat_has_the_colours_of_its_values() {
        let values = [0.1, 0.3, 0.2, 0.3];
        let picture = Picture::of_view(&view(), 4, 4).with_heat(2, &values, (0.1, 0.3));
        let expected = |grey: u8, t: f64| {
            colour(t).map(|c| (0.4 * f64::from(grey) + 0.6 * f64::from(c)).round() as u8)
        };
        // Luma: 0.299 * 200, 0.587 * 200, 0.114 * 200, 255.
        assert_eq!(picture.pixel(0, 0), Some(expected(60, 0.0)));
        assert_eq!(picture.pixel(3, 1), Some(expected(117, 1.0)));
        let middle = picture.pixel(1, 3).unwrap();
        let wanted = expected(23, 0.5);
        assert!(middle.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 1));
        assert_eq!(picture.pixel(3, 3), Some(expected(255, 1.0)));
        // Without any difference: the colour in the middle.
        let flat = Picture::of_view(&view(), 4, 4).with_heat(2, &[0.2; 4], (0.2, 0.2));
        assert_eq!(flat.pixel(0, 0), Some(expected(60, 0.5)));
    }

    #[test]
    fn files_hold_the_picture() {
        let picture = Picture::of_view(&view(), 4, 9);
        assert_eq!(picture.width(), 12);
        let file = picture.png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; 12 * 12 * 3];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, picture.pixels);
        assert_eq!(picture.jpeg(90).unwrap()[..2], [0xff, 0xd8]);
        let bar = Picture::colour_bar(5, 2);
        assert_eq!((bar.width(), bar.height()), (5, 2));
        assert_eq!(bar.pixel(0, 1), Some(colour(0.0)));
        assert_eq!(bar.pixel(4, 0), Some(colour(1.0)));
        assert!(Picture::of_view(&[], 0, 8).png().is_err());
    }
}
