//! Convolutions of images with channels last, their batch norm folded into weight and bias.
//!
//! A 1x1 convolution is a product of the pixels with the weight. A 3x3 convolution takes a quarter of the products by
//! Winograd's method where its channels fill vectors ([`winograd`]), otherwise the window of every pixel is copied into a
//! row of a block that stays in the cache.

mod winograd;

use std::cell::RefCell;

use self::winograd::Winograd;
use crate::block::sized;
use crate::matrix::{Map, Matrix};
use crate::packed::{Format, Packed};
use crate::share::{Share, Then};

/// Most windows in a block.
const WINDOWS: usize = 96;
/// Most values of a weight in Winograd's form, which are four times those of the weight, for any image (9 MiB): beyond this
/// reading it takes longer than the products that it saves, unless there are many tiles.
const WINOGRAD_VALUES: usize = 36 * 256 * 256;
/// The same for images of at least [`WINOGRAD_SIDE`] pixels (36 MiB).
const MOST_WINOGRAD_VALUES: usize = 36 * 512 * 512;
/// Side of images with 16 tiles.
const WINOGRAD_SIDE: usize = 13;

thread_local! {
    static WINDOW_ROWS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Sizes of a square, odd kernel with as much padding as keeps the size of the image at stride 1.
#[derive(Debug, Clone, Copy)]
pub struct ConvSizes {
    /// Channels of the input.
    pub input: usize,
    /// Channels of the output.
    pub output: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
}

/// Images `[batch, side, side, channels]` of one size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Images<'a> {
    pub values: &'a [f32],
    pub side: usize,
}

/// A convolution with bias.
#[derive(Debug, Clone)]
pub(crate) struct Conv {
    sizes: ConvSizes,
    map: Method,
}

#[derive(Debug, Clone)]
enum Method {
    /// Products with windows `[kernel, kernel, input]`.
    Windows(Packed),
    Winograd(Winograd),
}

impl Conv {
    /// From a weight `[output, input, kernel, kernel]` and a bias `[output]`, in the form that suits images of `side` pixels.
    /// `None` for a format that this CPU lacks.
    ///
    /// # Panics
    /// The weight or the bias has another size.
    pub fn new(
        sizes: ConvSizes,
        side: usize,
        weight: &[f32],
        bias: &[f32],
        format: Format,
    ) -> Option<Self> {
        let ConvSizes {
            input,
            output,
            kernel,
            stride,
        } = sizes;
        let area = kernel * kernel;
        assert_eq!(weight.len(), output * input * area, "weight of {sizes:?}");
        assert_eq!(bias.len(), output, "bias of {sizes:?}");
        let most = match side >= WINOGRAD_SIDE {
            true => MOST_WINOGRAD_VALUES,
            false => WINOGRAD_VALUES,
        };
        let small = 36 * input * output <= most;
        if let (3, 1, true) = (kernel, stride, small) {
            let found = Winograd::new(input, output, weight, bias);
            if let Some(winograd) = found {
                return Some(Self {
                    sizes,
                    map: Method::Winograd(winograd),
                });
            }
        }
        // [output, input, area] -> [output, area, input], the order of a window.
        let mut ordered = vec![0.0; weight.len()];
        for (to, from) in
            (ordered.chunks_exact_mut(input * area)).zip(weight.chunks_exact(input * area))
        {
            for (i, values) in from.chunks_exact(area).enumerate() {
                for (k, value) in values.iter().enumerate() {
                    to[k * input + i] = *value;
                }
            }
        }
        let matrix = Matrix::new(&ordered, output, area * input, area * input).transposed();
        Some(Self {
            sizes,
            map: Method::Windows(Packed::new(matrix, bias, format)?),
        })
    }

    /// Channels of the input.
    pub fn input(&self) -> usize {
        self.sizes.input
    }

    /// Channels of the output.
    pub fn output(&self) -> usize {
        self.sizes.output
    }

    /// Height and width of the output for an image of `side`.
    pub fn side(&self, side: usize) -> usize {
        side.div_ceil(self.sizes.stride)
    }

