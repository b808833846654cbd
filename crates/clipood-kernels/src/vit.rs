//! The vision transformer of CLIP at inference (`VisionTransformer` of openai/CLIP's `clip/model.py`; local features as
//! LoCoOp's `clip_w_local`): patches, class token and positions, blocks, projection.

use rayon::prelude::*;

use crate::activation::Activation;
use crate::attention::Attention;
use crate::block::{Block, Buffers};
use crate::matrix::{Map, Matrix};
use crate::norm::Norm;
use crate::packed::{Format, Packed};
use crate::resnet::Features;
use crate::share::{Share, Then, in_pool};

/// Weight `[output, input]` and bias `[output]`, as a checkpoint holds them.
pub type Linear<'a> = (&'a [f32], &'a [f32]);

/// Parameters of a block, as a checkpoint holds them.
#[derive(Debug, Clone, Copy)]
pub struct BlockParameters<'a> {
    /// Norm before attention.
    pub ln_1: Norm<'a>,
    /// Queries, keys and values, `[3 width, width]`.
    pub in_proj: Linear<'a>,
    /// After attention, `[width, width]`.
    pub out_proj: Linear<'a>,
    /// Norm before the perceptron.
    pub ln_2: Norm<'a>,
    /// First layer of the perceptron, `[hidden, width]`.
    pub c_fc: Linear<'a>,
    /// Second layer, `[width, hidden]`.
    pub c_proj: Linear<'a>,
}

/// Everything except the blocks, as a checkpoint holds it.
#[derive(Debug, Clone, Copy)]
pub struct VitParameters<'a> {
    /// Height and width of an image.
    pub side: usize,
    /// Height and width of a patch.
    pub patch: usize,
    /// Attention heads of every block.
    pub heads: usize,
    /// Of every block.
    pub activation: Activation,
    /// Patch embedding `[width, 3, patch, patch]`.
    pub patches: &'a [f32],
    /// `[width]`.
    pub class_token: &'a [f32],
    /// `[1 + patches, width]`.
    pub positions: &'a [f32],
    /// Before the blocks.
    pub ln_pre: Norm<'a>,
    /// After the blocks.
    pub ln_post: Norm<'a>,
    /// `[width, dim]`.
    pub projection: &'a [f32],
}

/// The image tower.
#[derive(Debug)]
pub struct Vit {
    side: usize,
    patch: usize,
    attention: Attention,
    activation: Activation,
    patches: Packed,
    class_token: Vec<f32>,
    positions: Vec<f32>,
    ln_pre: OwnedNorm,
    blocks: Vec<OwnedBlock>,
    ln_post: OwnedNorm,
    projection: Packed,
}

#[derive(Debug)]
struct OwnedNorm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

#[derive(Debug)]
struct OwnedBlock {
    ln_1: OwnedNorm,
    in_proj: Packed,
    out_proj: Packed,
    ln_2: OwnedNorm,
    c_fc: Packed,
    c_proj: Packed,
}

impl OwnedNorm {
    fn new(norm: Norm<'_>) -> Self {
        Self {
            gamma: norm.gamma.to_vec(),
            beta: norm.beta.to_vec(),
        }
    }

    fn norm(&self) -> Norm<'_> {
        Norm {
            gamma: &self.gamma,
            beta: &self.beta,
        }
    }
}

impl Vit {
    /// A tower without blocks. Patch embedding, norms, attention and projection are float32 in any format.
    ///
    /// # Panics
    /// A parameter has another size.
    pub fn new(p: &VitParameters<'_>) -> Option<Self> {
        let width = p.class_token.len();
        let area = p.patch * p.patch;
        assert_eq!(p.patches.len(), width * 3 * area, "patch embedding");
        // [width, 3, area] -> [width, area, 3], the order of pixels.
        let mut ordered = Vec::with_capacity(p.patches.len());
        for planes in p.patches.chunks_exact(3 * area) {
            ordered.extend((0..3 * area).map(|i| planes[i % 3 * area + i / 3]));
        }
        let patches = Matrix::new(&ordered, width, 3 * area, 3 * area).transposed();
        let dim = p.projection.len() / width;
        let projection = Matrix::new(p.projection, width, dim, dim);
        Some(Self {
            side: p.side,
            patch: p.patch,
            attention: Attention {
                heads: p.heads,
                width,
                causal: false,
            },
            activation: p.activation,
            patches: Packed::new(patches, &vec![0.0; width], Format::F32)?,
            class_token: p.class_token.to_vec(),
            positions: p.positions.to_vec(),
            ln_pre: OwnedNorm::new(p.ln_pre),
            blocks: Vec::new(),
            ln_post: OwnedNorm::new(p.ln_post),
            projection: Packed::new(projection, &vec![0.0; dim], Format::F32)?,
        })
    }

