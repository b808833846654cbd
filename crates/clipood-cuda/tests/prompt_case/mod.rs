//! A training of prompts on the emulated device, and the same by its definition in float64.

use clipood_cuda::Result;
use clipood_cuda::card::Card;
use clipood_cuda::precision::Precision;
use clipood_cuda::prompt::{
    Batch, Loss, LossKind, PromptPlan, PromptStep, PromptTask, PromptTokens, StepResult,
};
use clipood_cuda::rows::Activation;
use clipood_cuda::text::weights::TextSizes;

use crate::host::Emulated;
use crate::oracle::{self, Exact, Sizes, Tower, apart, normals, random_tower, unit_rows};

pub const VOCABULARY: usize = 20;
const SCALE: f64 = 30.0;
const CARD: Card = Card {
    multiprocessors: 3,
    shared_per_block: 232_448,
    shared_per_multiprocessor: 233_472,
};

/// A token of a prompt: an id, or a vector of the context.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Piece {
    Id(usize),
    Context(usize),
}

pub struct Case {
    pub sizes: Sizes,
    pub tower: Tower,
    pub prompts: Vec<Vec<Piece>>,
    pub shared: usize,
    pub contexts: usize,
    pub images: Vec<f32>,
    pub patches: Vec<f32>,
    pub labels: Vec<i32>,
}

pub fn sizes(width: usize, heads: usize, layers: usize, quick_gelu: bool) -> Sizes {
    Sizes {
        width,
        heads,
        layers,
        context: 77,
        dim: 24,
        quick_gelu,
    }
}

impl Case {
    /// Prompts that share their first `shared` tokens, and random images; labels go round.
    pub fn new(sizes: Sizes, prompts: Vec<Vec<Piece>>, shared: usize, contexts: usize) -> Self {
        let (images, patches) = (5, 3);
        let mut state = 7;
        let mut random = |rows: usize| {
            let mut values = normals(&mut state, rows * sizes.dim, 1.0);
            unit_rows(&mut values, sizes.dim);
            values
        };
        Self {
            sizes,
            tower: random_tower(&sizes, VOCABULARY, 3),
            shared,
            contexts,
            images: random(images),
            patches: random(images * patches),
            labels: (0..images).map(|i| (i % prompts.len()) as i32).collect(),
            prompts,
        }
    }

    pub fn context(&self) -> Vec<f32> {
        normals(&mut 11, self.contexts * self.sizes.width, 0.2)
    }

    pub fn step(
        &self,
        precision: Precision,
        loss: Loss,
        descending: bool,
        resident: bool,
    ) -> Result<PromptStep<Emulated>> {
        let Sizes {
            width,
            heads,
            layers,
            context,
            dim,
            quick_gelu,
        } = self.sizes;
        let own = self
            .prompts
            .iter()
            .flat_map(|prompt| &prompt[self.shared..]);
        let index: Vec<i32> = self.prompts[0][..self.shared]
            .iter()
            .chain(own)
            .map(|piece| match piece {
                Piece::Id(id) => *id as i32,
                Piece::Context(vector) => (VOCABULARY + vector) as i32,
            })
            .collect();
        let lengths: Vec<usize> = self
            .prompts
            .iter()
            .map(|prompt| prompt.len() - self.shared)
            .collect();
        let patches = if loss.kind == LossKind::Coop {
            0
        } else {
            self.patches.len() / self.images.len()
        };
        let local: &[f32] = if patches > 0 { &self.patches } else { &[] };
        let task = PromptTask {
            parameters: &|name| self.tower.get(name).map(Vec::as_slice),
            sizes: TextSizes {
                width,
                heads,
                layers,
                context,
                dim,
                activation: if quick_gelu {
                    Activation::QuickGelu
                } else {
                    Activation::Gelu
                },
            },
            precision,
            tokens: PromptTokens {
                fixed: &self.tower["token_embedding.weight"],
                index: &index,
                shared: self.shared,
                lengths: &lengths,
                contexts: self.contexts,
            },
            loss,
            logit_scale: SCALE as f32,
            images: self.labels.len(),
            patches,
            resident: resident.then_some((self.images.as_slice(), local)),
        };
        let mut plan = PromptPlan::new(&task, &CARD)?;
        let program = plan.program().clone();
        let device = Emulated::new(&program, plan.space(), descending);
        PromptStep::new(plan, device)
    }