    /// The convolution of images `[batch, side, side, input]` followed by a ReLU.
    pub fn relu(&self, x: Images<'_>, out: &mut [f32], share: Share) {
        match &self.map {
            Method::Windows(map) if self.sizes.kernel == 1 && self.sizes.stride == 1 => {
                share.apply(map, x.values, 0..self.sizes.output, out, Then::Relu);
            }
            Method::Windows(map) => self.by_windows(map, x, out, share),
            Method::Winograd(winograd) => winograd.relu(x, out, share),
        }
    }

    /// A 1x1 convolution of pixels `x` `[n, input]`, and what follows it.
    ///
    /// # Panics
    /// The kernel is larger than a pixel.
    pub fn pixels(&self, x: &[f32], out: &mut [f32], share: Share, then: Then) {
        match &self.map {
            Method::Windows(map) if self.sizes.kernel == 1 => {
                share.apply(map, x, 0..self.sizes.output, out, then);
            }
            _ => panic!("a kernel of {} pixels is not 1x1", self.sizes.kernel),
        }
    }

    fn by_windows(&self, map: &Packed, x: Images<'_>, out: &mut [f32], share: Share) {
        let ConvSizes { input, output, .. } = self.sizes;
        let window = self.sizes.kernel * self.sizes.kernel * input;
        let rows = share.rows(out.len() / output, WINDOWS);
        share.chunks(out, rows * output, |i, out| {
            let mut kept = WINDOW_ROWS.take();
            let windows = sized(&mut kept, out.len() / output * window);
            for (row, to) in windows.chunks_exact_mut(window).enumerate() {
                self.copy_window(x, i * rows + row, to);
            }
            map.apply_relu(windows, 0, output, out, false);
            WINDOW_ROWS.set(kept);
        });
    }

