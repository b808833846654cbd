//! The text tower: a causal transformer read out at the end-of-text token (`clip/model.py` of openai/CLIP).
//!
//! Attention is causal, so tokens after the longest end-of-text have no effect: every function takes as many tokens as
//! the caller passes, and [`cut`] shortens rows to the longest end-of-text. Where many texts share their first tokens (a learned context),
//! `forward_shared` runs those once and lets each text's few own tokens attend to their keys and values; the features are
//! those of [`TextTransformer::forward`].

use burn::module::{Module, Param};
use burn::nn::LayerNorm;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, DType, FloatDType, Int, Tensor, TensorData, TensorPrimitive};

use crate::config::ClipConfig;
use crate::error::{ClipError, Result};
use crate::kernels::ClipBackend;
use crate::layers::{
    ResidualBlock, cast, layer_norm, load_layer_norm, primitive, save_layer_norm, tokens_at,
};
use crate::weights::Weights;

/// Token embedding, transformer and projection.
#[derive(Module, Debug)]
pub struct TextTransformer<B: Backend> {
    token_embedding: Param<Tensor<B, 2>>,
    positional_embedding: Param<Tensor<B, 2>>,
    blocks: Vec<ResidualBlock<B>>,
    ln_final: LayerNorm<B>,
    projection: Param<Tensor<B, 2>>,
}

/// Token ids of several texts, cut at the longest end-of-text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    /// Texts.
    pub rows: usize,
    /// Tokens per row, at most the model's context.
    pub length: usize,
    /// Row-major `[rows, length]`.
    pub ids: Vec<u32>,
    /// Position of the end-of-text token of each row.
    pub ends: Vec<usize>,
}

/// Cuts zero-padded rows of `context` ids at the longest end-of-text. As in the reference, a row's features are read
/// at its largest id, which is the end-of-text token.
///
/// # Errors
/// The ids are not whole rows, or there are none.
pub fn cut(ids: &[u32], context: usize) -> Result<TokenBatch> {
    if context == 0 || ids.is_empty() || !ids.len().is_multiple_of(context) {
        return Err(ClipError::Input {
            what: "token ids, whole rows of one context",
            expected: context.max(1),
            found: ids.len(),
        });
    }
    let rows: Vec<&[u32]> = ids.chunks_exact(context).collect();
    let ends: Vec<usize> = rows.iter().map(|row| end_of_text(row)).collect();
    let length = ends.iter().max().map_or(1, |end| end + 1);
    Ok(TokenBatch {
        rows: rows.len(),
        length,
        ids: rows
            .iter()
            .flat_map(|row| &row[..length])
            .copied()
            .collect(),
        ends,
    })
}

/// First position of the largest id.
fn end_of_text(row: &[u32]) -> usize {
    let mut best = 0;
    for (i, id) in row.iter().enumerate() {
        if *id > row[best] {
            best = i;
        }
    }
    best
}

