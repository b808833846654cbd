//! [`TextTower`]: CLIP's text tower of frozen weights over packed texts, and the gradient of its input.
//!
//! The rows of all tokens lie in one matrix ([`Packed`](super::pack::Packed)). Products, layer norm and activation treat all rows
//! alike; attention alone knows which row belongs to which text. In the last block only the end of each text goes on after
//! attention. No weight gets a gradient, so a backward pass costs as many products as a forward one. Everything is launched on
//! one stream, and sums are made in a fixed order: equal inputs give equal bits on one GPU model.

use super::attention::AttentionLaunch;
use super::launch::{self, Embedding};
use super::pack::Capacity;
use super::rooms::Rooms;
use super::weights::{LinearPlace, NormPlace, WeightPlaces};
use crate::error::Result;
use crate::executor::Executor;
use crate::precision::Precision;
use crate::product::{Epilogue, Operands, Shape};
use crate::rows::Activation;

/// The launches of a text tower over texts of one [`Capacity`]. Addresses are offsets from `base`.
#[derive(Debug, Clone)]
pub struct TextTower {
    pub(super) base: u64,
    pub(super) precision: Precision,
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) dim: usize,
    pub(super) context: usize,
    pub(super) activation: Activation,
    pub(super) prefix: usize,
    pub(super) capacity: Capacity,
    /// Rows of the first block's input that a pass changes; all others keep their queries, keys and values of the first pass.
    pub(super) changing: usize,
    pub(super) attention: AttentionLaunch,
    pub(super) weights: WeightPlaces,
    pub(super) rooms: Rooms,
}

impl TextTower {
    /// Tells the tower where its memory is.
    pub fn attach(&mut self, base: u64) {
        self.base = base;
    }

    /// Address of the memory that all offsets count from.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Most tokens of a text.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Features before normalisation, float32 `[texts, dim]`.
    pub fn features(&self) -> u64 {
        self.base + self.rooms.features
    }

    /// Where the gradient of the features goes, `[texts, dim]` in the tower's format.
    pub fn feature_gradient(&self) -> u64 {
        self.base + self.rooms.dfeatures
    }

    /// The gradient of the first block's input in the tower's format, `[changing rows, width]`, after [`TextTower::backward`].
    pub fn input_gradient(&self) -> u64 {
        self.base + self.rooms.gradient
    }

    /// The first block's input, `[rows, width]` in the tower's format.
    pub fn input(&self) -> u64 {
        self.at(self.rooms.layers[0].x)
    }

    /// Positional embedding, float32 `[context, width]`.
    pub fn position(&self) -> u64 {
        self.at(self.weights.position)
    }

    /// Where the index arrays of a batch go: starts, first rows, ends.
    pub fn index_places(&self) -> [u64; 3] {
        let rooms = &self.rooms;
        [rooms.starts, rooms.first, rooms.ends].map(|at| self.at(at))
    }

    /// Writes tokens into the first block's input.
    ///
    /// # Errors
    /// Those of the executor.
    pub fn embed(&self, executor: &mut dyn Executor, embedding: &Embedding) -> Result<()> {
        launch::embed(executor, embedding, self.position(), self.input())
    }

    /// The first block's queries, keys and values of all rows: once, where a pass changes only some of them.
    ///
    /// # Errors
    /// Those of the executor.
    pub fn prepare(&self, executor: &mut dyn Executor) -> Result<()> {
        let (block, layer, rows) = (
            &self.weights.blocks[0],
            &self.rooms.layers[0],
            self.capacity.rows,
        );
        self.norm(
            executor,
            block.ln_1,
            [layer.stats_1, layer.x, self.rooms.normed],
            rows,
        )?;
        self.linear(
            executor,
            &block.in_proj,
            rows,
            [self.rooms.normed, layer.qkv],
            None,
        )
    }

