//! OpenAI's ModifiedResNet (`clip/model.py` of openai/CLIP): weights, memory and the order of kernels and products.
//!
//! Activations are `[images, side, side, channels]`. A 1 x 1 convolution is a product. A 3 x 3 one is a copy into columns and a
//! product, for as many images at a time as leave the columns in the GPU's cache. Batch norms are folded into the weights;
//! bias, shortcut and ReLU go through the products.

use super::convolution::{
    self, ConvSizes, Map, average_pool, columns_3x3, padded, pool_tokens, stem_columns, stem_side,
};
use super::tensors::{Layer, Packed};
use super::{Batch, ImageSizes, Memory, Places, Tensors};
use crate::attention::{self, Attention, Heads, Rows};
use crate::compile::Program;
use crate::error::{CudaError, Result};
use crate::executor::Executor;
use crate::memory;
use crate::product::{Epilogue, Operands, Shape};

/// Bytes of columns that are made at a time, unless one image has more.
const COLUMN_BYTES: usize = 32 << 20;

/// Sizes of a ModifiedResNet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResnetSizes {
    /// Images, features and format.
    pub image: ImageSizes,
    /// Channels of the first stage's bottleneck.
    pub width: usize,
    /// Bottlenecks of the four stages.
    pub layers: [usize; 4],
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
        (COLUMN_BYTES / bytes.max(1)).clamp(1, images)
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
        let places = self.places(batch);
        let mut pass = Pass {
            tower: self,
            executor,
            batch,
            weights: memory.weights,
            pixels: memory.arena + places.pixels,
            global: memory.arena + places.global,
            local: memory.arena + places.local,
            at: places.working.map(|offset| memory.arena + offset),
        };
        pass.stem()?;
        let [mut input, mut output] = place::MAPS.map(|index| pass.at[index]);
        for (block, map) in self.blocks.iter().zip(self.maps(batch.images)) {
            pass.bottleneck(block, map, [input, output])?;
            if block.downsample.is_some() {
                // Without one the result lies where the input was.
                std::mem::swap(&mut input, &mut output);
            }
        }
        pass.pool(input)
    }
}

/// A pass on its way.
struct Pass<'a, E> {
    tower: &'a Resnet,
    executor: &'a mut E,
    batch: Batch,
    weights: u64,
    /// Absolute addresses.
    pixels: u64,
    global: u64,
    local: u64,
    at: [u64; 8],
}