impl<B: ClipBackend> TextTransformer<B> {
    /// Reads the tower.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(weights: &Weights, config: &ClipConfig, device: &B::Device) -> Result<Self> {
        let text = &config.text;
        let blocks = (0..text.layers)
            .map(|i| {
                ResidualBlock::load(
                    weights,
                    &format!("transformer.resblocks.{i}"),
                    text.width,
                    text.heads,
                    config.activation,
                    device,
                )
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            token_embedding: weights.param(
                "token_embedding.weight",
                [text.vocab, text.width],
                device,
            )?,
            positional_embedding: weights.param(
                "positional_embedding",
                [text.context, text.width],
                device,
            )?,
            blocks,
            ln_final: load_layer_norm(weights, "ln_final", text.width, device)?,
            projection: weights.param("text_projection", [text.width, config.embed_dim], device)?,
        })
    }

    /// Writes the tower back.
    pub fn save(&self, weights: &mut Weights) {
        weights.store("token_embedding.weight", self.token_embedding.val());
        weights.store("positional_embedding", self.positional_embedding.val());
        for (i, block) in self.blocks.iter().enumerate() {
            block.save(weights, &format!("transformer.resblocks.{i}"));
        }
        save_layer_norm(&self.ln_final, weights, "ln_final");
        weights.store("text_projection", self.projection.val());
    }

    /// The tower in another number format; its norms stay float32.
    #[must_use]
    pub fn cast(self, dtype: FloatDType) -> Self {
        Self {
            token_embedding: cast(self.token_embedding, dtype),
            positional_embedding: cast(self.positional_embedding, dtype),
            blocks: self.blocks.into_iter().map(|b| b.cast(dtype)).collect(),
            ln_final: self.ln_final,
            projection: cast(self.projection, dtype),
        }
    }

    /// The number format of parameters and activations.
    pub fn dtype(&self) -> FloatDType {
        self.token_embedding.val().dtype().into()
    }

    /// The device that holds the parameters.
    pub(crate) fn device(&self) -> B::Device {
        self.token_embedding.device()
    }

    /// Width of the token embedding.
    pub fn width(&self) -> usize {
        self.token_embedding.dims()[1]
    }

    /// Tokens of a full context.
    pub fn context(&self) -> usize {
        self.positional_embedding.dims()[0]
    }

    /// Static embeddings of `ids` (row-major `[rows, length]`), positions not added: `[rows, length, width]`.
    ///
    /// # Errors
    /// An id is outside the vocabulary, or the ids do not fill the rows.
    pub fn embed(&self, ids: &[u32], rows: usize, length: usize) -> Result<Tensor<B, 3>> {
        if ids.len() != rows * length || ids.is_empty() {
            return Err(ClipError::Input {
                what: "token ids",
                expected: rows * length,
                found: ids.len(),
            });
        }
        let [vocab, width] = self.token_embedding.dims();
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
            return Err(ClipError::Text(format!(
                "token id {id} is outside the vocabulary of {vocab}"
            )));
        }
        let device = self.token_embedding.device();
        let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let index = Tensor::<B, 1, Int>::from_data(TensorData::new(ids, [rows * length]), &device);
        Ok(self
            .token_embedding
            .val()
            .select(0, index)
            .reshape([rows, length, width]))
    }

    /// Text features before normalisation `[rows, D]` of token ids.
    ///
    /// # Errors
    /// An id is outside the vocabulary, or the batch is longer than the context.
    pub fn encode(&self, batch: &TokenBatch) -> Result<Tensor<B, 2>> {
        let embedded = self.embed(&batch.ids, batch.rows, batch.length)?;
        self.forward(embedded, &batch.ends)
    }

    /// Embedded tokens `[rows, length, width]`, positions not added -> features `[rows, D]`, read at `ends`.
    ///
    /// # Errors
    /// The rows are longer than the context, or an end lies outside its row.
    pub fn forward(&self, embedded: Tensor<B, 3>, ends: &[usize]) -> Result<Tensor<B, 2>> {
        let [rows, length, _] = embedded.dims();
        self.check_length(length)?;
        check_ends(ends, rows, length)?;
        let positions = self.positional_embedding.val().narrow(0, 0, length);
        let mut x = embedded + positions.unsqueeze::<3>();
        let Some((last, blocks)) = self.blocks.split_last() else {
            return Ok(self.read_out(tokens_at(x, ends)));
        };
        for block in blocks {
            x = block.forward(x, true);
        }
        Ok(self.read_out(last.forward_at(x, true, ends)))
    }

    /// Texts that start with the same `prefix` `[1, shared, width]` and go on with their own `suffix`
    /// `[rows, own, width]` (positions not added); `ends` count from the suffix's first token. The features of
    /// [`TextTransformer::forward`] on the concatenation, at a fraction of the work.
    ///
    /// # Errors
    /// Prefix and suffix together are longer than the context, or an end lies outside the suffix.
    pub(crate) fn forward_shared(
        &self,
        prefix: Tensor<B, 3>,
        suffix: Tensor<B, 3>,
        ends: &[usize],
    ) -> Result<Tensor<B, 2>> {
        let shared = prefix.dims()[1];
        let [rows, own, _] = suffix.dims();
        self.check_length(shared + own)?;
        check_ends(ends, rows, own)?;
        let positions = self.positional_embedding.val();
        let mut p = prefix + positions.clone().narrow(0, 0, shared).unsqueeze::<3>();
        let mut x = suffix + positions.narrow(0, shared, own).unsqueeze::<3>();
        let device = x.device();
        let last = self.blocks.len();
        for (i, block) in self.blocks.iter().enumerate() {
            let heads = block.heads();
            let mask = suffix_mask::<B>(rows, heads, shared, own, &device);
            let (next, kv) = if i + 1 == last {
                (None, block.keys_values(p.clone()))
            } else {
                let (next, kv) = block.forward_prefix(p.clone());
                (Some(next), kv)
            };
            x = block.forward_suffix(x, &kv, mask);
            if let Some(next) = next {
                p = next;
            }
        }
        Ok(self.read_out(tokens_at(x, ends)))
    }

    /// Texts without padding: `rows` `[shared + sum of lengths, width]` are embedded tokens (positions not added), first
    /// the `shared` ones that every text starts with, then the others of each text, whose last is its end. The features
    /// of [`TextTransformer::forward`]; gradients reach `rows` as long as the tower is frozen.
    ///
    /// # Errors
    /// A text is empty or longer than the context, or the rows are not as many.
    pub(crate) fn forward_packed(
        &self,
        rows: Tensor<B, 2>,
        shared: usize,
        lengths: &[usize],
    ) -> Result<Tensor<B, 2>> {
        let [found, width] = rows.dims();
        let expected = shared + lengths.iter().sum::<usize>();
        let longest = lengths.iter().max().copied().unwrap_or(0);
        self.check_length(shared + longest)?;
        if found != expected || lengths.contains(&0) || lengths.is_empty() {
            return Err(ClipError::Input {
                what: "rows of texts that are not empty",
                expected,
                found,
            });
        }
        let device = rows.device();
        let index = |values: Vec<i32>| {
            let shape = [values.len()];
            Tensor::<B, 1, Int>::from_data(TensorData::new(values, shape), &device)
        };
        let blocks: Option<Vec<_>> = self.blocks.iter().map(ResidualBlock::parameters).collect();
        if let Some(blocks) = blocks.filter(|_| rows.dtype() == DType::F32) {
            let own = |length: &usize| (shared..shared + length).map(|i| i as i32);
            let positions = (0..shared as i32).chain(lengths.iter().flat_map(own));
            let positions = index(positions.collect());
            let x = rows.clone() + self.positional_embedding.val().select(0, positions);
            if let Some(ends) = B::frozen_tower(&primitive(x), &blocks, shared, lengths) {
                return Ok(self.read_out(Tensor::from_primitive(TensorPrimitive::Float(ends))));
            }
        }
        // Padded with rows that no token attends to.
        let mut padded = Vec::with_capacity(lengths.len() * longest);
        let mut first = shared;
        for length in lengths {
            padded.extend((0..longest).map(|i| (first + i.min(length - 1)) as i32));
            first += length;
        }
        let suffix = rows.clone().select(0, index(padded));
        let suffix = suffix.reshape([lengths.len(), longest, width]);
        let ends: Vec<usize> = lengths.iter().map(|length| length - 1).collect();
        if shared == 0 {
            return self.forward(suffix, &ends);
        }
        let prefix = rows.narrow(0, 0, shared).unsqueeze::<3>();
        self.forward_shared(prefix, suffix, &ends)
    }

    /// Layer norm and projection of each row's end token `[rows, width]`.
    fn read_out(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        layer_norm(&self.ln_final, x).matmul(self.projection.val())
    }

    fn check_length(&self, length: usize) -> Result<()> {
        if length > self.context() {
            return Err(ClipError::Text(format!(
                "{length} tokens exceed the context of {}",
                self.context()
            )));
        }
        Ok(())
    }
}

fn check_ends(ends: &[usize], rows: usize, length: usize) -> Result<()> {
    if ends.len() != rows {
        return Err(ClipError::Input {
            what: "end-of-text positions, one per row",
            expected: rows,
            found: ends.len(),
        });
    }
    if let Some(end) = ends.iter().find(|end| **end >= length) {
        return Err(ClipError::Input {
            what: "an end-of-text position inside its row",
            expected: length,
            found: *end,
        });
    }
    Ok(())
}

/// True where token `i` of the suffix must not look: at later tokens of its own suffix.
fn suffix_mask<B: Backend>(
    rows: usize,
    heads: usize,
    shared: usize,
    own: usize,
    device: &B::Device,
) -> Tensor<B, 4, Bool> {
    let total = shared + own;
    let forbidden: Vec<bool> = (0..own)
        .flat_map(|i| (0..total).map(move |j| j > shared + i))
        .collect();
    Tensor::<B, 2, Bool>::from_data(TensorData::new(forbidden, [own, total]), device)
        .reshape([1, 1, own, total])
        .expand([rows, heads, own, total])
}
