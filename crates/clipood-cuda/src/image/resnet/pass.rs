//! One pass of a batch through a ModifiedResNet.

use super::{Bottleneck, Conv, Resnet, place};
use crate::attention::{Attention, Rows};
use crate::error::Result;
use crate::executor::Executor;
use crate::image::convolution::{
    Map, average_pool, columns_3x3, padded, pool_tokens, stem_columns,
};
use crate::image::tensors::Layer;
use crate::image::{Batch, Memory};
use crate::product::{Epilogue, Operands, Shape};

/// Enqueues everything between pixels and features.
pub(super) fn run(
    tower: &Resnet,
    executor: &mut impl Executor,
    batch: Batch,
    memory: Memory,
) -> Result<()> {
    let places = tower.places(batch);
    let mut pass = Pass {
        tower,
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
    for (block, map) in tower.blocks.iter().zip(tower.maps(batch.images)) {
        pass.bottleneck(block, map, [input, output])?;
        if block.downsample.is_some() {
            // Without one the result lies where the input was.
            std::mem::swap(&mut input, &mut output);
        }
    }
    pass.pool(input)
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
