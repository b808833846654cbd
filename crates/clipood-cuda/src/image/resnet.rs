//! OpenAI's ModifiedResNet (`clip/model.py` of openai/CLIP): weights, memory and the order of kernels and products.
//!
//! Activations are `[images, side, side, channels]`. A 1 x 1 convolution is a product. A 3 x 3 one is a copy into columns and a
//! product, for as many images at a time as leave the columns in the GPU's cache. Batch norms are folded into the weights;
//! bias, shortcut and ReLU go through the products.

mod pass;

use super::convolution::{self, ConvSizes, Map, padded, stem_side};
use super::tensors::{Layer, Packed};
use super::{Batch, ImageSizes, Memory, Places, Tensors};
use crate::attention::{self, Heads};
use crate::compile::Program;
use crate::error::{CudaError, Result};
use crate::executor::Executor;
use crate::memory;

/// Bytes of columns that are made at a time: they stay in the cache of a data centre's GPU until the product has read them.
pub const COLUMN_BYTES: usize = 32 << 20;

/// Sizes of a ModifiedResNet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResnetSizes {
    /// Images, features and format.
    pub image: ImageSizes,
    /// Channels of the first stage's bottleneck.
    pub width: usize,
    /// Bottlenecks of the four stages.
    pub layers: [usize; 4],
    /// Bytes of columns that are made at a time, unless one image has more; [`COLUMN_BYTES`] but for tests.
    pub column_bytes: usize,
}

impl ResnetSizes {
    /// Channels of the last stage.
    fn channels(&self) -> usize {
        32 * self.width
    }

    /// Side of the last stage's map.
    fn last_side(&self) -> usize {
        // Halved by the stem's first convolution, by its pooling, and by three stages.
        stem_side(self.image.side) / 16
    }

    /// Places of the last stage's map.
    pub fn positions(&self) -> usize {
        self.last_side().pow(2)
    }

    fn heads(&self) -> Heads {
        Heads {
            count: self.image.heads,
            size: self.channels() / self.image.heads,
            precision: self.image.precision,
        }
    }

    /// Whether the kernels cover these sizes.
    ///
    /// # Errors
    /// What they do not cover.
    pub fn check(&self) -> Result<()> {
        let problem = if self.layers.contains(&0) {
            Some("a ModifiedResNet with an empty stage".to_string())
        } else if self.width == 0 || !self.width.is_multiple_of(4) {
            Some(format!(
                "a ModifiedResNet of width {}: no multiple of 4",
                self.width
            ))
        } else if self.positions() == 0 {
            Some(format!("a ModifiedResNet of {} pixels", self.image.side))
        } else if !self.image.dim.is_multiple_of(8) {
            Some(format!(
                "features of {} values: no multiple of 8",
                self.image.dim
            ))
        } else {
            self.heads().problem()
        };
        problem.map_or(Ok(()), |problem| Err(CudaError::Unsupported(problem)))
    }

    /// The kernels.
    pub fn program(&self) -> Program {
        let mut defines = vec![("ELEMENT", self.image.precision.element())];
        defines.extend(self.heads().defines());
        let mut kernels = vec![("attention", self.heads().shared())];
        kernels.extend(convolution::KERNELS);
        Program {
            name: "resnet",
            families: vec![convolution::SOURCE, attention::SOURCE],
            defines,
            kernels,
        }
    }
}

/// A convolution with its norm.
#[derive(Debug, Clone, Copy)]
struct Conv {
    layer: Layer,
    sizes: ConvSizes,
}

/// 1 x 1, 3 x 3, 1 x 1 with four times the channels; strides are average pooling.
#[derive(Debug, Clone, Copy)]
struct Bottleneck {
    conv1: Conv,
    conv2: Conv,
    conv3: Conv,
    downsample: Option<Conv>,
    halves: bool,
}

/// A ModifiedResNet.
#[derive(Debug, Clone)]
pub struct Resnet {
    /// Its sizes.
    pub sizes: ResnetSizes,
    stem: [Conv; 3],
    blocks: Vec<Bottleneck>,
    positions: u64,
    query: Layer,
    /// Keys, then values, in one weight `[2 channels, channels]`.
    key_value: Layer,
    /// The projection to features; its bias is float32.
    project: Layer,
}

/// Indices of [`Places::working`].
mod place {
    /// Two maps of a stage, of input and output.
    pub const MAPS: [usize; 2] = [0, 1];
    /// Two narrower maps inside of a bottleneck.
    pub const INNER: [usize; 2] = [2, 3];
    /// The input of a bottleneck, pooled.
    pub const POOLED: usize = 4;
    /// Columns of a 3 x 3 convolution.
    pub const COLUMNS: usize = 5;
    /// Attention pooling: tokens, then keys and values.
    pub const TOKENS: usize = 6;
    pub const KEYS: usize = 7;
}

