//! The vision transformer: weights, memory and the order of kernels and products.
//!
//! A block is: layer norm; one product for queries, keys and values; attention, which reads them where the product left
//! them; a product that adds to the residual stream; layer norm; the perceptron's two products with the activation in place
//! between them, the second one adding to the residual stream. Nothing is transposed, copied or allocated.

mod pass;

use super::tensors::{Layer, Packed};
use super::{Batch, ImageSizes, Memory, Places, Tensors, check_count};
use crate::attention::{self, Heads};
use crate::compile::Program;
use crate::error::{CudaError, Result};
use crate::executor::Executor;
use crate::memory;
use crate::rows::{self, Activation};

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
        let values = batch.images * self.sizes.tokens() * self.sizes.columns();
        check_count("values of patches", values)?;
        pass::run(self, executor, batch, memory)
    }
}