    /// From the first block's input to the features.
    ///
    /// # Errors
    /// Those of the executor.
    pub fn forward(&self, executor: &mut dyn Executor) -> Result<()> {
        let (rooms, width, texts) = (&self.rooms, self.width, self.capacity.texts);
        for (i, (block, layer)) in self.weights.blocks.iter().zip(&rooms.layers).enumerate() {
            let changing = if i == 0 {
                self.changing
            } else {
                self.capacity.rows
            };
            self.norm(
                executor,
                block.ln_1,
                [layer.stats_1, layer.x, rooms.normed],
                changing,
            )?;
            self.linear(
                executor,
                &block.in_proj,
                changing,
                [rooms.normed, layer.qkv],
                None,
            )?;
            self.attend(executor, layer.qkv)?;
            let next = rooms.layers.get(i + 1);
            let (going, attended, residual, out) = match next {
                Some(next) => (self.capacity.rows, rooms.attended, layer.x, next.x),
                None => {
                    self.take(executor, rooms.attended, rooms.ends, rooms.short, texts)?;
                    self.take(executor, layer.x, rooms.ends, layer.middle, texts)?;
                    (texts, rooms.short, layer.middle, rooms.out)
                }
            };
            self.linear(
                executor,
                &block.out_proj,
                going,
                [attended, layer.middle],
                Some(residual),
            )?;
            self.norm(
                executor,
                block.ln_2,
                [layer.stats_2, layer.middle, rooms.normed],
                going,
            )?;
            self.linear(
                executor,
                &block.c_fc,
                going,
                [rooms.normed, layer.hidden],
                None,
            )?;
            let vectors = going * 4 * width / self.precision.vector();
            launch::activation(
                executor,
                self.activation,
                self.at(layer.hidden),
                self.at(rooms.wide),
                vectors,
            )?;
            self.linear(
                executor,
                &block.c_proj,
                going,
                [rooms.wide, out],
                Some(layer.middle),
            )?;
        }
        self.norm(
            executor,
            self.weights.ln_final,
            [rooms.stats_final, rooms.out, rooms.normed],
            texts,
        )?;
        let shape = Shape::projection(self.precision, [texts, self.dim, width]).widened();
        self.product(
            executor,
            &shape,
            rooms.normed,
            self.weights.projection,
            rooms.features,
        )
    }

    /// From the gradient of the features to that of the first block's input.
    ///
    /// # Errors
    /// Those of the executor.
    pub fn backward(&self, executor: &mut dyn Executor) -> Result<()> {
        let (rooms, width, texts) = (&self.rooms, self.width, self.capacity.texts);
        // The projection's weight is [width, dim], so its gradient takes it transposed, as a linear layer does.
        let shape = Shape {
            epilogue: Epilogue::None,
            ..Shape::linear(self.precision, [texts, width, self.dim])
        };
        self.product(
            executor,
            &shape,
            rooms.dfeatures,
            self.weights.projection,
            rooms.normed,
        )?;
        self.norm_back(
            executor,
            self.weights.ln_final,
            [rooms.stats_final, rooms.out, rooms.short],
            (texts, false),
        )?;
        let last = rooms.layers.len() - 1;
        for (i, (block, layer)) in self
            .weights
            .blocks
            .iter()
            .zip(&rooms.layers)
            .enumerate()
            .rev()
        {
            // Down to the last block's attention the gradient has a row for each text, below one for each token.
            let (d, going) = if i == last {
                (rooms.short, texts)
            } else {
                (rooms.gradient, self.capacity.rows)
            };
            self.linear_back(executor, &block.c_proj, going, d, rooms.wide)?;
            let vectors = going * 4 * width / self.precision.vector();
            launch::activation_backward(
                executor,
                self.activation,
                self.at(layer.hidden),
                self.at(rooms.wide),
                vectors,
            )?;
            self.linear_back(executor, &block.c_fc, going, rooms.wide, rooms.normed)?;
            self.norm_back(
                executor,
                block.ln_2,
                [layer.stats_2, layer.middle, d],
                (going, true),
            )?;
            self.linear_back(executor, &block.out_proj, going, d, rooms.attended)?;
            let mut dattended = rooms.attended;
            if i == last {
                self.take(
                    executor,
                    rooms.short,
                    rooms.ended,
                    rooms.gradient,
                    self.capacity.rows,
                )?;
                self.take(
                    executor,
                    rooms.attended,
                    rooms.ended,
                    rooms.normed,
                    self.capacity.rows,
                )?;
                dattended = rooms.normed;
            }
            self.attend_back(executor, layer.qkv, dattended)?;
            let changing = if i == 0 {
                self.changing
            } else {
                self.capacity.rows
            };
            self.linear_back(executor, &block.in_proj, changing, rooms.wide, rooms.normed)?;
            self.norm_back(
                executor,
                block.ln_1,
                [layer.stats_1, layer.x, rooms.gradient],
                (changing, true),
            )?;
        }
        Ok(())
    }

