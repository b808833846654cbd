//! One pass of a batch through a vision transformer.

use super::{Block, Vit, place};
use crate::attention::{Attention, Rows};
use crate::error::Result;
use crate::executor::{Argument, BLOCK, Executor, Launch, threads, warps};
use crate::image::tensors::Layer;
use crate::image::{Batch, Memory};
use crate::product::{Epilogue, Operands, Shape};
use crate::rows::{Norm, Selection, activate, layer_norm};

/// Enqueues everything between pixels and features.
pub(super) fn run(
    vit: &Vit,
    executor: &mut impl Executor,
    batch: Batch,
    memory: Memory,
) -> Result<()> {
    let places = vit.places(batch);
    let mut pass = Pass {
        vit,
        executor,
        batch,
        weights: memory.weights,
        pixels: memory.arena + places.pixels,
        global: memory.arena + places.global,
        local: memory.arena + places.local,
        at: places.working.map(|offset| memory.arena + offset),
    };
    pass.embed()?;
    // `VitSizes::check` refuses a tower without blocks.
    if let Some((last, blocks)) = vit.blocks.split_last() {
        for block in blocks {
            pass.block(block)?;
        }
        pass.last_block(last)?;
    }
    pass.project()
}

/// A pass on its way.
struct Pass<'a, E> {
    vit: &'a Vit,
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
    fn rows(&self) -> usize {
        self.batch.images * self.vit.sizes.tokens()
    }

    /// The address `count` elements on.
    fn beyond(&self, address: u64, count: usize) -> u64 {
        address + (count * self.vit.sizes.image.precision.bytes()) as u64
    }

    fn shape(&self, sizes: [usize; 3]) -> Shape {
        Shape::linear(self.vit.sizes.image.precision, sizes)
    }

    fn norm(&self, layer: Layer) -> Norm {
        Norm {
            gain: self.weights + layer.weight,
            bias: self.weights + layer.bias,
        }
    }

    /// A linear layer from `input` to `output`, plus the residual if the shape has one.
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

    /// Pixels to the residual stream.
    fn embed(&mut self) -> Result<()> {
        let (vit, sizes) = (self.vit, self.vit.sizes);
        let images = self.batch.images;
        let [stream, normal, hidden] = [
            self.at[place::STREAM],
            self.at[place::ROWS],
            self.at[place::HIDDEN],
        ];
        let vectors = images * sizes.patches() * sizes.columns() / sizes.image.precision.vector();
        let mut arguments = vec![
            Argument::Address(self.pixels),
            Argument::Address(hidden),
            Argument::I32(images as i32),
        ];
        arguments.extend(sizes.image.normalisation());
        self.executor.launch(&Launch {
            kernel: "patches",
            grid: threads(vectors),
            block: BLOCK,
            shared: 0,
            arguments: &arguments,
        })?;
        let mut embedding = self.shape([images * sizes.patches(), sizes.width, sizes.columns()]);
        embedding.epilogue = Epilogue::None;
        let conv1 = Layer {
            weight: vit.conv1,
            bias: 0,
        };
        self.linear(embedding, conv1, [hidden, 0, normal])?;
        let norm = self.norm(vit.ln_pre);
        let addresses = [
            normal,
            self.weights + vit.class,
            self.weights + vit.positions,
            norm.gain,
            norm.bias,
            stream,
        ];
        let mut arguments: Vec<Argument> = addresses.map(Argument::Address).to_vec();
        arguments.push(Argument::I32(self.rows() as i32));
        self.executor.launch(&Launch {
            kernel: "embed",
            grid: warps(self.rows()),
            block: BLOCK,
            shared: 0,
            arguments: &arguments,
        })
    }

    fn block(&mut self, block: &Block) -> Result<()> {
        let sizes = self.vit.sizes;
        let (width, tokens, rows) = (sizes.width, sizes.tokens(), self.rows());
        let [stream, normal, hidden] = [
            self.at[place::STREAM],
            self.at[place::ROWS],
            self.at[place::HIDDEN],
        ];
        layer_norm(
            self.executor,
            stream,
            self.norm(block.ln_1),
            normal,
            Selection::all(rows),
        )?;
        self.linear(
            self.shape([rows, 3 * width, width]),
            block.in_proj,
            [normal, 0, hidden],
        )?;
        let attention = Attention {
            query: Rows {
                at: hidden,
                row: 3 * width,
                sequence: tokens * 3 * width,
            },
            key: self.beyond(hidden, width),
            value: self.beyond(hidden, 2 * width),
            key_row: 3 * width,
            key_sequence: tokens * 3 * width,
            output: Rows {
                at: normal,
                row: width,
                sequence: tokens * width,
            },
            sequences: self.batch.images,
            queries: tokens,
            keys: tokens,
        };
        sizes.heads().attend(self.executor, &attention)?;
        let out = self.shape([rows, width, width]).plus_residual(width);
        self.linear(out, block.out_proj, [normal, stream, stream])?;
        self.perceptron(block, rows, [stream, normal, hidden])
    }

    /// `x += c_proj(activation(c_fc(ln_2(x))))` over packed rows.
    fn perceptron(
        &mut self,
        block: &Block,
        rows: usize,
        [x, normal, hidden]: [u64; 3],
    ) -> Result<()> {
        let sizes = self.vit.sizes;
        let width = sizes.width;
        layer_norm(
            self.executor,
            x,
            self.norm(block.ln_2),
            normal,
            Selection::all(rows),
        )?;
        self.linear(
            self.shape([rows, 4 * width, width]),
            block.c_fc,
            [normal, 0, hidden],
        )?;
        activate(
            self.executor,
            sizes.activation,
            sizes.image.precision,
            hidden,
            rows * 4 * width,
        )?;
        let down = self.shape([rows, width, 4 * width]).plus_residual(width);
        self.linear(down, block.c_proj, [hidden, x, x])
    }

    /// The last block. Only its class tokens reach the global features, so queries, attention and perceptron run for one row of
    /// each image. The local features take every token through the value path alone (LoCoOp): `v = x + out_proj(V(ln_1(x)))`,
    /// then the perceptron.
    fn last_block(&mut self, block: &Block) -> Result<()> {
        let sizes = self.vit.sizes;
        let (images, width, tokens, rows) =
            (self.batch.images, sizes.width, sizes.tokens(), self.rows());
        let [stream, normal, hidden] = [
            self.at[place::STREAM],
            self.at[place::ROWS],
            self.at[place::HIDDEN],
        ];
        let [query, attended] = [self.at[place::QUERY], self.at[place::ATTENDED]];
        let [class, class_hidden] = [self.at[place::CLASS], self.at[place::CLASS_HIDDEN]];
        layer_norm(
            self.executor,
            stream,
            self.norm(block.ln_1),
            normal,
            Selection::all(rows),
        )?;
        let keys_values = Layer {
            weight: self.beyond(block.in_proj.weight, width * width),
            bias: self.beyond(block.in_proj.bias, width),
        };
        self.linear(
            self.shape([rows, 2 * width, width]),
            keys_values,
            [normal, 0, hidden],
        )?;
        // The class tokens are every `tokens`-th row: a pitch reads them without a gather.
        let of_class = self
            .shape([images, width, width])
            .from_pitch(tokens * width);
        self.linear(of_class, block.in_proj, [normal, 0, query])?;
        let values = self.beyond(hidden, width);
        let attention = Attention {
            query: Rows {
                at: query,
                row: width,
                sequence: width,
            },
            key: hidden,
            value: values,
            key_row: 2 * width,
            key_sequence: tokens * 2 * width,
            output: Rows {
                at: attended,
                row: width,
                sequence: width,
            },
            sequences: images,
            queries: 1,
            keys: tokens,
        };
        sizes.heads().attend(self.executor, &attention)?;
        let out = self
            .shape([images, width, width])
            .plus_residual(tokens * width);
        self.linear(out, block.out_proj, [attended, stream, class])?;
        self.perceptron(block, images, [class, query, class_hidden])?;
        if self.batch.local {
            let out = self
                .shape([rows, width, width])
                .from_pitch(2 * width)
                .plus_residual(width);
            self.linear(out, block.out_proj, [values, stream, stream])?;
            self.perceptron(block, rows, [stream, normal, hidden])?;
        }
        Ok(())
    }

    /// Tokens to features.
    fn project(&mut self) -> Result<()> {
        let (vit, sizes) = (self.vit, self.vit.sizes);
        let (images, patches, tokens) = (self.batch.images, sizes.patches(), sizes.tokens());
        let norm = self.norm(vit.ln_post);
        let proj = Layer {
            weight: vit.proj,
            bias: 0,
        };
        let shape = |rows| {
            Shape::projection(sizes.image.precision, [rows, sizes.image.dim, sizes.width]).widened()
        };
        let query = self.at[place::QUERY];
        layer_norm(
            self.executor,
            self.at[place::CLASS],
            norm,
            query,
            Selection::all(images),
        )?;
        self.linear(shape(images), proj, [query, 0, self.global])?;
        if self.batch.local {
            let rows = images * patches;
            let normal = self.at[place::ROWS];
            let of_patches = Selection {
                rows,
                tokens,
                per: patches,
                first: 1,
            };
            layer_norm(
                self.executor,
                self.at[place::STREAM],
                norm,
                normal,
                of_patches,
            )?;
            self.linear(shape(rows), proj, [normal, 0, self.local])?;
        }
        Ok(())
    }
}