    /// The window of an output pixel, counted over all images; what lies outside the image is 0.
    fn copy_window(&self, x: Images<'_>, pixel: usize, window: &mut [f32]) {
        let ConvSizes {
            input,
            kernel,
            stride,
            ..
        } = self.sizes;
        let (side, wide) = (x.side, self.side(x.side));
        let (image, place) = (pixel / (wide * wide), pixel % (wide * wide));
        let (top, left) = (place / wide * stride, place % wide * stride);
        let padding = kernel / 2;
        for (ky, row) in window.chunks_exact_mut(kernel * input).enumerate() {
            let Some(y) = (top + ky).checked_sub(padding).filter(|y| *y < side) else {
                row.fill(0.0);
                continue;
            };
            // The columns of the kernel that lie inside the image follow each other in both.
            let (from, to) = (
                padding.saturating_sub(left),
                kernel.min(side + padding - left),
            );
            let start = ((image * side + y) * side + left + from - padding) * input;
            row[..from * input].fill(0.0);
            row[from * input..to * input]
                .copy_from_slice(&x.values[start..][..(to - from) * input]);
            row[to * input..].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Instructions;
    use proptest::prelude::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        let mix = |i: usize| ((i + seed) * 2_654_435_761) >> 5;
        (0..n)
            .map(|i| (mix(i) % 2001) as f32 / 1000.0 - 1.0)
            .collect()
    }

    /// The definition in double precision, ReLU included.
    fn naive(sizes: ConvSizes, x: Images<'_>, weight: &[f32], bias: &[f32]) -> Vec<f64> {
        let ConvSizes {
            input,
            output,
            kernel,
            stride,
        } = sizes;
        let (side, to) = (x.side, x.side.div_ceil(stride));
        let images = x.values.len() / (side * side * input);
        let mut out = Vec::new();
        for place in 0..images * to * to {
            let (image, y, x_) = (place / (to * to), place / to % to, place % to);
            for o in 0..output {
                let mut sum = f64::from(bias[o]);
                for k in 0..kernel * kernel {
                    let from_y = (y * stride + k / kernel).checked_sub(kernel / 2);
                    let from_x = (x_ * stride + k % kernel).checked_sub(kernel / 2);
                    let (Some(from_y), Some(from_x)) = (from_y, from_x) else {
                        continue;
                    };
                    if from_y >= side || from_x >= side {
                        continue;
                    }
                    for i in 0..input {
                        let value = x.values[((image * side + from_y) * side + from_x) * input + i];
                        let weight = weight[(o * input + i) * kernel * kernel + k];
                        sum += f64::from(value) * f64::from(weight);
                    }
                }
                out.push(sum.max(0.0));
            }
        }
        out
    }

    fn close(found: &[f32], expected: &[f64], what: &str) {
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(1f64, |a, b| a.max(b.abs()));
        for (found, expected) in found.iter().zip(expected) {
            let off = (f64::from(*found) - expected).abs();
            assert!(
                off < 1e-5 * largest,
                "{what}: off by {off}, largest {largest}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn convolutions_follow_their_definition(
            images in 1usize..4, side in 1usize..12, input in 1usize..10, output in 1usize..10,
            large: bool, twice: bool, all: bool,
        ) {
            let sizes = ConvSizes {
                input,
                output,
                kernel: if large { 3 } else { 1 },
                stride: if twice { 2 } else { 1 },
            };
            let area = sizes.kernel * sizes.kernel;
            let (weight, bias) = (values(input * output * area, 1), values(output, 2));
            let pixels = values(images * side * side * input, 3);
            let x = Images { values: &pixels, side };
            let conv = Conv::new(sizes, side, &weight, &bias, Format::F32).unwrap();
            let to = conv.side(side);
            let mut out = vec![f32::NAN; images * to * to * output];
            conv.relu(x, &mut out, if all { Share::All } else { Share::One });
            close(&out, &naive(sizes, x, &weight, &bias), "windows");
        }
    }

    #[test]
    fn winograd_follows_the_definition_in_every_instruction_set() {
        for (images, side, input, output) in [
            (1, 1, 8, 8),
            (2, 7, 16, 32),
            (3, 14, 32, 16),
            (1, 13, 8, 24),
            (12, 8, 16, 16),
        ] {
            let sizes = ConvSizes {
                input,
                output,
                kernel: 3,
                stride: 1,
            };
            let (weight, bias) = (values(9 * input * output, 1), values(output, 2));
            let pixels = values(images * side * side * input, 3);
            let x = Images {
                values: &pixels,
                side,
            };
            let expected = naive(sizes, x, &weight, &bias);
            for instructions in Instructions::of_every_shape() {
                let conv = Winograd::with(input, output, &weight, &bias, instructions).unwrap();
                for share in [Share::One, Share::All] {
                    let mut out = vec![f32::NAN; expected.len()];
                    conv.relu(x, &mut out, share);
                    close(
                        &out,
                        &expected,
                        &format!("{instructions:?} of {side} pixels"),
                    );
                }
            }
        }
        assert!(Winograd::new(6, 8, &[0.0; 9 * 48], &[0.0; 8]).is_none());
    }

    #[test]
    fn many_channels_take_winograds_method_where_there_are_many_tiles() {
        let sizes = ConvSizes {
            input: 264,
            output: 256,
            kernel: 3,
            stride: 1,
        };
        let (weight, bias) = (values(9 * 264 * 256, 1), values(256, 2));
        for (side, by_winograd) in [(12, false), (13, true)] {
            let conv = Conv::new(sizes, side, &weight, &bias, Format::F32).unwrap();
            assert_eq!(matches!(conv.map, Method::Winograd(_)), by_winograd);
        }
    }

    #[test]
    #[should_panic(expected = "is not 1x1")]
    fn a_kernel_of_nine_pixels_is_no_product_of_pixels() {
        let sizes = ConvSizes {
            input: 1,
            output: 1,
            kernel: 3,
            stride: 2,
        };
        let conv = Conv::new(sizes, 1, &[0.0; 9], &[0.0], Format::F32).unwrap();
        conv.pixels(&[0.0], &mut [0.0], Share::One, Then::Nothing);
    }
}
