//! Bicubic resizing, bit-exact to Pillow 12.3 or 13.0 (`Resample.c`), which differ in the order of the two passes.
//!
//! The filter is the cubic of Keys (1981) with a = -0.5, stretched by the scale when shrinking. Weights are computed in f64
//! and rounded to 22 fractional bits. The result of the first pass is rounded and clamped to 8 bits before the second. The
//! horizontal pass comes first, in Pillow 13 unless shrinking the height removes more than twice as many rows as the other
//! pass removes columns: a rule found by comparison with Pillow 13.0 on thousands of sizes. All sums wrap in 32 bits, so that their order does not matter and any vector width produces
//! the same bytes.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod axis;
mod scalar;

use clipood_core::Resize;

use crate::rgb_image::RgbImage;
use axis::Axis;

/// A rectangle of pixels: columns `left..left + width`, rows `top..top + height`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// The rectangle of all pixels.
pub fn whole(image: &RgbImage) -> Rect {
    Rect {
        left: 0,
        top: 0,
        width: image.width,
        height: image.height,
    }
}

/// Cuts `region` out of an image, resizes it to `size` (width, height), and returns the pixels of the result that lie in
/// `window`, `[window.height, window.width, 3]`. Only these are computed.
///
/// `region` must be inside the image and not empty, `window` inside `size`.
pub fn resample(
    image: &RgbImage,
    region: Rect,
    size: (u32, u32),
    window: Rect,
    resize: Resize,
) -> Vec<u8> {
    let across = Axis::new(region.width, size.0, window.left, window.width);
    let down = Axis::new(region.height, size.1, window.top, window.height);
    if across.span() == 0 || down.span() == 0 {
        return vec![0; across.len() * down.len() * 3];
    }
    let input = Input {
        pixels: &image.pixels,
        stride: image.width as usize * 3,
        left: region.left as usize + across.start(),
        top: region.top as usize + down.start(),
        columns: across.span(),
        rows: down.span(),
    };
    if resize == Resize::Pillow13 && down_first(region, size) {
        let rows = both(&input, &Axis::same(input.columns), &down);
        let input = Input {
            pixels: &rows,
            stride: across.span() * 3,
            left: 0,
            top: 0,
            columns: across.span(),
            rows: down.len(),
        };
        return both(&input, &across, &Axis::same(down.len()));
    }
    both(&input, &across, &down)
}

/// Whether Pillow 13 resizes down before it resizes across.
fn down_first(region: Rect, size: (u32, u32)) -> bool {
    let removed = |from: u32, to: u32| i64::from(from) - i64::from(to);
    let (rows, columns) = (
        removed(region.height, size.1),
        removed(region.width, size.0),
    );
    rows > 0 && rows > 2 * columns
}

/// Both passes, across first.
fn both(input: &Input<'_>, across: &Axis, down: &Axis) -> Vec<u8> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the line above found that the processor has AVX2.
        return unsafe { avx2::resample(input, across, down) };
    }
    scalar::resample(input, across, down)
}

/// The pixels of an image that a resize reads.
struct Input<'a> {
    pixels: &'a [u8],
    /// Bytes from one row of the image to the next.
    stride: usize,
    left: usize,
    top: usize,
    columns: usize,
    rows: usize,
}