    fn at(&self, offset: u64) -> u64 {
        self.base + offset
    }

    /// `stats, x, y`: the norm of `rows` rows of `x`.
    fn norm(
        &self,
        executor: &mut dyn Executor,
        norm: NormPlace,
        [stats, x, y]: [u64; 3],
        rows: usize,
    ) -> Result<()> {
        let places = [x, norm.weight, norm.bias, y, stats].map(|at| self.at(at));
        launch::layer_norm(executor, places, rows)
    }

    /// `stats, x, d`: adds the gradient of a norm's input, of whose output it is in `normed`, to `d` or replaces it.
    fn norm_back(
        &self,
        executor: &mut dyn Executor,
        norm: NormPlace,
        [stats, x, d]: [u64; 3],
        (rows, add): (usize, bool),
    ) -> Result<()> {
        let places = [x, norm.weight, stats, self.rooms.normed, d].map(|at| self.at(at));
        launch::layer_norm_backward(executor, places, rows, add)
    }

    /// `y = x weight' + bias`, plus a residual.
    fn linear(
        &self,
        executor: &mut dyn Executor,
        linear: &LinearPlace,
        rows: usize,
        [x, y]: [u64; 2],
        residual: Option<u64>,
    ) -> Result<()> {
        let mut shape = Shape::linear(self.precision, [rows, linear.outputs, linear.inputs]);
        if residual.is_some() {
            shape = shape.plus_residual(linear.outputs);
        }
        executor.product(
            &shape,
            &Operands {
                input: self.at(x),
                weight: self.at(linear.weight),
                bias: self.at(linear.bias),
                residual: residual.map_or(0, |at| self.at(at)),
                output: self.at(y),
                scale: 1.0,
            },
        )
    }

    /// `dx = dy weight`.
    fn linear_back(
        &self,
        executor: &mut dyn Executor,
        linear: &LinearPlace,
        rows: usize,
        dy: u64,
        dx: u64,
    ) -> Result<()> {
        let shape = Shape::projection(self.precision, [rows, linear.inputs, linear.outputs]);
        self.product(executor, &shape, dy, linear.weight, dx)
    }

    fn product(
        &self,
        executor: &mut dyn Executor,
        shape: &Shape,
        input: u64,
        weight: u64,
        output: u64,
    ) -> Result<()> {
        executor.product(
            shape,
            &Operands {
                input: self.at(input),
                weight: self.at(weight),
                bias: 0,
                residual: 0,
                output: self.at(output),
                scale: 1.0,
            },
        )
    }

    fn take(
        &self,
        executor: &mut dyn Executor,
        x: u64,
        from: u64,
        y: u64,
        rows: usize,
    ) -> Result<()> {
        launch::take_rows(executor, [x, from, y].map(|at| self.at(at)), rows)
    }

    fn attend(&self, executor: &mut dyn Executor, qkv: u64) -> Result<()> {
        let rooms = &self.rooms;
        let places = [qkv, rooms.starts, rooms.first, rooms.attended].map(|at| self.at(at));
        launch::attention(executor, places, self.launched(), &self.attention.forward)
    }

    /// Leaves the gradient of queries, keys and values in `wide`.
    fn attend_back(&self, executor: &mut dyn Executor, qkv: u64, dattended: u64) -> Result<()> {
        let rooms = &self.rooms;
        let blocks = &self.attention.backward;
        let places = [
            qkv,
            dattended,
            rooms.starts,
            rooms.first,
            rooms.wide,
            rooms.partial,
        ]
        .map(|at| self.at(at));
        launch::attention_backward(executor, places, self.launched(), blocks)?;
        let sums = [rooms.partial, rooms.wide].map(|at| self.at(at));
        launch::sum_prefix(executor, sums, blocks.count, [self.prefix, self.width])
    }

    /// Groups, tokens of the prefix and heads.
    fn launched(&self) -> [usize; 3] {
        [self.capacity.groups, self.prefix, self.heads]
    }
}
