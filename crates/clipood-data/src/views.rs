//! Views: the square inputs of the image encoder that are cut from an image.

use clipood_core::{Resize, SplitMix64};

use crate::resize::{Rect, resample, whole};
use crate::rgb_image::RgbImage;

/// A training crop: rows `top..top + height`, columns `left..left + width` of an image, optionally mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropBox {
    /// First row.
    pub top: u32,
    /// First column.
    pub left: u32,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// Whether the crop is flipped left to right.
    pub mirror: bool,
}

/// The evaluation view, `[side, side, 3]`: the image is resized (bicubic) so that its short side is `side` and its long one
/// `floor(side * long / short)`, then cropped to the centre, as torchvision's `Resize(side, BICUBIC)` and `CenterCrop(side)`
/// do on a Pillow image. Only the pixels of the crop are computed.
///
/// The resizing is that of Pillow 12.3; see [`eval_view_as`].
pub fn eval_view(image: &RgbImage, side: u32) -> Vec<u8> {
    eval_view_as(image, side, Resize::default())
}

/// [`eval_view`] with the resizing of a version of Pillow.
pub fn eval_view_as(image: &RgbImage, side: u32, resize: Resize) -> Vec<u8> {
    let scaled = |long: u32, short: u32| {
        let exact = f64::from(side) * f64::from(long) / f64::from(short);
        exact as u32
    };
    let size = if image.width <= image.height {
        (side, scaled(image.height, image.width))
    } else {
        (scaled(image.width, image.height), side)
    };
    // Halves are rounded to the even number, as Python's `round` does.
    let margin = |length: u32| (f64::from(length - side) / 2.0).round_ties_even() as u32;
    let window = Rect {
        left: margin(size.0),
        top: margin(size.1),
        width: side,
        height: side,
    };
    resample(image, whole(image), size, window, resize)
}

/// Draws a training crop of a `width` x `height` image: torchvision's `RandomResizedCrop` with ratio 3/4 to 4/3 (ten
/// tries, then the largest centred crop of a permitted ratio), then mirrored with probability 1/2. `scale` is the smallest
/// and the largest fraction of the area, `[0.08, 1.0]` in the reference implementations.
///
/// The numbers are drawn in a fixed order: with `SplitMix64::keyed(seed, image_key, view)` the crop is a pure function of
/// these three.
pub fn random_resized_crop_box(
    width: u32,
    height: u32,
    scale: [f64; 2],
    rng: &mut SplitMix64,
) -> CropBox {
    const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
    let area = f64::from(width) * f64::from(height);
    let logs = (RATIO.0.ln(), RATIO.1.ln());
    for _ in 0..10 {
        let target = area * (scale[0] + (scale[1] - scale[0]) * rng.unit());
        let ratio = (logs.0 + (logs.1 - logs.0) * rng.unit()).exp();
        let crop_width = (target * ratio).sqrt().round_ties_even() as u32;
        let crop_height = (target / ratio).sqrt().round_ties_even() as u32;
        if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
            return CropBox {
                top: rng.below(u64::from(height - crop_height) + 1) as u32,
                left: rng.below(u64::from(width - crop_width) + 1) as u32,
                height: crop_height,
                width: crop_width,
                mirror: rng.below(2) == 1,
            };
        }
    }
    let ratio = f64::from(width) / f64::from(height);
    let (crop_width, crop_height) = if ratio < RATIO.0 {
        let rows = (f64::from(width) / RATIO.0).round_ties_even() as u32;
        (width, rows.min(height))
    } else if ratio > RATIO.1 {
        let columns = (f64::from(height) * RATIO.1).round_ties_even() as u32;
        (columns.min(width), height)
    } else {
        (width, height)
    };
    CropBox {
        top: (height - crop_height) / 2,
        left: (width - crop_width) / 2,
        height: crop_height,
        width: crop_width,
        mirror: rng.below(2) == 1,
    }
}

/// A training view, `[side, side, 3]`: the crop cut out, resized (bicubic) and mirrored. A crop that reaches beyond the
/// image is cut at its edges.
///
/// The resizing is that of Pillow 12.3; see [`train_view_as`].
pub fn train_view(image: &RgbImage, crop: &CropBox, side: u32) -> Vec<u8> {
    train_view_as(image, crop, side, Resize::default())
}

/// [`train_view`] with the resizing of a version of Pillow.
pub fn train_view_as(image: &RgbImage, crop: &CropBox, side: u32, resize: Resize) -> Vec<u8> {
    let (left, top) = (crop.left.min(image.width), crop.top.min(image.height));
    let region = Rect {
        left,
        top,
        width: crop.width.min(image.width - left),
        height: crop.height.min(image.height - top),
    };
    let window = Rect {
        left: 0,
        top: 0,
        width: side,
        height: side,
    };
    let mut view = resample(image, region, (side, side), window, resize);
    if crop.mirror && side > 0 {
        for row in view.chunks_exact_mut(side as usize * 3) {
            row.as_chunks_mut::<3>().0.reverse();
        }
    }
    view
}

