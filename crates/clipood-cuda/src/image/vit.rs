//! The vision transformer: weights, memory and the order of kernels and products.
//!
//! A block is: layer norm; one product for queries, keys and values; attention, which reads them where the product left
//! them; a product that adds to the residual stream; layer norm; the perceptron's two products with the activation in place
//! between them, the second one adding to the residual stream. Nothing is transposed, copied or allocated.

use super::tensors::{Layer, Packed};
use super::{Batch, ImageSizes, Memory, Places, Tensors, check_count};
use crate::attention::{self, Attention, Heads, Rows};
use crate::compile::Program;
use crate::error::{CudaError, Result};
use crate::executor::{Argument, BLOCK, Executor, Launch, threads, warps};
use crate::memory;
use crate::product::{Epilogue, Operands, Shape};
use crate::rows::{self, Activation, Norm, Selection, activate, layer_norm};

/// Text of the kernel file of pixels and tokens.
const SOURCE: &str = include_str!("../kernels/vit.cu");

/// Sizes of a vision transformer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VitSizes {
    /// Images, features and format.
    pub image: ImageSizes,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Values of a token.
    pub width: usize,
    /// Residual blocks.
    pub layers: usize,
    /// Between the layers of the perceptrons.
    pub activation: Activation,
}

impl VitSizes {
    /// Patches of an image.
    pub fn patches(&self) -> usize {
        (self.image.side / self.patch).pow(2)
    }

    /// Patches and the class token.
    fn tokens(&self) -> usize {
        self.patches() + 1
    }

    /// Values of a patch, padded: cuBLASLt's fast kernels want rows of whole 16-byte vectors.
    fn columns(&self) -> usize {
        (3 * self.patch * self.patch).next_multiple_of(16)
    }

    fn heads(&self) -> Heads {
        Heads {
            count: self.image.heads,
            size: self.width / self.image.heads,
            precision: self.image.precision,
        }
    }

