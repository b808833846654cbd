//! Launches of `kernels/convolution.cu`, and the weights of a convolution with its batch norm folded in.

use super::tensors::{Layer, Packed, Tensors};
use super::{ImageSizes, check_count};
use crate::error::Result;
use crate::executor::{Argument, BLOCK, Executor, Launch, threads};
use crate::precision::Precision;

/// Text of the kernel file, which has no macros of its own.
pub(super) const SOURCE: &str = include_str!("../kernels/convolution.cu");

/// Names of its kernels, none of which uses dynamic shared memory.
pub(super) const KERNELS: [(&str, u32); 4] = [
    ("stem_columns", 0),
    ("columns_3x3", 0),
    ("average_pool", 0),
    ("pool_tokens", 0),
];

/// Epsilon of the batch norms.
const EPSILON: f32 = 1e-5;

/// Channels in memory: whole 16-byte vectors of 16-bit values. What is added are zeros, and stays zero.
pub(super) fn padded(channels: usize) -> usize {
    channels.next_multiple_of(8)
}

/// Sizes of a convolution with a square kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConvSizes {
    pub input: usize,
    pub output: usize,
    pub kernel: usize,
}

impl ConvSizes {
    /// Values of a row of the weight in memory.
    pub fn depth(self) -> usize {
        // The stem's three channels lie without gaps, and the row is padded once.
        match self.input {
            3 => padded(3 * self.kernel * self.kernel),
            input => padded(input) * self.kernel * self.kernel,
        }
    }
}

/// The convolution `conv` with the batch norm `norm` after it as one layer: a weight `[padded output, depth]` in the order
/// (output, ky, kx, input) of the columns, and a bias.
pub(super) fn fold(
    packed: &mut Packed,
    tensors: &Tensors<'_>,
    [conv, norm]: [&str; 2],
    sizes: ConvSizes,
) -> Result<Layer> {
    let ConvSizes {
        input,
        output,
        kernel,
    } = sizes;
    let area = kernel * kernel;
    let weight = tensors.get(&format!("{conv}.weight"), output * input * area)?;
    let of_norm = |name: &str| tensors.get(&format!("{norm}.{name}"), output);
    let (gamma, beta) = (of_norm("weight")?, of_norm("bias")?);
    let (mean, variance) = (of_norm("running_mean")?, of_norm("running_var")?);
    let depth = sizes.depth();
    let channels = if input == 3 { 3 } else { padded(input) };
    let mut folded = vec![0.0; padded(output) * depth];
    let mut bias = vec![0.0; padded(output)];
    for (o, row) in folded.chunks_exact_mut(depth).take(output).enumerate() {
        let scale = gamma[o] / (variance[o] + EPSILON).sqrt();
        bias[o] = beta[o] - mean[o] * scale;
        for (i, plane) in weight[o * input * area..][..input * area]
            .chunks_exact(area)
            .enumerate()
        {
            for (place, value) in plane.iter().enumerate() {
                row[place * channels + i] = value * scale;
            }
        }
    }
    Ok(Layer {
        weight: packed.add(&folded),
        bias: packed.add(&bias),
    })
}

/// A square map of activations `[images, side, side, channels]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Map {
    pub images: usize,
    pub side: usize,
    /// As in memory.
    pub channels: usize,
}

impl Map {
    /// Rows of the map as a matrix.
    pub fn rows(self) -> usize {
        self.images * self.side * self.side
    }

    /// Values.
    pub fn values(self) -> usize {
        self.rows() * self.channels
    }

    /// The map after 2 x 2 pooling.
    pub fn halved(self) -> Self {
        Self {
            side: self.side / 2,
            ..self
        }
    }

    fn arguments(self) -> [Argument; 3] {
        [self.images, self.side, self.channels].map(|n| Argument::I32(n as i32))
    }
}

/// Side of the map after the stem's first convolution.
pub(super) fn stem_side(side: usize) -> usize {
    side.div_ceil(2)
}

/// Columns of the stem's first convolution from pixels.
pub(super) fn stem_columns(
    executor: &mut impl Executor,
    sizes: &ImageSizes,
    images: usize,
    [pixels, out]: [u64; 2],
) -> Result<()> {
    let columns = ConvSizes {
        input: 3,
        output: 0,
        kernel: 3,
    }
    .depth();
    let values = images * stem_side(sizes.side).pow(2) * columns;
    check_count("values of columns", values)?;
    let mut arguments = vec![Argument::Address(pixels), Argument::Address(out)];
    arguments.extend([images, sizes.side, columns].map(|n| Argument::I32(n as i32)));
    arguments.extend(sizes.normalisation());
    one_thread_a_vector(
        executor,
        "stem_columns",
        values / sizes.precision.vector(),
        &arguments,
    )
}

