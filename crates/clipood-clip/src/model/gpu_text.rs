//! The text tower on NVIDIA GPUs: by the kernels of `clipood-cuda`, or by Burn's own operations.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use burn_cuda::Cuda;
use clipood_cuda::CudaError;
use clipood_cuda::card::Card;
use clipood_cuda::gpu::Gpu;
use clipood_cuda::on_gpu::OnGpu;
use clipood_cuda::precision::Precision;
use clipood_cuda::rows;
use clipood_cuda::text::encoder::{TextPass, TextPlan};
use clipood_cuda::text::weights::TextSizes;

use super::Model;
use crate::config::Activation;
use crate::device::{cuda, stock};
use crate::error::Result;
use crate::text::{TextTransformer, cut};
use crate::weights::try_tensor_to_vec;

/// Tokens that go through the tower at once: of a few texts, and at most. Fewer where the GPU's memory is short.
const FEW_ROWS: usize = 512;
const MOST_ROWS: usize = 8192;

/// Texts that go through Burn's operations at once.
const STOCK_BATCH: usize = 128;

/// The text tower of a model on a GPU, float32.
pub(super) struct GpuText {
    model: Model,
    index: usize,
    /// By the rows of a group of texts and the tokens at once: each has programs and memory of its own.
    passes: Mutex<BTreeMap<(usize, usize), TextPass<OnGpu>>>,
    /// Made when a model or a text first needs it.
    stock: OnceLock<TextTransformer<Cuda>>,
}

impl GpuText {
    /// Opens the GPU; the tower follows with the first texts.
    pub fn open(model: &Model, index: usize) -> Result<Self> {
        cuda::checked(index)?;
        Ok(Self {
            model: model.clone(),
            index,
            passes: Mutex::default(),
            stock: OnceLock::new(),
        })
    }

    /// Features before normalisation `[texts, D]` of zero-padded rows of `context` ids, as the tokenizer writes them.
    pub fn encode(&self, ids: &[u32], context: usize) -> Result<Vec<f32>> {
        match self.by_kernels(ids, context) {
            Ok(features) => Ok(features),
            Err(problem) if lacks_kernels(&problem) => self.by_burn(ids, context),
            Err(problem) => Err(problem.into()),
        }
    }

    fn by_kernels(&self, ids: &[u32], context: usize) -> std::result::Result<Vec<f32>, CudaError> {
        let gpu = cuda::opened(self.index)?;
        let rows: Vec<&[u32]> = ids.chunks_exact(context).collect();
        // The end of a text is its largest id, as in the reference.
        let texts: Vec<&[u32]> = rows.iter().map(|row| &row[..=end_of_text(row)]).collect();
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let tokens: usize = texts.iter().map(|text| text.len()).sum();
        let weights = &self.model.weights;
        let parameters = |name: &str| weights.get(name).map(|tensor| &tensor.data[..]);
        let mut at_once = if tokens <= FEW_ROWS {
            FEW_ROWS
        } else {
            MOST_ROWS
        };
        let mut passes = self.lock();
        loop {
            let key = (longest.next_multiple_of(32), at_once);
            let outcome = match passes.get_mut(&key) {
                Some(pass) => pass.encode(&texts, &parameters),
                None => match self.pass(&gpu, key) {
                    Ok(pass) => passes
                        .entry(key)
                        .or_insert(pass)
                        .encode(&texts, &parameters),
                    Err(problem) => Err(problem),
                },
            };
            match outcome {
                Err(problem) if problem.is_out_of_memory() && at_once > FEW_ROWS / 4 => {
                    passes.clear();
                    at_once /= 2;
                }
                other => return other,
            }
        }
    }

    fn pass(
        &self,
        gpu: &Gpu,
        (longest, rows): (usize, usize),
    ) -> std::result::Result<TextPass<OnGpu>, CudaError> {
        let sizes = text_sizes(&self.model);
        let weights = &self.model.weights;
        let parameters = |name: &str| weights.get(name).map(|tensor| &tensor.data[..]);
        let longest = longest.min(sizes.context);
        let of = (&sizes, Precision::F32);
        let mut plan = TextPlan::new(&parameters, of, (longest, rows), &Card::of(gpu)?)?;
        let program = plan.program().clone();
        let device = OnGpu::new(gpu, &program, plan.space())?;
        Ok(TextPass::new(plan, device))
    }

    fn by_burn(&self, ids: &[u32], context: usize) -> Result<Vec<f32>> {
        let tower = match self.stock.get() {
            Some(tower) => tower,
            None => {
                let device = stock::burn_device(self.index)?;
                let tower = self.model.text_tower::<Cuda>(&device)?;
                self.stock.get_or_init(|| tower)
            }
        };
        let mut features = Vec::new();
        for batch in ids.chunks(STOCK_BATCH * context) {
            features.extend(try_tensor_to_vec(tower.encode(&cut(batch, context)?)?)?);
        }
        Ok(features)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(usize, usize), TextPass<OnGpu>>> {
        self.passes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether Burn's operations can do what the kernels cannot.
pub(super) fn lacks_kernels(problem: &CudaError) -> bool {
    matches!(
        problem,
        CudaError::Unsupported(_) | CudaError::OldGpu(_) | CudaError::SharedMemory { .. }
    )
}

/// The sizes as `clipood-cuda` names them.
pub(super) fn text_sizes(model: &Model) -> TextSizes {
    let text = &model.config.text;
    TextSizes {
        width: text.width,
        heads: text.heads,
        layers: text.layers,
        context: text.context,
        dim: model.config.embed_dim,
        activation: match model.config.activation {
            Activation::QuickGelu => rows::Activation::QuickGelu,
            Activation::Gelu => rows::Activation::Gelu,
        },
    }
}

/// First place of the largest id.
fn end_of_text(row: &[u32]) -> usize {
    let mut best = 0;
    for (i, id) in row.iter().enumerate() {
        if *id > row[best] {
            best = i;
        }
    }
    best
}