    /// Whether the kernels cover these sizes.
    ///
    /// # Errors
    /// What they do not cover.
    pub fn check(&self) -> Result<()> {
        let problem = if self.layers == 0 {
            Some("a vision transformer without blocks".to_string())
        } else if !self.width.is_multiple_of(8) {
            Some(format!("tokens of {} values: no multiple of 8", self.width))
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
        let mut defines = vec![
            ("ELEMENT", self.image.precision.element()),
            ("SIDE", self.image.side as i64),
            ("PATCH", self.patch as i64),
            ("COLUMNS", self.columns() as i64),
            ("WIDTH", self.width as i64),
        ];
        defines.extend(self.heads().defines());
        let mut kernels = vec![
            ("patches", 0),
            ("embed", 0),
            ("attention", self.heads().shared()),
        ];
        kernels.extend(rows::KERNELS);
        Program {
            name: "vit",
            families: vec![rows::SOURCE, SOURCE, attention::SOURCE],
            defines,
            kernels,
        }
    }
}

/// Offsets of a residual block's weights.
#[derive(Debug, Clone, Copy)]
struct Block {
    ln_1: Layer,
    in_proj: Layer,
    out_proj: Layer,
    ln_2: Layer,
    c_fc: Layer,
    c_proj: Layer,
}

/// A vision transformer.
#[derive(Debug, Clone)]
pub struct Vit {
    /// Its sizes.
    pub sizes: VitSizes,
    conv1: u64,
    class: u64,
    positions: u64,
    ln_pre: Layer,
    blocks: Vec<Block>,
    ln_post: Layer,
    proj: u64,
}

/// Indices of [`Places::working`].
mod place {
    /// The residual stream `[images, tokens, width]`.
    pub const STREAM: usize = 0;
    /// As large: normalised rows, the output of attention, patch embeddings.
    pub const ROWS: usize = 1;
    /// Four times as large: projections, hidden values of the perceptron, patches.
    pub const HIDDEN: usize = 2;
    /// Of the class tokens in the last block, `[images, width]` each: queries and normalised rows, what they attend to, the
    /// tokens themselves.
    pub const QUERY: usize = 3;
    pub const ATTENDED: usize = 4;
    pub const CLASS: usize = 5;
    /// `[images, 4 width]`.
    pub const CLASS_HIDDEN: usize = 6;
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

impl Vit {
    /// The tower and its weights as the device wants them.
    ///
    /// # Errors
    /// Sizes without kernels, a tensor that is missing or of another size.
    pub fn new(sizes: VitSizes, tensors: &Tensors<'_>) -> Result<(Self, Vec<u8>)> {
        sizes.check()?;
        let (width, dim) = (sizes.width, sizes.image.dim);
        let patch = 3 * sizes.patch * sizes.patch;
        let mut packed = Packed::new(sizes.image.precision);
        let conv1 = tensors.get("visual.conv1.weight", width * patch)?;
        let conv1 = packed.add_padded(conv1, patch, sizes.columns());
        let class = packed.add(tensors.get("visual.class_embedding", width)?);
        let positions = tensors.get("visual.positional_embedding", sizes.tokens() * width)?;
        let positions = packed.add(positions);
        let mut layer = |name: &str, sizes: [usize; 2]| {
            Layer::pack(&mut packed, tensors, &format!("visual.{name}"), sizes)
        };
        let ln_pre = layer("ln_pre.", [width; 2])?;
        let ln_post = layer("ln_post.", [width; 2])?;
        let blocks = (0..sizes.layers)
            .map(|i| {
                let mut part =
                    |name: &str, sizes| layer(&format!("transformer.resblocks.{i}.{name}"), sizes);
                Ok(Block {
                    ln_1: part("ln_1.", [width; 2])?,
                    in_proj: part("attn.in_proj_", [3 * width * width, 3 * width])?,
                    out_proj: part("attn.out_proj.", [width * width, width])?,
                    ln_2: part("ln_2.", [width; 2])?,
                    c_fc: part("mlp.c_fc.", [4 * width * width, 4 * width])?,
                    c_proj: part("mlp.c_proj.", [4 * width * width, width])?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let proj = packed.add(tensors.get("visual.proj", width * dim)?);
        let tower = Self {
            sizes,
            conv1,
            class,
            positions,
            ln_pre,
            blocks,
            ln_post,
            proj,
        };
        Ok((tower, packed.into_bytes()))
    }

    pub(super) fn places(&self, batch: Batch) -> Places {
        let sizes = &self.sizes;
        let (images, width) = (batch.images, sizes.width);
        let bytes = sizes.image.precision.bytes();
        let rows = images * sizes.tokens();
        let mut parts = memory::Places::default();
        let pixels = parts.place(images * sizes.image.pixel_bytes());
        let mut working = [0; 8];
        for (index, values) in [
            (place::STREAM, rows * width),
            (place::ROWS, rows * width),
            (place::HIDDEN, rows * (4 * width).max(sizes.columns())),
            (place::QUERY, images * width),
            (place::ATTENDED, images * width),
            (place::CLASS, images * width),
            (place::CLASS_HIDDEN, images * 4 * width),
        ] {
            working[index] = parts.place(values * bytes);
        }
        let global = parts.place(4 * images * sizes.image.dim);
        let positions = if batch.local {
            images * sizes.patches()
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
        check_count(
            "values of patches",
            batch.images * self.sizes.tokens() * self.sizes.columns(),
        )?;
        let places = self.places(batch);
        let mut pass = Pass {
            vit: self,
            executor,
            batch,
            weights: memory.weights,
            pixels: memory.arena + places.pixels,
            global: memory.arena + places.global,
            local: memory.arena + places.local,
            at: places.working.map(|offset| memory.arena + offset),
        };
        pass.embed()?;
        for block in &self.blocks[..self.blocks.len() - 1] {
            pass.block(block)?;
        }
        // `check` refuses a tower without blocks.
        if let Some(last) = self.blocks.last() {
            pass.last_block(last)?;
        }
        pass.project()
    }
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
            causal: false,
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
            causal: false,
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
