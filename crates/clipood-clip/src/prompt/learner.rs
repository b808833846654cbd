//! The learnable context and its place in the class prompts.

use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Int, Tensor, TensorData};
use clipood_core::{ClassToken, SplitMix64};
use serde::{Deserialize, Serialize};

use crate::encoder::normalise;
use crate::error::{ClipError, Result};
use crate::kernels::ClipBackend;
use crate::text::TextTransformer;
use crate::tokenizer::{EOT, SOT, Tokenizer};

/// Shape and initial values of the learnable context. The serialised form can be part of a fingerprint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptOptions {
    /// Number of context vectors, unless `ctx_init` gives it.
    pub n_ctx: usize,
    /// Words whose token embeddings are the initial context, one vector per token; otherwise it is drawn from N(0, 0.02).
    pub ctx_init: Option<String>,
    /// Position of the class name relative to the context.
    pub class_token: ClassToken,
    /// One context per class instead of one for all.
    pub class_specific: bool,
}

/// Static part of the prompts of a class list. The context itself is a parameter of the methods, so that an optimizer can own
/// it.
#[derive(Debug, Clone)]
pub struct PromptLearner<B: Backend> {
    layout: PromptLayout,
    /// Embeddings of the fixed tokens `[fixed, width]`.
    fixed: Tensor<B, 2>,
    index: Tensor<B, 1, Int>,
}

/// The tokens of the prompts of a class list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PromptLayout {
    classes: usize,
    n_ctx: usize,
    class_specific: bool,
    /// Ids of the fixed tokens, each once, ascending.
    pub ids: Vec<u32>,
    /// Place in `ids` or, beyond it, row of the context: first the tokens that all prompts start with, then the others of
    /// each prompt up to its end, `[shared + sum of lengths]`.
    pub index: Vec<i32>,
    /// Tokens that all prompts start with.
    pub shared: usize,
    /// Further tokens of each prompt.
    pub lengths: Vec<usize>,
}

impl PromptLayout {
    /// Tokenizes the class names (underscores read as spaces, a full stop added) for a tower of `context` tokens.
    ///
    /// # Errors
    /// No class, no context vector, or a name that does not fit the context.
    pub fn new(
        tokenizer: &Tokenizer,
        context: usize,
        names: &[String],
        options: &PromptOptions,
    ) -> Result<Self> {
        let n_ctx = match &options.ctx_init {
            Some(words) => tokenizer.encode(&words.replace('_', " ")).len(),
            None => options.n_ctx,
        };
        if names.is_empty() || n_ctx == 0 {
            return Err(ClipError::Text(format!(
                "a prompt needs classes and context vectors, found {} and {n_ctx}",
                names.len()
            )));
        }
        let mut tails = Vec::with_capacity(names.len());
        for name in names {
            let name = name.replace('_', " ");
            let own = tokenizer.encode(&name).len();
            let mut tail = tokenizer.encode(&format!("{name}."));
            tail.push(EOT);
            let length = 1 + n_ctx + tail.len();
            if length > context {
                return Err(ClipError::Text(format!(
                    "class name `{name}` with {n_ctx} context vectors takes {length} tokens, the context has {context}"
                )));
            }
            tails.push((tail, own));
        }
        let classes = names.len();
        let prompts: Vec<Vec<Piece>> = tails
            .iter()
            .enumerate()
            .map(|(class, (tail, own))| {
                let first = if options.class_specific {
                    class * n_ctx
                } else {
                    0
                };
                pieces(tail, *own, first, n_ctx, options.class_token)
            })
            .collect();
        // At least the end of each prompt is its own.
        let shortest = prompts.iter().map(Vec::len).min().unwrap_or(1);
        let shared = (0..shortest - 1)
            .take_while(|i| prompts.iter().all(|prompt| prompt[*i] == prompts[0][*i]))
            .count();
        let packed: Vec<Piece> = (prompts[0][..shared].iter())
            .chain(prompts.iter().flat_map(|prompt| &prompt[shared..]))
            .copied()
            .collect();
        let mut ids: Vec<u32> = packed
            .iter()
            .filter_map(|piece| match piece {
                Piece::Token(id) => Some(*id),
                Piece::Context(_) => None,
            })
            .collect();
        ids.sort_unstable();
        ids.dedup();
        let index: Vec<i32> = packed
            .iter()
            .map(|piece| match piece {
                Piece::Token(id) => ids.partition_point(|other| other < id) as i32,
                Piece::Context(row) => (ids.len() + row) as i32,
            })
            .collect();
        Ok(Self {
            classes,
            n_ctx,
            class_specific: options.class_specific,
            lengths: prompts.iter().map(|prompt| prompt.len() - shared).collect(),
            ids,
            index,
            shared,
        })
    }

    /// Rows of the context: `n_ctx`, or `classes * n_ctx` when it is class-specific.
    pub fn context_rows(&self) -> usize {
        if self.class_specific {
            self.classes * self.n_ctx
        } else {
            self.n_ctx
        }
    }