/// Columns of a 3 x 3 convolution of `map`.
pub(super) fn columns_3x3(
    executor: &mut impl Executor,
    precision: Precision,
    map: Map,
    [x, out]: [u64; 2],
) -> Result<()> {
    let values = 9 * map.values();
    check_count("values of columns", values)?;
    let mut arguments = vec![Argument::Address(x), Argument::Address(out)];
    arguments.extend(map.arguments());
    one_thread_a_vector(
        executor,
        "columns_3x3",
        values / precision.vector(),
        &arguments,
    )
}

/// Means of 2 x 2 places of `map`.
pub(super) fn average_pool(
    executor: &mut impl Executor,
    precision: Precision,
    map: Map,
    [x, out]: [u64; 2],
) -> Result<()> {
    let mut arguments = vec![Argument::Address(x), Argument::Address(out)];
    arguments.extend(map.arguments());
    one_thread_a_vector(
        executor,
        "average_pool",
        map.halved().values() / precision.vector(),
        &arguments,
    )
}

/// Tokens of the attention pooling of `map`: the mean, then the places, each plus its position.
pub(super) fn pool_tokens(
    executor: &mut impl Executor,
    precision: Precision,
    map: Map,
    [x, positions, out]: [u64; 3],
) -> Result<()> {
    let mut arguments = [x, positions, out].map(Argument::Address).to_vec();
    arguments
        .extend([map.images, map.side * map.side, map.channels].map(|n| Argument::I32(n as i32)));
    one_thread_a_vector(
        executor,
        "pool_tokens",
        map.images * map.channels / precision.vector(),
        &arguments,
    )
}

fn one_thread_a_vector(
    executor: &mut impl Executor,
    kernel: &'static str,
    vectors: usize,
    arguments: &[Argument],
) -> Result<()> {
    executor.launch(&Launch {
        kernel,
        grid: threads(vectors),
        block: BLOCK,
        shared: 0,
        arguments,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folded convolution on columns is the convolution followed by the norm.
    #[test]
    fn weights_are_folded_in_the_order_of_the_columns() {
        let (input, output) = (5, 3);
        let sizes = ConvSizes {
            input,
            output,
            kernel: 3,
        };
        assert_eq!(sizes.depth(), 9 * 8);
        let weight: Vec<f32> = (0..output * input * 9).map(|i| i as f32).collect();
        let (gamma, beta) = ([2.0, 1.0, 0.5], [0.0, 1.0, -1.0]);
        let (mean, variance) = (
            [1.0, 0.0, 4.0],
            [1.0 - EPSILON, 4.0 - EPSILON, 0.25 - EPSILON],
        );
        let tensors: Tensors<'_> = [
            ("c.weight", &weight[..]),
            ("n.weight", &gamma[..]),
            ("n.bias", &beta[..]),
            ("n.running_mean", &mean[..]),
            ("n.running_var", &variance[..]),
        ]
        .into_iter()
        .collect();
        let mut packed = Packed::new(Precision::F32);
        let layer = fold(&mut packed, &tensors, ["c", "n"], sizes).unwrap();
        let values = Precision::F32.values(&packed.into_bytes());
        let folded = &values[layer.weight as usize / 4..];
        let scales = [2.0, 0.5, 1.0];
        for (o, scale) in scales.into_iter().enumerate() {
            for place in 0..9 {
                for i in 0..8 {
                    let expected = if i < input {
                        weight[(o * input + i) * 9 + place] * scale
                    } else {
                        0.0
                    };
                    let found = folded[o * 72 + place * 8 + i];
                    assert!(
                        (found - expected).abs() <= 1e-4 * expected.abs(),
                        "{o} {place} {i}: {found} for {expected}"
                    );
                }
            }
        }
        let bias = &values[layer.bias as usize / 4..][..8];
        for (found, expected) in bias.iter().zip([-2.0, 1.0, -5.0, 0.0, 0.0, 0.0, 0.0, 0.0]) {
            assert!((found - expected).abs() < 1e-4, "{found} for {expected}");
        }
    }

    #[test]
    fn the_stem_has_rows_of_27_values_and_padding() {
        assert_eq!(
            ConvSizes {
                input: 3,
                output: 12,
                kernel: 3
            }
            .depth(),
            32
        );
        assert_eq!((padded(12), padded(64)), (16, 64));
        assert_eq!((stem_side(224), stem_side(225)), (112, 113));
    }
}