    /// Adds a block whose maps multiply in `format`; `None` for one that this CPU lacks.
    ///
    /// # Panics
    /// A parameter has another size.
    pub fn block(&mut self, p: &BlockParameters<'_>, format: Format) -> Option<()> {
        let pack = |(weight, bias): Linear<'_>| {
            let input = weight.len() / bias.len().max(1);
            let matrix = Matrix::new(weight, bias.len(), input, input).transposed();
            Packed::new(matrix, bias, format)
        };
        self.blocks.push(OwnedBlock {
            ln_1: OwnedNorm::new(p.ln_1),
            in_proj: pack(p.in_proj)?,
            out_proj: pack(p.out_proj)?,
            ln_2: OwnedNorm::new(p.ln_2),
            c_fc: pack(p.c_fc)?,
            c_proj: pack(p.c_proj)?,
        });
        Some(())
    }

    /// Normalised pixels `[batch, side, side, 3]` -> features before normalisation; local ones are those of the patches.
    ///
    /// # Panics
    /// The pixels are not whole images.
    pub fn forward(&self, pixels: &[f32], local: bool) -> Features {
        let image = self.side * self.side * 3;
        let batch = pixels.len() / image;
        assert_eq!(batch * image, pixels.len(), "pixels of whole images");
        in_pool(|| self.layers(pixels, local))
    }

    fn layers(&self, pixels: &[f32], local: bool) -> Features {
        let (width, tokens) = (self.width(), self.tokens());
        let mut x = self.embed(pixels);
        let buffers = Buffers::default();
        let Some((last, blocks)) = self.blocks.split_last() else {
            let class = x.chunks_exact(tokens * width).flat_map(|x| &x[..width]);
            return Features {
                global: self.project(&class.copied().collect::<Vec<_>>()),
                local: Vec::new(),
            };
        };
        for block in blocks {
            self.with(block).forward(&mut x, tokens, &buffers);
        }
        let global =
            self.with(last)
                .forward_at(&x, tokens, &vec![0; x.len() / (tokens * width)], &buffers);
        let local = match local {
            true => {
                // The last block's value path alone, as in the references; the class token has none.
                let mut values: Vec<f32> = (x.chunks_exact(tokens * width))
                    .flat_map(|x| &x[width..])
                    .copied()
                    .collect();
                self.with(last).forward_values(&mut values, &buffers);
                self.project(&values)
            }
            false => Vec::new(),
        };
        Features {
            global: self.project(&global),
            local,
        }
    }

    fn width(&self) -> usize {
        self.attention.width
    }

    fn tokens(&self) -> usize {
        self.positions.len() / self.width().max(1)
    }

    fn with<'a>(&'a self, block: &'a OwnedBlock) -> Block<'a, &'a Packed> {
        Block {
            ln_1: block.ln_1.norm(),
            in_proj: &block.in_proj,
            out_proj: &block.out_proj,
            ln_2: block.ln_2.norm(),
            c_fc: &block.c_fc,
            c_proj: &block.c_proj,
            activation: self.activation,
            attention: self.attention,
        }
    }

    /// Class token and patches with their positions, normalised: `[batch, tokens, width]`.
    fn embed(&self, pixels: &[f32]) -> Vec<f32> {
        let (width, tokens) = (self.width(), self.tokens());
        let (side, patch) = (self.side, self.patch);
        let image = side * side * 3;
        let batch = pixels.len() / image;
        let wide = side / patch;
        let row = 3 * patch * patch;
        let mut patches = vec![0.0; batch * wide * wide * row];
        (patches.par_chunks_mut(wide * row).enumerate()).for_each(|(band, out)| {
            let top = band / wide * side + band % wide * patch;
            for (column, out) in out.chunks_exact_mut(row).enumerate() {
                for (y, out) in out.chunks_exact_mut(3 * patch).enumerate() {
                    let from = ((top + y) * side + column * patch) * 3;
                    out.copy_from_slice(&pixels[from..from + 3 * patch]);
                }
            }
        });
        let mut embedded = vec![0.0; batch * wide * wide * width];
        let share = Share::All;
        share.apply(
            &self.patches,
            &patches,
            0..width,
            &mut embedded,
            Then::Nothing,
        );
        let mut x = vec![0.0; batch * tokens * width];
        let images = x.par_chunks_mut(tokens * width);
        images
            .zip(embedded.par_chunks_mut(wide * wide * width))
            .for_each(|(x, embedded)| {
                let mut values = self.class_token.clone();
                values.extend_from_slice(embedded);
                for (value, position) in values.iter_mut().zip(&self.positions) {
                    *value += position;
                }
                self.ln_pre.norm().apply(&values, x);
            });
        x
    }

    /// Rows `[n, width]` -> `[n, dim]`.
    fn project(&self, x: &[f32]) -> Vec<f32> {
        let mut normed = vec![0.0; x.len()];
        let rows = Share::All.rows(x.len() / self.width(), 256);
        let share = rows * self.width();
        Share::All.chunks(&mut normed, share, |i, out| {
            let from = i * share;
            self.ln_post.norm().apply(&x[from..from + out.len()], out);
        });
        let dim = self.projection.bias().len();
        let mut out = vec![0.0; x.len() / self.width() * dim];
        Share::All.apply(&self.projection, &normed, 0..dim, &mut out, Then::Nothing);
        out
    }
}