    /// The context before the first step, row-major `[rows, width]`: the embeddings of the initial words, which `embed` gives
    /// `[ids, width]`, or draws from N(0, 0.02).
    ///
    /// # Errors
    /// Those of `embed`.
    pub fn initial_context(
        &self,
        (tokenizer, width): (&Tokenizer, usize),
        options: &PromptOptions,
        seed: u64,
        embed: impl FnOnce(&[u32]) -> Result<Vec<f32>>,
    ) -> Result<Vec<f32>> {
        match &options.ctx_init {
            Some(words) => {
                let vectors = embed(&tokenizer.encode(&words.replace('_', " ")))?;
                let copies = if self.class_specific { self.classes } else { 1 };
                Ok(vectors.repeat(copies))
            }
            None => {
                let mut rng = SplitMix64::keyed(seed, "prompt context", 0);
                Ok((0..self.context_rows() * width)
                    .map(|_| (0.02 * rng.normal()) as f32)
                    .collect())
            }
        }
    }
}

impl<B: ClipBackend> PromptLearner<B> {
    /// Tokenizes the class names (underscores read as spaces, a full stop added) and embeds them once.
    ///
    /// # Errors
    /// No class, no context vector, or a name that does not fit the context.
    pub fn new(
        text: &TextTransformer<B>,
        tokenizer: &Tokenizer,
        names: &[String],
        options: &PromptOptions,
    ) -> Result<Self> {
        let layout = PromptLayout::new(tokenizer, text.context(), names, options)?;
        let fixed = text.embed(&layout.ids, layout.ids.len(), 1)?;
        let data = TensorData::new(layout.index.clone(), [layout.index.len()]);
        let index = Tensor::from_data(data, &fixed.device());
        Ok(Self {
            fixed: fixed.reshape([layout.ids.len(), text.width()]),
            index,
            layout,
        })
    }

    /// Rows of the context: `n_ctx`, or `classes * n_ctx` when it is class-specific.
    pub fn context_rows(&self) -> usize {
        self.layout.context_rows()
    }

    /// Normalised text features `[classes, D]` with the context `[rows, width]`.
    ///
    /// # Errors
    /// The context has another number of rows.
    pub fn text_features(
        &self,
        text: &TextTransformer<B>,
        context: Tensor<B, 2>,
    ) -> Result<Tensor<B, 2>> {
        let [rows, _] = context.dims();
        if rows != self.context_rows() {
            return Err(ClipError::Input {
                what: "context vectors",
                expected: self.context_rows(),
                found: rows,
            });
        }
        // The context is kept in float32, and so are the features, whatever the frozen tower's format.
        let context = context.cast(text.dtype());
        let rows = Tensor::cat(vec![self.fixed.clone(), context], 0).select(0, self.index.clone());
        let features = text.forward_packed(rows, self.layout.shared, &self.layout.lengths)?;
        Ok(normalise(features.cast(FloatDType::F32)))
    }

    /// The context before the first step, row-major `[rows, width]`: the embeddings of the initial words, or draws
    /// from N(0, 0.02).
    ///
    /// # Errors
    /// An initial word is not in the vocabulary (it always is).
    pub fn initial_context(
        &self,
        text: &TextTransformer<B>,
        tokenizer: &Tokenizer,
        options: &PromptOptions,
        seed: u64,
    ) -> Result<Vec<f32>> {
        let embed = |ids: &[u32]| {
            Ok(crate::weights::tensor_to_vec(text.embed(
                ids,
                1,
                ids.len(),
            )?))
        };
        let of = (tokenizer, text.width());
        self.layout.initial_context(of, options, seed, embed)
    }
}

/// One token of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// A fixed one, by its id.
    Token(u32),
    /// A row of the context.
    Context(usize),
}

/// A prompt up to its end: the start, the context rows from `first`, and the name's tokens at their place; `tail` is the
/// name (its first `own` tokens), a full stop and the end.
fn pieces(
    tail: &[u32],
    own: usize,
    first: usize,
    n_ctx: usize,
    class_token: ClassToken,
) -> Vec<Piece> {
    let (before, own) = match class_token {
        // A name at the end keeps its full stop beside it in any case.
        ClassToken::End => (n_ctx, tail.len()),
        ClassToken::Middle => (n_ctx / 2, own),
        ClassToken::Front => (0, own),
    };
    let context = |range: std::ops::Range<usize>| range.map(move |i| Piece::Context(first + i));
    let tokens = |ids: &[u32]| ids.iter().map(|id| Piece::Token(*id)).collect::<Vec<_>>();
    let mut row = vec![Piece::Token(SOT)];
    row.extend(context(0..before));
    row.extend(tokens(&tail[..own]));
    row.extend(context(before..n_ctx));
    row.extend(tokens(&tail[own..]));
    row
}
