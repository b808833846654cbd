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
/// Most values of a weight in Winograd's form, which are four times those of the weight: beyond this (36 MiB would be
/// needed for 512 channels) reading it takes longer than the products that it saves.
const WINOGRAD_VALUES: usize = 36 * 256 * 256;

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
    /// From a weight `[output, input, kernel, kernel]` and a bias `[output]`. `None` for a format that this CPU lacks.
    ///
    /// # Panics
    /// The weight or the bias has another size.
    pub fn new(sizes: ConvSizes, weight: &[f32], bias: &[f32], format: Format) -> Option<Self> {
        let ConvSizes {
            input,
            output,
            kernel,
            stride,
        } = sizes;
        let area = kernel * kernel;
        assert_eq!(weight.len(), output * input * area, "weight of {sizes:?}");
        assert_eq!(bias.len(), output, "bias of {sizes:?}");
        let small = 36 * input * output <= WINOGRAD_VALUES;
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
        for (to, from) in (ordered.chunks_exact_mut(input * area)).zip(weight.chunks_exact(input * area)) {
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
            let (from, to) = (padding.saturating_sub(left), kernel.min(side + padding - left));
            let start = ((image * side + y) * side + left + from - padding) * input;
            row[..from * input].fill(0.0);
            row[from * input..to * input].copy_from_slice(&x.values[start..][..(to - from) * input]);
            row[to * input..].fill(0.0);
        }
    }
}