    pub fn run(
        &self,
        step: &mut PromptStep<Emulated>,
        loss: Loss,
        context: &[f32],
    ) -> Result<StepResult> {
        let local: &[f32] = if loss.kind == LossKind::Coop {
            &[]
        } else {
            &self.patches
        };
        step.run(context, Batch::Features(&self.images, local), &self.labels)
    }

    fn exact_features(&self, exact: &Exact, context: &[f64]) -> Vec<Vec<f64>> {
        let width = self.sizes.width;
        let table = &self.tower["token_embedding.weight"];
        let texts = self.prompts.iter().map(|prompt| {
            let mut tokens = Vec::with_capacity(prompt.len() * width);
            for piece in prompt {
                match piece {
                    Piece::Id(id) => tokens.extend(
                        table[id * width..(id + 1) * width]
                            .iter()
                            .map(|v| f64::from(*v)),
                    ),
                    Piece::Context(vector) => {
                        tokens.extend(&context[vector * width..(vector + 1) * width])
                    }
                }
            }
            exact.feature(&tokens)
        });
        texts.collect()
    }

    fn exact_loss(
        &self,
        exact: &Exact,
        loss: oracle::Loss,
        context: &[f64],
    ) -> (f64, usize, usize) {
        let texts = self.exact_features(exact, context);
        oracle::loss(
            loss,
            &texts,
            &self.images,
            &self.patches,
            &self.labels,
            SCALE,
        )
    }

    /// Features, loss and gradient within the tolerances `[features, loss, gradient]`.
    pub fn check(
        &self,
        precision: Precision,
        loss: oracle::Loss,
        [features, value, gradient]: [f64; 3],
    ) -> Result<()> {
        let kind = match loss {
            oracle::Loss::Coop => Loss {
                kind: LossKind::Coop,
                lambda: 0.0,
                top_k: 1,
            },
            oracle::Loss::Locoop(lambda, top_k) => Loss {
                kind: LossKind::Locoop,
                lambda: lambda as f32,
                top_k,
            },
            oracle::Loss::Sct(lambda, top_k) => Loss {
                kind: LossKind::Sct,
                lambda: lambda as f32,
                top_k,
            },
        };
        let context = self.context();
        let mut step = self.step(precision, kind, false, false)?;
        let found = self.run(&mut step, kind, &context)?;
        let exact = Exact::new(&self.tower, self.sizes);
        let wide: Vec<f64> = context.iter().map(|v| f64::from(*v)).collect();
        let mut texts = self.exact_features(&exact, &wide);
        for text in &mut texts {
            let length = text.iter().map(|v| v * v).sum::<f64>().sqrt();
            text.iter_mut().for_each(|v| *v /= length);
        }
        let error = apart(&step.features(&context)?, &texts.concat());
        assert!(
            error < features,
            "{precision:?} {loss:?}: features {error:e}"
        );
        let (expected, selected, right) = self.exact_loss(&exact, loss, &wide);
        assert!(
            (f64::from(found.loss) - expected).abs() < value * expected.abs(),
            "{} for {expected}",
            found.loss
        );
        assert_eq!(
            (found.selected, found.right),
            (selected, right),
            "{precision:?} {loss:?}"
        );
        // Some coordinates, of every vector: their neighbours go through the same code.
        let (mut sampled, mut differences) = (Vec::new(), Vec::new());
        for at in (0..wide.len()).step_by((wide.len() / 40).max(1) | 1) {
            let moved = |by: f64| {
                let mut context = wide.clone();
                context[at] += by;
                self.exact_loss(&exact, loss, &context).0
            };
            differences.push((moved(1e-4) - moved(-1e-4)) / 2e-4);
            sampled.push(found.gradient[at]);
        }
        let error = apart(&sampled, &differences);
        assert!(
            error < gradient,
            "{precision:?} {loss:?}: gradient {error:e}"
        );
        // The other order of threads and the features kept on the device: the same to the bit.
        let mut again = self.step(precision, kind, true, true)?;
        let rows: Vec<i32> = (0..self.labels.len() as i32).collect();
        assert_eq!(
            again.run(&context, Batch::Rows(&rows), &self.labels)?,
            found
        );
        Ok(())
    }
}