impl Input<'_> {
    /// Row `index` of these pixels, `[columns, 3]`.
    fn row(&self, index: usize) -> &[u8] {
        let start = (self.top + index) * self.stride + self.left * 3;
        &self.pixels[start..start + self.columns * 3]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Resizes a whole image.
    fn resize(image: &RgbImage, width: u32, height: u32) -> RgbImage {
        let window = Rect {
            left: 0,
            top: 0,
            width,
            height,
        };
        let pixels = resample(
            image,
            whole(image),
            (width, height),
            window,
            Resize::Pillow12,
        );
        RgbImage::new(width, height, pixels).unwrap()
    }

    /// Noise with runs of black and white, where the filter overshoots most.
    fn pixels(seed: u64, count: usize) -> Vec<u8> {
        let mut rng = clipood_core::SplitMix64::keyed(seed, "pixels", 0);
        (0..count)
            .map(|_| match rng.below(4) {
                0 => 0,
                1 => 255,
                _ => rng.next_u64() as u8,
            })
            .collect()
    }

    #[cfg(target_arch = "x86_64")]
    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Fails on a processor without AVX2 instead of skipping, because there only half of the code would be tested.
        #[test]
        fn vector_and_scalar_code_agree(
            (width, height) in (1u32..90, 1u32..90),
            (out_width, out_height) in (1u32..70, 1u32..70),
            seed: u64,
        ) {
            prop_assert!(is_x86_feature_detected!("avx2"));
            let image = pixels(seed, (width * height * 3) as usize);
            let across = Axis::new(width, out_width, 0, out_width);
            let down = Axis::new(height, out_height, 0, out_height);
            let input = Input {
                pixels: &image,
                stride: width as usize * 3,
                left: across.start(),
                top: down.start(),
                columns: across.span(),
                rows: down.span(),
            };
            // SAFETY: AVX2 was asserted above.
            let vector = unsafe { avx2::resample(&input, &across, &down) };
            prop_assert_eq!(vector, scalar::resample(&input, &across, &down));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_window_is_that_part_of_the_whole(
            (width, height) in (1u32..60, 1u32..60),
            (out_width, out_height) in (1u32..50, 1u32..50),
            (x, y) in (0.0..1.0f64, 0.0..1.0f64),
            seed: u64,
        ) {
            let image = RgbImage::new(width, height, pixels(seed, (width * height * 3) as usize)).unwrap();
            let left = (x * f64::from(out_width)) as u32;
            let top = (y * f64::from(out_height)) as u32;
            let window = Rect { left, top, width: out_width - left, height: out_height - top };
            let part = resample(&image, whole(&image), (out_width, out_height), window, Resize::Pillow12);
            let all = resize(&image, out_width, out_height);
            let expected: Vec<u8> = all
                .pixels
                .chunks_exact(out_width as usize * 3)
                .skip(top as usize)
                .flat_map(|row| row[left as usize * 3..].to_vec())
                .collect();
            prop_assert_eq!(part, expected);
        }

        #[test]
        fn a_region_is_cut_out_before_it_is_resized(
            (width, height) in (1u32..60, 1u32..60),
            (x, y) in (0.0..1.0f64, 0.0..1.0f64),
            out in 1u32..40,
            seed: u64,
        ) {
            let image = RgbImage::new(width, height, pixels(seed, (width * height * 3) as usize)).unwrap();
            let left = (x * f64::from(width)) as u32;
            let top = (y * f64::from(height)) as u32;
            let region = Rect { left, top, width: width - left, height: height - top };
            let cut: Vec<u8> = image
                .pixels
                .chunks_exact(width as usize * 3)
                .skip(top as usize)
                .flat_map(|row| row[left as usize * 3..].to_vec())
                .collect();
            let cut = RgbImage::new(region.width, region.height, cut).unwrap();
            let window = Rect { left: 0, top: 0, width: out, height: out };
            let found = resample(&image, region, (out, out), window, Resize::Pillow12);
            prop_assert_eq!(found, resize(&cut, out, out).pixels);
        }
    }

    /// The picture of `tests/data/resize/make.py`.
    fn formula(width: u32, height: u32) -> RgbImage {
        let mut state = width * 65536 + height;
        let mut next = |_| {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345) & 0x7FFF_FFFF;
            (state >> 16) as u8
        };
        let pixels = (0..width * height * 3).map(&mut next).collect();
        RgbImage::new(width, height, pixels).unwrap()
    }

    #[test]
    fn resizing_is_that_of_pillow_12_and_13() {
        use sha2::Digest;
        let files = [
            (
                Resize::Pillow12,
                include_str!("../tests/data/resize/pillow12.json"),
            ),
            (
                Resize::Pillow13,
                include_str!("../tests/data/resize/pillow13.json"),
            ),
        ];
        for (version, text) in files {
            let rows: Vec<(u32, u32, u32, u32, String)> = serde_json::from_str(text).unwrap();
            assert_eq!(rows.len(), 18);
            for (width, height, columns, rows, expected) in rows {
                let image = formula(width, height);
                let size = (columns, rows);
                let window = Rect {
                    left: 0,
                    top: 0,
                    width: columns,
                    height: rows,
                };
                let found = resample(&image, whole(&image), size, window, version);
                let hash = sha2::Sha256::digest(&found);
                let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(hash, expected, "{version:?} {width} x {height} -> {size:?}");
                // A part of the result is that part of the whole.
                let part = Rect {
                    left: columns / 3,
                    top: rows / 4,
                    width: 2,
                    height: 3,
                };
                let part_pixels = resample(&image, whole(&image), size, part, version);
                let whole_rows = found.chunks_exact(columns as usize * 3);
                let expected: Vec<u8> = whole_rows
                    .skip(part.top as usize)
                    .take(3)
                    .flat_map(|row| row[part.left as usize * 3..][..6].to_vec())
                    .collect();
                assert_eq!(
                    part_pixels, expected,
                    "{version:?} {width} x {height} -> {size:?}"
                );
            }
        }
    }

    #[test]
    fn the_same_size_changes_nothing_and_a_flat_image_stays_flat() {
        let image = RgbImage::new(31, 17, pixels(3, 31 * 17 * 3)).unwrap();
        assert_eq!(resize(&image, 31, 17), image);
        let flat = RgbImage::new(40, 30, [9, 120, 255].repeat(1200)).unwrap();
        let found = resize(&flat, 13, 57);
        assert_eq!(found.pixels, [9, 120, 255].repeat(13 * 57));
    }
}
