//! [`PromptPlan`]: program and memory of a training, before a device is asked for them.

use super::loss::{self, Loss, LossRooms, LossSizes};
use super::tokens::PromptTokens;
use crate::card::Card;
use crate::compile::Program;
use crate::error::{CudaError, Result};
use crate::precision::Precision;
use crate::space::Space;
use crate::text::plan::TextProgram;
use crate::text::tower::TextTower;
use crate::text::weights::{Parameters, TextSizes};

/// Factor on the gradients of 16-bit training with few exponents: float16 ends at 6e-8, gradients of features do not.
const F16_LOSS_SCALE: f32 = 4096.0;

/// What a context is trained for and on what.
pub struct PromptTask<'a> {
    /// Parameters of the text tower.
    pub parameters: Parameters<'a>,
    /// Its sizes.
    pub sizes: TextSizes,
    /// Format of weights and activations. float16 trains with a constant factor of 4096 on gradients.
    pub precision: Precision,
    /// The prompts.
    pub tokens: PromptTokens<'a>,
    /// The loss.
    pub loss: Loss,
    /// Factor on cosines.
    pub logit_scale: f32,
    /// Images of a step.
    pub images: usize,
    /// Patches of an image; 0 for a loss without a patch term.
    pub patches: usize,
    /// Unit features of all images, `[any, dim]`, and of their patches, `[any, patches, dim]`, to be kept on the device; none
    /// where they are too large for that, and then each step brings its own.
    pub resident: Option<(&'a [f32], &'a [f32])>,
}

/// A training laid out.
pub struct PromptPlan {
    pub(super) tower: TextTower,
    pub(super) rooms: LossRooms,
    pub(super) context: ContextPlaces,
    pub(super) resident: Option<ResidentPlaces>,
    pub(super) sizes: LossSizes,
    pub(super) loss: Loss,
    pub(super) logit_scale: f32,
    pub(super) loss_scale: f32,
    pub(super) precision: Precision,
    pub(super) width: usize,
    space: Space,
    program: Program,
}

/// Embeddings and index arrays, as offsets.
#[derive(Debug, Clone, Copy)]
pub(super) struct ContextPlaces {
    /// Embeddings of the fixed tokens.
    pub fixed: u64,
    /// Row of the table, position and row of the input, of each fixed token.
    pub fixed_lists: [u64; 3],
    pub fixed_count: usize,
    /// The context, float32 `[contexts, width]`.
    pub context: u64,
    /// The same lists of its rows.
    pub context_lists: [u64; 3],
    pub context_count: usize,
    /// Rows of each vector.
    pub begin: u64,
    pub rows_of: u64,
    pub contexts: usize,
}

/// Features of all images on the device, as offsets.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResidentPlaces {
    pub global: u64,
    pub local: u64,
    /// Rows of a step's images.
    pub picked: u64,
    /// Rows there are.
    pub rows: usize,
}

impl PromptPlan {
    /// Lays out a training on `card`.
    ///
    /// # Errors
    /// Sizes that the kernels do not cover, tokens or features that do not fit together, missing parameters.
    pub fn new(task: &PromptTask<'_>, card: &Card) -> Result<Self> {
        let width = task.sizes.width;
        task.sizes.check()?;
        let packed = task.tokens.pack(width)?;
        let rows = task.tokens.context_rows(&packed, width);
        // Where all of the context is in the prefix, the other rows of the first block's input never change.
        let inside = rows.rows.iter().all(|row| (*row as usize) < packed.prefix);
        let changing = if inside { packed.prefix } else { packed.rows() };
        let mut space = Space::default();
        let shape = (&task.sizes, task.precision);
        let tower = TextTower::for_training(
            &mut space,
            task.parameters,
            shape,
            (&packed, changing),
            card,
        )?;
        let sizes = LossSizes {
            images: task.images,
            patches: task.patches,
            classes: packed.lengths.len(),
            dim: task.sizes.dim,
        };
        let fixed_rows = (task.tokens.fixed.len() / width) as i32;
        let (mut from, mut positions, mut to) = (Vec::new(), Vec::new(), Vec::new());
        for ((row, index), position) in task.tokens.index.iter().enumerate().zip(packed.positions())
        {
            if *index < fixed_rows {
                from.push(*index);
                positions.push(position);
                to.push(row as i32);
            }
        }
        let contexts = task.tokens.contexts;
        let context = ContextPlaces {
            fixed: space.holding(Precision::F32, task.tokens.fixed),
            fixed_count: from.len(),
            fixed_lists: [&from, &positions, &to].map(|list| space.integers(list)),
            context: space.words(contexts * width),
            context_count: rows.rows.len(),
            context_lists: [&rows.vectors, &rows.positions, &rows.rows]
                .map(|list| space.integers(list)),
            begin: space.integers(&rows.begin),
            rows_of: space.integers(&rows.rows_of),
            contexts,
        };
        let rooms = LossRooms::new(&mut space, &sizes, contexts * width);
        let resident = task
            .resident
            .map(|features| reside(&mut space, features, &sizes))
            .transpose()?;
        let (prefix, group_rows) = (packed.prefix, packed.group_rows);
        let program = prompt_program(&task.sizes, task.precision, (prefix, group_rows), card)?;
        let half = task.precision.bytes() == 2;
        Ok(Self {
            tower,
            rooms,
            context,
            resident,
            sizes,
            loss: task.loss,
            logit_scale: task.logit_scale,
            loss_scale: if task.precision == Precision::F16 {
                F16_LOSS_SCALE
            } else {
                1.0
            },
            // The products of the losses: float32 in memory, and exact only where the tower is.
            precision: if half {
                Precision::Tf32
            } else {
                task.precision
            },
            width,
            space,
            program,
        })
    }

    /// The kernels.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The memory and what it holds at first.
    pub fn space(&mut self) -> &mut Space {
        &mut self.space
    }
}

/// The kernels of a training of prompts that share `prefix` tokens, in groups of `group_rows` rows.
///
/// # Errors
/// Sizes that the kernels do not cover.
pub fn prompt_program(
    sizes: &TextSizes,
    precision: Precision,
    (prefix, group_rows): (usize, usize),
    card: &Card,
) -> Result<Program> {
    let program = TextProgram {
        sizes,
        precision,
        prefix,
        group_rows,
        training: Some((loss::SOURCE, &loss::KERNELS)),
    };
    program.program(card)
}

fn reside(
    space: &mut Space,
    (global, local): (&[f32], &[f32]),
    sizes: &LossSizes,
) -> Result<ResidentPlaces> {
    let rows = global.len() / sizes.dim;
    if global.len() != rows * sizes.dim || local.len() != rows * sizes.patches * sizes.dim {
        return Err(CudaError::Unsupported(format!(
            "{} values of image features and {} of patches, for {} patches of {} values each",
            global.len(),
            local.len(),
            sizes.patches,
            sizes.dim
        )));
    }
    Ok(ResidentPlaces {
        global: space.holding(Precision::F32, global),
        local: space.holding(Precision::F32, local),
        picked: space.words(sizes.images),
        rows,
    })
}