/// Pixels `[side, side, 3]` to the encoder's input `[3, side, side]`: `(pixel / 255 - mean) / std` of each channel, rounded
/// to f32 after each step as torchvision's `ToTensor` and `Normalize` do. Bytes after the last whole pixel are ignored.
pub fn normalise(pixels: &[u8], mean: [f32; 3], std: [f32; 3]) -> Vec<f32> {
    let pixels = pixels.as_chunks::<3>().0;
    let mut planes = Vec::with_capacity(pixels.len() * 3);
    for channel in 0..3 {
        let table: [f32; 256] =
            std::array::from_fn(|value| (value as f32 / 255.0 - mean[channel]) / std[channel]);
        planes.extend(
            pixels
                .iter()
                .map(|pixel| table[usize::from(pixel[channel])]),
        );
    }
    planes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCALE: [f64; 2] = [0.08, 1.0];

    fn inside(crop: &CropBox, width: u32, height: u32) -> bool {
        crop.width >= 1
            && crop.height >= 1
            && crop.left + crop.width <= width
            && crop.top + crop.height <= height
    }

    proptest! {
        #[test]
        fn crops_lie_inside_whatever_the_scale(
            (width, height) in (1u32..3000, 1u32..3000),
            (low, high) in (-0.5..2.0f64, -0.5..2.0f64),
            seed: u64,
        ) {
            let draw = || random_resized_crop_box(width, height, [low, high], &mut SplitMix64::keyed(seed, "a", 0));
            prop_assert!(inside(&draw(), width, height), "{:?}", draw());
            prop_assert_eq!(draw(), draw());
        }

        #[test]
        fn views_have_their_size_whatever_the_image(
            (width, height) in prop_oneof![(1u32..80, 1u32..80), (Just(1u32), 1u32..3000), (1u32..3000, Just(1u32))],
            side in 0u32..40,
            (top, left, rows, columns) in (0u32..90, 0u32..90, 0u32..90, 0u32..90),
        ) {
            let image = RgbImage::new(width, height, vec![77; (width * height * 3) as usize]).unwrap();
            let bytes = (side * side * 3) as usize;
            prop_assert_eq!(eval_view(&image, side), vec![77; bytes]);
            let crop = CropBox { top, left, height: rows, width: columns, mirror: true };
            prop_assert_eq!(train_view(&image, &crop, side).len(), bytes);
        }
    }

    /// The fraction of the area is uniform in 0.08..1 and the log ratio is uniform, as long as the crop fits into the image.
    #[test]
    fn crops_are_distributed_as_torchvisions() {
        let (width, height) = (1000, 1000);
        let crops: Vec<CropBox> = (0..20_000)
            .map(|view| {
                random_resized_crop_box(
                    width,
                    height,
                    SCALE,
                    &mut SplitMix64::keyed(1, "image", view),
                )
            })
            .collect();
        let share = |c: &CropBox| f64::from(c.width) * f64::from(c.height) / 1e6;
        // Below 0.7 no ratio makes a side too long, so nothing is redrawn there: equal bins hold equal counts.
        let counts = (0..6).map(|bin| {
            let from = 0.08 + 0.1 * f64::from(bin);
            crops
                .iter()
                .filter(|c| (from..from + 0.1).contains(&share(c)))
                .count()
        });
        let counts: Vec<usize> = counts.collect();
        let mean = counts.iter().sum::<usize>() as f64 / 6.0;
        // Five standard errors of a count.
        assert!(
            counts
                .iter()
                .all(|&c| (c as f64 - mean).abs() < 5.0 * mean.sqrt()),
            "{counts:?}"
        );
        let small: Vec<&CropBox> = crops.iter().filter(|c| share(c) < 0.7).collect();
        let wide = small.iter().filter(|c| c.width > c.height).count() as f64 / small.len() as f64;
        let mirrored = crops.iter().filter(|c| c.mirror).count() as f64 / crops.len() as f64;
        assert!((wide - 0.5).abs() < 0.025, "{wide}");
        assert!((mirrored - 0.5).abs() < 0.018, "{mirrored}");
        let reaches = |edge: fn(&CropBox) -> bool| crops.iter().any(edge);
        assert!(reaches(|c| c.left == 0) && reaches(|c| c.left + c.width == 1000));
        assert!(reaches(|c| c.top == 0) && reaches(|c| c.top + c.height == 1000));
        let ratio = |c: &CropBox| f64::from(c.width) / f64::from(c.height);
        // The bounds allow for rounding by a pixel on the smallest side, 245.
        assert!(crops.iter().all(|c| (0.747..1.340).contains(&ratio(c))));
    }

    #[test]
    fn an_image_too_long_for_any_ratio_gives_its_centre() {
        let crop = random_resized_crop_box(3000, 30, SCALE, &mut SplitMix64::keyed(0, "long", 0));
        assert_eq!(
            (crop.left, crop.top, crop.width, crop.height),
            (1480, 0, 40, 30)
        );
        let crop = random_resized_crop_box(30, 3000, SCALE, &mut SplitMix64::keyed(0, "tall", 0));
        assert_eq!(
            (crop.left, crop.top, crop.width, crop.height),
            (0, 1480, 30, 40)
        );
    }

    #[test]
    fn normalised_channels_stand_apart() {
        let found = normalise(&[0, 51, 255, 255, 0, 51], [0.5, 0.0, 0.2], [0.5, 2.0, 0.4]);
        let expected: [f32; 6] = [-1.0, 1.0, 0.2 / 2.0, 0.0, (1.0 - 0.2) / 0.4, 0.0];
        assert_eq!(found, expected);
    }
}
