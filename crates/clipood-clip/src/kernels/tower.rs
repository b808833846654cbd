//! The frozen text transformer of [`clipood_kernels::tower`] on Flex's tensors, and as one step of the autodiff graph.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients as GradientStore;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Shape, TensorData, TensorMetadata};
use clipood_kernels::tower::{Tape, Tower};

use super::block::{BlockParameters, Contiguous};

/// Unused tapes, kept for the next step: their memory is large, and allocating it again is expensive.
static SPARE: Mutex<Vec<Tape>> = Mutex::new(Vec::new());
/// Most tapes that are kept; more are freed.
const SPARE_TAPES: usize = 4;

fn take_spare() -> Tape {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    spare.pop().unwrap_or_default()
}

fn keep_spare(tape: Tape) {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    if spare.len() < SPARE_TAPES {
        spare.push(tape);
    }
}

/// Rows of embedded tokens `[shared + sum of lengths, width]` -> the last token of each text `[texts, width]`.
pub(super) fn on_flex(
    x: &FlexTensor,
    blocks: &[BlockParameters<Flex>],
    shared: usize,
    lengths: &[usize],
) -> FlexTensor {
    let frozen: Vec<Contiguous> = blocks.iter().map(Contiguous::of).collect();
    let mut tape = take_spare();
    let y = forward(x, &frozen, shared, lengths, &mut tape);
    keep_spare(tape);
    y
}

/// As [`on_flex`], tracked by autodiff; `None` where a parameter requires a gradient.
pub(super) fn on_autodiff<C: CheckpointStrategy>(
    x: &FloatTensor<Autodiff<Flex, C>>,
    blocks: &[BlockParameters<Autodiff<Flex, C>>],
    shared: usize,
    lengths: &[usize],
) -> Option<FloatTensor<Autodiff<Flex, C>>> {
    let frozen: Vec<Contiguous> = blocks
        .iter()
        .map(|block| Some(Contiguous::of(&untracked(block)?)))
        .collect::<Option<_>>()?;
    let mut tape = take_spare();
    let y = forward(&x.primitive, &frozen, shared, lengths, &mut tape);
    Some(
        match Step
            .prepare::<C>([x.node.clone()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => step.finish(
                State {
                    frozen,
                    tape: Arc::new(Mutex::new(tape)),
                },
                y,
            ),
            OpsKind::UnTracked(step) => {
                keep_spare(tape);
                step.finish(y)
            }
        },
    )
}

fn untracked<C: CheckpointStrategy>(
    block: &BlockParameters<Autodiff<Flex, C>>,
) -> Option<BlockParameters<Flex>> {
    type Tracked<C> = FloatTensor<Autodiff<Flex, C>>;
    let pair = |(a, b): &(Tracked<C>, Tracked<C>)| {
        let frozen = a.node.requirement.is_none() && b.node.requirement.is_none();
        frozen.then(|| (a.primitive.clone(), b.primitive.clone()))
    };
    Some(BlockParameters {
        ln_1: pair(&block.ln_1)?,
        in_proj: pair(&block.in_proj)?,
        out_proj: pair(&block.out_proj)?,
        ln_2: pair(&block.ln_2)?,
        c_fc: pair(&block.c_fc)?,
        c_proj: pair(&block.c_proj)?,
        heads: block.heads,
        quick_gelu: block.quick_gelu,
    })
}

fn tower(frozen: &[Contiguous], width: usize) -> Tower<'_> {
    Tower {
        blocks: frozen
            .iter()
            .map(|block| block.block(width, true))
            .collect(),
    }
}

fn forward(
    x: &FlexTensor,
    frozen: &[Contiguous],
    shared: usize,
    lengths: &[usize],
    tape: &mut Tape,
) -> FlexTensor {
    let [_, width] = x.shape().dims();
    let x = x.to_contiguous();
    let y = tower(frozen, width).forward(x.storage(), shared, lengths, tape);
    matrix(y, lengths.len(), width)
}

fn matrix(values: Vec<f32>, rows: usize, columns: usize) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, Shape::new([rows, columns])))
}

/// The transformer as one step of the graph.
#[derive(Debug)]
struct Step;

#[derive(Debug, Clone)]
struct State {
    frozen: Vec<Contiguous>,
    tape: Arc<Mutex<Tape>>,
}

impl Backward<Flex, 1> for Step {
    type State = State;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut GradientStore,
        _checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let [_, width] = dy.shape().dims();
        let [x] = ops.parents;
        let mut tape = ops
            .state
            .tape
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(x) = x {
            let dx = tower(&ops.state.frozen, width).backward(&mut tape, dy.storage());
            let rows = dx.len() / width;
            grads.register::<Flex>(x.id, matrix(dx, rows, width));
        }
        keep_spare(std::mem::take(&mut tape));
    }
}
