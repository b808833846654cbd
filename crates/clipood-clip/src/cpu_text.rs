//! The text tower on the CPU, by the kernels of [`clipood_kernels`] alone, on the weights where they lie.

use std::sync::Arc;

use clipood_kernels::text::Text;

use crate::config::ClipConfig;
use crate::error::{ClipError, Result};
use crate::named::Named;
use crate::text::TokenBatch;
use crate::weights::Weights;

/// A text tower whose shapes have been checked.
#[derive(Debug, Clone)]
pub(crate) struct CpuText {
    weights: Arc<Weights>,
    config: ClipConfig,
}

/// The tower's tensors.
struct Parts<'a> {
    /// `[vocabulary, width]`.
    embedding: &'a [f32],
    /// `[context, width]`.
    positions: &'a [f32],
    text: Text<'a>,
}

impl CpuText {
    /// Looks the tensors up.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn new(weights: Arc<Weights>, config: &ClipConfig) -> Result<Self> {
        let tower = Self {
            weights,
            config: config.clone(),
        };
        tower.parts()?;
        Ok(tower)
    }

    fn parts(&self) -> Result<Parts<'_>> {
        let text = &self.config.text;
        let width = text.width;
        let named = Named {
            weights: &self.weights,
            prefix: "",
        };
        Ok(Parts {
            embedding: named.tensor("token_embedding.weight", &[text.vocab, width])?,
            positions: named.tensor("positional_embedding", &[text.context, width])?,
            text: Text {
                blocks: (0..text.layers)
                    .map(|i| named.block(i, width))
                    .collect::<Result<_>>()?,
                heads: text.heads,
                activation: self.config.activation.into(),
                ln_final: named.norm("ln_final", width)?,
                projection: named.tensor("text_projection", &[width, self.config.embed_dim])?,
            },
        })
    }

    /// Features before normalisation, row-major `[rows, D]`.
    ///
    /// # Errors
    /// An id is outside the vocabulary, or the rows are longer than the context.
    pub fn encode(&self, batch: &TokenBatch) -> Result<Vec<f32>> {
        let parts = self.parts()?;
        let (width, context) = (self.config.text.width, self.config.text.context);
        if batch.length > context {
            return Err(ClipError::Text(format!(
                "{} tokens exceed the context of {context}",
                batch.length
            )));
        }
        let mut x = Vec::with_capacity(batch.ids.len() * width);
        for row in batch.ids.chunks_exact(batch.length) {
            for (id, position) in row.iter().zip(parts.positions.chunks_exact(width)) {
                let at = *id as usize * width;
                let Some(token) = parts.embedding.get(at..at + width) else {
                    return Err(ClipError::Text(format!(
                        "token id {id} is outside the vocabulary of {}",
                        self.config.text.vocab
                    )));
                };
                x.extend(token.iter().zip(position).map(|(t, p)| t + p));
            }
        }
        Ok(parts.text.forward(x, batch.length, &batch.ends))
    }
}
