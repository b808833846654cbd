//! The learnable context and how it is woven into the class prompts.

use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Int, Tensor, TensorData};
use clipood_core::{ClassToken, SplitMix64};

use crate::encoder::normalise;
use crate::error::{ClipError, Result};
use crate::kernels::ClipBackend;
use crate::text::TextTransformer;
use crate::tokenizer::{EOT, SOT, Tokenizer};

/// Shape of the learnable context.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptOptions {
    /// Context vectors, when they are not given by words.
    pub n_ctx: usize,
    /// Words whose embeddings the context starts from.
    pub ctx_init: Option<String>,
    /// Where the name stands.
    pub class_token: ClassToken,
    /// One context for each class instead of one for all.
    pub class_specific: bool,
}

/// Static part of the prompts of a class list; the context itself is handed in, so that an optimizer owns it.
#[derive(Debug, Clone)]
pub struct PromptLearner<B: Backend> {
    classes: usize,
    n_ctx: usize,
    class_specific: bool,
    layout: Layout<B>,
}

#[derive(Debug, Clone)]
enum Layout<B: Backend> {
    /// Context shared, name at the end: the start is the same for every class.
    Shared {
        /// Embedding of the start token `[1, 1, width]`.
        start: Tensor<B, 3>,
        /// Name, full stop, end and padding `[classes, own, width]`.
        suffix: Tensor<B, 3>,
        /// End-of-text position inside the suffix, a class.
        ends: Vec<usize>,
    },
    /// Everything else: rows are gathered from the static embeddings followed by the context vectors.
    Gathered {
        /// `[classes * length, width]`.
        fixed: Tensor<B, 2>,
        /// Row of `fixed` or, beyond it, of the context; `[classes * length]`.
        index: Tensor<B, 1, Int>,
        /// Tokens a prompt.
        length: usize,
        /// End-of-text position, a class.
        ends: Vec<usize>,
    },
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
        let context = text.context();
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
        let own = tails.iter().map(|(tail, _)| tail.len()).max().unwrap_or(1);
        let classes = names.len();
        let layout = if options.class_token == ClassToken::End && !options.class_specific {
            let mut ids = Vec::with_capacity(classes * own);
            for (tail, _) in &tails {
                ids.extend_from_slice(tail);
                ids.resize(ids.len() + own - tail.len(), 0);
            }
            Layout::Shared {
                start: text.embed(&[SOT], 1, 1)?,
                suffix: text.embed(&ids, classes, own)?,
                ends: tails.iter().map(|(tail, _)| tail.len() - 1).collect(),
            }
        } else {
            let length = 1 + n_ctx + own;
            let mut ids = vec![0u32; classes * length];
            let mut index: Vec<i32> = (0..(classes * length) as i32).collect();
            for (class, (tail, own)) in tails.iter().enumerate() {
                let before = match options.class_token {
                    ClassToken::End => n_ctx,
                    ClassToken::Middle => n_ctx / 2,
                    ClassToken::Front => 0,
                };
                // A name at the end keeps its full stop beside it in any case.
                let own = match options.class_token {
                    ClassToken::End => tail.len(),
                    _ => *own,
                };
                let mut row: Vec<Piece> = vec![Piece::Token(SOT)];
                row.extend((0..before).map(Piece::Context));
                row.extend(tail[..own].iter().map(|id| Piece::Token(*id)));
                row.extend((before..n_ctx).map(Piece::Context));
                row.extend(tail[own..].iter().map(|id| Piece::Token(*id)));
                for (position, piece) in row.into_iter().enumerate() {
                    let at = class * length + position;
                    match piece {
                        Piece::Token(id) => ids[at] = id,
                        Piece::Context(i) => {
                            let vector = if options.class_specific {
                                class * n_ctx + i
                            } else {
                                i
                            };
                            index[at] = (classes * length + vector) as i32;
                        }
                    }
                }
            }
            let fixed = text.embed(&ids, classes, length)?;
            let device = fixed.device();
            Layout::Gathered {
                fixed: fixed.reshape([classes * length, text.width()]),
                index: Tensor::from_data(TensorData::new(index, [classes * length]), &device),
                length,
                ends: tails.iter().map(|(tail, _)| n_ctx + tail.len()).collect(),
            }
        };
        Ok(Self {
            classes,
            n_ctx,
            class_specific: options.class_specific,
            layout,
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
        let features = match &self.layout {
            Layout::Shared {
                start,
                suffix,
                ends,
            } => {
                let prefix = Tensor::cat(vec![start.clone(), context.unsqueeze::<3>()], 1);
                text.forward_shared(prefix, suffix.clone(), ends)?
            }
            Layout::Gathered {
                fixed,
                index,
                length,
                ends,
            } => {
                let width = fixed.dims()[1];
                let embedded = Tensor::cat(vec![fixed.clone(), context], 0)
                    .select(0, index.clone())
                    .reshape([self.classes, *length, width]);
                text.forward(embedded, ends)?
            }
        };
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
        let width = text.width();
        match &options.ctx_init {
            Some(words) => {
                let ids = tokenizer.encode(&words.replace('_', " "));
                let vectors = crate::weights::tensor_to_vec(text.embed(&ids, 1, ids.len())?);
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

enum Piece {
    Token(u32),
    Context(usize),
}