impl Resnet {
    /// The tower and its weights as the device wants them.
    ///
    /// # Errors
    /// Sizes without kernels, a tensor that is missing or of another size.
    pub fn new(sizes: ResnetSizes, tensors: &Tensors<'_>) -> Result<(Self, Vec<u8>)> {
        sizes.check()?;
        let mut packed = Packed::new(sizes.image.precision);
        let mut conv = |names: [&str; 2], [input, output, kernel]: [usize; 3]| {
            let conv = ConvSizes {
                input,
                output,
                kernel,
            };
            let layer = convolution::fold(&mut packed, tensors, names, conv)?;
            Ok::<_, CudaError>(Conv { layer, sizes: conv })
        };
        let (width, half) = (sizes.width, sizes.width / 2);
        let stem = [
            conv(["visual.conv1", "visual.bn1"], [3, half, 3])?,
            conv(["visual.conv2", "visual.bn2"], [half, half, 3])?,
            conv(["visual.conv3", "visual.bn3"], [half, width, 3])?,
        ];
        let mut blocks = Vec::new();
        let mut input = width;
        for (stage, depth) in sizes.layers.into_iter().enumerate() {
            let planes = width << stage;
            for i in 0..depth {
                let name = format!("visual.layer{}.{i}", stage + 1);
                let mut part = |conv_name: &str, norm: &str, sizes| {
                    conv(
                        [&format!("{name}.{conv_name}"), &format!("{name}.{norm}")],
                        sizes,
                    )
                };
                blocks.push(Bottleneck {
                    conv1: part("conv1", "bn1", [input, planes, 1])?,
                    conv2: part("conv2", "bn2", [planes, planes, 3])?,
                    conv3: part("conv3", "bn3", [planes, 4 * planes, 1])?,
                    downsample: match i {
                        0 => Some(part(
                            "downsample.0",
                            "downsample.1",
                            [input, 4 * planes, 1],
                        )?),
                        _ => None,
                    },
                    halves: i == 0 && stage > 0,
                });
                input = 4 * planes;
            }
        }
        let channels = sizes.channels();
        let pool =
            |name: &str, values: usize| tensors.get(&format!("visual.attnpool.{name}"), values);
        let both = |name: &str, values: usize| -> Result<Vec<f32>> {
            let [keys, values] = [
                pool(&format!("k_proj.{name}"), values)?,
                pool(&format!("v_proj.{name}"), values)?,
            ];
            Ok([keys, values].concat())
        };
        let positions = pool("positional_embedding", (sizes.positions() + 1) * channels)?;
        let tower = Self {
            sizes,
            stem,
            blocks,
            positions: packed.add(positions),
            query: Layer::pack(
                &mut packed,
                tensors,
                "visual.attnpool.q_proj.",
                [channels * channels, channels],
            )?,
            key_value: Layer {
                weight: packed.add(&both("weight", channels * channels)?),
                bias: packed.add(&both("bias", channels)?),
            },
            project: Layer {
                weight: packed.add(pool("c_proj.weight", channels * sizes.image.dim)?),
                bias: packed.add_wide(pool("c_proj.bias", sizes.image.dim)?),
            },
        };
        Ok((tower, packed.into_bytes()))
    }

    /// The map after the stem's pooling, and the convolution, stride and input map of every bottleneck.
    fn maps(&self, images: usize) -> Vec<Map> {
        let mut map = Map {
            images,
            side: stem_side(self.sizes.image.side) / 2,
            channels: padded(self.sizes.width),
        };
        let inputs = self.blocks.iter().map(|block| {
            let input = map;
            let output = if block.halves { map.halved() } else { map };
            map = Map {
                channels: padded(block.conv3.sizes.output),
                ..output
            };
            input
        });
        inputs.collect()
    }

    /// The map of the stem's convolutions; `channels` as in memory.
    fn stem_map(&self, images: usize, channels: usize) -> Map {
        Map {
            images,
            side: stem_side(self.sizes.image.side),
            channels,
        }
    }

    /// Images whose columns are made at a time.
    fn images_at_once(&self, images: usize, values_of_image: usize) -> usize {
        let bytes = values_of_image * self.sizes.image.precision.bytes();
        (self.sizes.column_bytes / bytes.max(1)).clamp(1, images)
    }

    pub(super) fn places(&self, batch: Batch) -> Places {
        let (sizes, images) = (&self.sizes, batch.images);
        let bytes = sizes.image.precision.bytes();
        let [conv1, _, conv3] = &self.stem;
        let stem = |conv: &Conv| self.stem_map(images, padded(conv.sizes.output));
        let (mut map, mut inner, mut pooled) = (stem(conv3).values(), stem(conv1).values(), 0);
        let columns = |map: Map, depth: usize| {
            let image = Map { images: 1, ..map }.rows() * depth;
            image * self.images_at_once(images, image)
        };
        let mut most_columns = 0;
        for conv in &self.stem {
            most_columns = most_columns.max(columns(stem(conv), conv.sizes.depth()));
        }
        for (block, input) in self.blocks.iter().zip(self.maps(images)) {
            let middle = Map {
                channels: padded(block.conv1.sizes.output),
                ..input
            };
            map = map
                .max(input.values())
                .max(input.rows() * padded(block.conv3.sizes.output));
            inner = inner.max(middle.values());
            if block.halves {
                pooled = pooled.max(input.halved().values());
                map = map.max(input.halved().rows() * padded(block.conv3.sizes.output));
            }
            most_columns = most_columns.max(columns(middle, block.conv2.sizes.depth()));
        }
        let tokens = images * (sizes.positions() + 1) * sizes.channels();
        let mut parts = memory::Places::default();
        let pixels = parts.place(images * sizes.image.pixel_bytes());
        let working = [
            map,
            map,
            inner,
            inner,
            pooled,
            most_columns,
            tokens,
            2 * tokens,
        ];
        let working = working.map(|values| parts.place(values * bytes));
        let global = parts.place(4 * images * sizes.image.dim);
        let positions = if batch.local {
            images * sizes.positions()
        } else {
            0
        };
        let local = parts.place(4 * positions * sizes.image.dim);
        Places {
            pixels,
            global,
            local,
            working,
            size: parts.size(),
        }
    }

    pub(super) fn enqueue(
        &self,
        executor: &mut impl Executor,
        batch: Batch,
        memory: Memory,
    ) -> Result<()> {
        pass::run(self, executor, batch, memory)
    }
}
