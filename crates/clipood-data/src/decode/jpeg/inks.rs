//! Pictures of four components whose last one has fewer samples than the first, which the decoder cannot join: their
//! planes, joined here as libjpeg does (`jdsample.c`, `h2v2_fancy_upsample`, `h2v1_fancy_upsample`, `int_upsample`).

use libjpeg_turbo_rs::RawImage;

use super::segments::Frame;

/// The samples of all components, `[height, width, 4]`.
pub fn joined(raw: &RawImage, frame: &Frame) -> Option<Vec<u8>> {
    let (width, height) = (usize::from(frame.width), usize::from(frame.height));
    let most = |pick: fn(&(u8, u8)) -> u8| frame.sampling.iter().map(pick).max();
    let (across, down) = (usize::from(most(|f| f.0)?), usize::from(most(|f| f.1)?));
    let mut out = vec![0; width * height * 4];
    for (index, (h, v)) in frame.sampling.iter().enumerate() {
        let (h, v) = (usize::from(*h), usize::from(*v));
        if h == 0 || v == 0 || !across.is_multiple_of(h) || !down.is_multiple_of(v) {
            return None;
        }
        let plane = Plane {
            samples: raw.planes.get(index)?,
            stride: *raw.plane_widths.get(index)?,
            width: (width * h).div_ceil(across),
            height: (height * v).div_ceil(down),
        };
        if plane.stride < plane.width || plane.samples.len() < plane.stride * plane.height {
            return None;
        }
        for y in 0..height {
            for x in 0..width {
                out[(y * width + x) * 4 + index] = match (across / h, down / v) {
                    (2, 2) if plane.width > 2 => plane.between(x, y),
                    (2, 1) if plane.width > 2 => plane.beside(x, y),
                    (a, d) => plane.at(x / a, y / d) as u8,
                };
            }
        }
    }
    Some(out)
}

struct Plane<'a> {
    samples: &'a [u8],
    stride: usize,
    width: usize,
    height: usize,
}

impl Plane<'_> {
    fn at(&self, x: usize, y: usize) -> u32 {
        u32::from(self.samples[y.min(self.height - 1) * self.stride + x.min(self.width - 1)])
    }

    /// The nearest column and the next nearest one.
    fn columns(&self, x: usize) -> (usize, usize) {
        let near = x / 2;
        let far = if x.is_multiple_of(2) {
            near.saturating_sub(1)
        } else {
            (near + 1).min(self.width - 1)
        };
        (near, far)
    }

    /// Twice as many columns: 3/4 of the nearest sample and 1/4 of the next, rounded up and down by turns.
    fn beside(&self, x: usize, y: usize) -> u8 {
        let (near, far) = self.columns(x);
        let bias = 1 + (x % 2) as u32;
        ((3 * self.at(near, y) + self.at(far, y) + bias) >> 2) as u8
    }

    /// Twice as many columns and rows.
    fn between(&self, x: usize, y: usize) -> u8 {
        let (near, far) = self.columns(x);
        let row = y / 2;
        let other = if y.is_multiple_of(2) {
            row.saturating_sub(1)
        } else {
            row + 1
        };
        let sum = |column| 3 * self.at(column, row) + self.at(column, other);
        let bias = 8 - (x % 2) as u32;
        ((3 * sum(near) + sum(far) + bias) >> 4) as u8
    }
}
