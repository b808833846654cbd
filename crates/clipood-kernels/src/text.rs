//! The text transformer of CLIP at inference (`CLIP.encode_text` of openai/CLIP's `clip/model.py`), on weights as a checkpoint
//! holds them.
//!
//! Texts are encoded once, and often few of them, so that putting the weights in another order would take longer than it
//! saves: a mapped file is read where it is needed.

use crate::activation::Activation;
use crate::attention::Attention;
use crate::block::{Block, Buffers};
use crate::matrix::{Affine, Transposed};
use crate::norm::Norm;
use crate::share::{Share, Then, in_pool};
use crate::vit::BlockParameters;

/// The blocks and what reads them out.
#[derive(Debug, Clone)]
pub struct Text<'a> {
    /// In their order.
    pub blocks: Vec<BlockParameters<'a>>,
    /// Attention heads of every block.
    pub heads: usize,
    /// Of every block.
    pub activation: Activation,
    /// After the blocks.
    pub ln_final: Norm<'a>,
    /// `[width, dim]`.
    pub projection: &'a [f32],
}

impl Text<'_> {
    /// Embedded tokens with their positions, `[texts, tokens, width]` -> features before normalisation `[texts, dim]`, read at
    /// the token `ends[i]` of each text.
    ///
    /// # Panics
    /// `x` is not as many whole texts as there are ends, or an end lies outside its text.
    pub fn forward(&self, x: Vec<f32>, tokens: usize, ends: &[usize]) -> Vec<f32> {
        let width = self.ln_final.gamma.len();
        assert_eq!(x.len(), ends.len() * tokens * width, "rows of texts");
        in_pool(|| self.layers(x, tokens, ends))
    }

    fn layers(&self, mut x: Vec<f32>, tokens: usize, ends: &[usize]) -> Vec<f32> {
        let width = self.ln_final.gamma.len();
        let attention = Attention {
            heads: self.heads,
            width,
            causal: true,
        };
        let buffers = Buffers::default();
        let read = match self.blocks.split_last() {
            Some((last, blocks)) => {
                for block in blocks {
                    let block = block_of(block, attention, self.activation);
                    block.forward(&mut x, tokens, &buffers);
                }
                let last = block_of(last, attention, self.activation);
                last.forward_at(&x, tokens, ends, &buffers)
            }
            None => (x.chunks_exact(tokens * width).zip(ends))
                .flat_map(|(x, end)| &x[end * width..(end + 1) * width])
                .copied()
                .collect(),
        };
        let mut normed = vec![0.0; read.len()];
        self.ln_final.apply(&read, &mut normed);
        let dim = self.projection.len() / width;
        let mut out = vec![0.0; ends.len() * dim];
        let projection = Affine {
            weight: self.projection,
            bias: &vec![0.0; dim],
        };
        Share::All.apply(&projection, &normed, 0..dim, &mut out, Then::Nothing);
        out
    }
}

/// The block that computes with weights as they lie.
fn block_of<'a>(
    p: &BlockParameters<'a>,
    attention: Attention,
    activation: Activation,
) -> Block<'a, Transposed<'a>> {
    let map = |(weight, bias)| Transposed { weight, bias };
    Block {
        ln_1: p.ln_1,
        in_proj: map(p.in_proj),
        out_proj: map(p.out_proj),
        ln_2: p.ln_2,
        c_fc: map(p.c_fc),
        c_proj: map(p.c_proj),
        activation,
        attention,
    }
}