impl<E: Executor> Pass<'_, E> {
    fn beyond(&self, address: u64, count: usize) -> u64 {
        address + (count * self.tower.sizes.image.precision.bytes()) as u64
    }

    fn linear(
        &mut self,
        shape: Shape,
        layer: Layer,
        [input, residual, output]: [u64; 3],
    ) -> Result<()> {
        let (weight, bias) = (self.weights + layer.weight, self.weights + layer.bias);
        let operands = Operands {
            input,
            weight,
            bias,
            residual,
            output,
            scale: 1.0,
        };
        self.executor.product(&shape, &operands)
    }

    /// The product of a convolution over `rows` rows of columns.
    fn shape(&self, conv: &Conv, rows: usize, epilogue: Epilogue) -> Shape {
        let sizes = [rows, padded(conv.sizes.output), conv.sizes.depth()];
        Shape {
            epilogue,
            ..Shape::linear(self.tower.sizes.image.precision, sizes)
        }
    }

    /// A 3 x 3 convolution with ReLU from `map` at `input`, or from the pixels if it is the stem's first one.
    fn conv_3x3(&mut self, conv: &Conv, map: Map, [input, output]: [u64; 2]) -> Result<()> {
        let image = self.tower.sizes.image;
        let from_pixels = conv.sizes.input == 3;
        let columns = self.at[place::COLUMNS];
        let rows_of_image = map.side * map.side;
        let at_once = self
            .tower
            .images_at_once(map.images, rows_of_image * conv.sizes.depth());
        for first in (0..map.images).step_by(at_once) {
            let images = at_once.min(map.images - first);
            if from_pixels {
                let pixels = self.pixels + (first * image.pixel_bytes()) as u64;
                stem_columns(self.executor, &image, images, [pixels, columns])?;
            } else {
                let from = self.beyond(input, first * rows_of_image * map.channels);
                columns_3x3(
                    self.executor,
                    image.precision,
                    Map { images, ..map },
                    [from, columns],
                )?;
            }
            let shape = self.shape(conv, images * rows_of_image, Epilogue::BiasRelu);
            let to = self.beyond(output, first * rows_of_image * padded(conv.sizes.output));
            self.linear(shape, conv.layer, [columns, 0, to])?;
        }
        Ok(())
    }

    /// Pixels to the first map, which is left in the first of [`place::MAPS`].
    fn stem(&mut self) -> Result<()> {
        let tower = self.tower;
        let [conv1, conv2, conv3] = &tower.stem;
        let map = |conv: &Conv| tower.stem_map(self.batch.images, padded(conv.sizes.input));
        let [first, second] = [map(conv2), map(conv3)];
        let [to, wide] = place::MAPS.map(|index| self.at[index]);
        let [a, b] = place::INNER.map(|index| self.at[index]);
        // The stem's first convolution reads pixels; of its map only images and side count.
        self.conv_3x3(conv1, first, [0, a])?;
        self.conv_3x3(conv2, first, [a, b])?;
        self.conv_3x3(conv3, second, [b, wide])?;
        let precision = tower.sizes.image.precision;
        let widest = Map {
            channels: padded(conv3.sizes.output),
            ..second
        };
        average_pool(self.executor, precision, widest, [wide, to])
    }

    /// The result lies at `output` if the block has a downsampling shortcut, or else at `input`.
    fn bottleneck(
        &mut self,
        block: &Bottleneck,
        map: Map,
        [input, output]: [u64; 2],
    ) -> Result<()> {
        let precision = self.tower.sizes.image.precision;
        let [a, b] = place::INNER.map(|index| self.at[index]);
        let middle = Map {
            channels: padded(block.conv1.sizes.output),
            ..map
        };
        self.linear(
            self.shape(&block.conv1, map.rows(), Epilogue::BiasRelu),
            block.conv1.layer,
            [input, 0, a],
        )?;
        self.conv_3x3(&block.conv2, middle, [a, b])?;
        let (mut inner, mut rows, mut shortcut) = (b, map.rows(), input);
        if block.halves {
            average_pool(self.executor, precision, middle, [b, a])?;
            let pooled = self.at[place::POOLED];
            average_pool(self.executor, precision, map, [input, pooled])?;
            (inner, rows, shortcut) = (a, map.halved().rows(), pooled);
        }
        let mut result = input;
        if let Some(conv) = &block.downsample {
            self.linear(
                self.shape(conv, rows, Epilogue::Bias),
                conv.layer,
                [shortcut, 0, output],
            )?;
            result = output;
        }
        let shape = self.shape(&block.conv3, rows, Epilogue::BiasRelu);
        let shape = shape.plus_residual(shape.columns);
        self.linear(shape, block.conv3.layer, [inner, result, result])
    }

    /// Attention pooling of the last map: the mean of its places is the query. Local features are the places themselves through
    /// the projections of values and features (LoCoOp).
    fn pool(&mut self, x: u64) -> Result<()> {
        let (tower, sizes) = (self.tower, self.tower.sizes);
        let (images, places, channels) = (self.batch.images, sizes.positions(), sizes.channels());
        let precision = sizes.image.precision;
        let [tokens, keys] = [self.at[place::TOKENS], self.at[place::KEYS]];
        let [query, attended] = place::INNER.map(|index| self.at[index]);
        let map = Map {
            images,
            side: sizes.last_side(),
            channels,
        };
        pool_tokens(
            self.executor,
            precision,
            map,
            [x, self.weights + tower.positions, tokens],
        )?;
        let length = places + 1;
        let shape = |sizes| Shape::linear(precision, sizes);
        let of_mean = shape([images, channels, channels]).from_pitch(length * channels);
        self.linear(of_mean, tower.query, [tokens, 0, query])?;
        self.linear(
            shape([images * length, 2 * channels, channels]),
            tower.key_value,
            [tokens, 0, keys],
        )?;
        let attention = Attention {
            query: Rows {
                at: query,
                row: channels,
                sequence: channels,
            },
            key: keys,
            value: self.beyond(keys, channels),
            key_row: 2 * channels,
            key_sequence: length * 2 * channels,
            output: Rows {
                at: attended,
                row: channels,
                sequence: channels,
            },
            sequences: images,
            queries: 1,
            keys: length,
            causal: false,
        };
        sizes.heads().attend(self.executor, &attention)?;
        let to_features = |rows| shape([rows, sizes.image.dim, channels]).widened();
        self.linear(
            to_features(images),
            tower.project,
            [attended, 0, self.global],
        )?;
        if self.batch.local {
            let value = Layer {
                weight: self.beyond(tower.key_value.weight, channels * channels),
                bias: self.beyond(tower.key_value.bias, channels),
            };
            let rows = images * places;
            self.linear(shape([rows, channels, channels]), value, [x, 0, tokens])?;
            self.linear(to_features(rows), tower.project, [tokens, 0, self.local])?;
        }
        Ok(())
    }
}
