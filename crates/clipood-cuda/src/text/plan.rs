//! Planning a text tower: its program, its launches and its memory.

use super::attention::{AttentionLaunch, AttentionSizes};
use super::pack::{Capacity, Packed};
use super::rooms::{PassSizes, Rooms};
use super::tower::TextTower;
use super::weights::{Parameters, TextSizes, WeightPlaces};
use crate::card::Card;
use crate::compile::Program;
use crate::error::Result;
use crate::precision::Precision;
use crate::space::Space;

/// Kernels of a forward pass without dynamic shared memory.
const FORWARD: [&str; 5] = ["embed", "text_norm", "quick_gelu", "gelu", "take_rows"];
/// Those of the backward pass.
const BACKWARD: [&str; 5] = [
    "text_norm_backward",
    "quick_gelu_backward",
    "gelu_backward",
    "sum_prefix",
    "sum_context",
];

impl TextTower {
    /// A tower for exactly these texts, forwards and backwards. Only the first `changing` rows of its input change from pass to
    /// pass: all rows, or those of the prefix.
    ///
    /// # Errors
    /// Sizes that the kernels do not cover, or parameters that are missing.
    pub fn for_training(
        space: &mut Space,
        parameters: Parameters<'_>,
        (sizes, precision): (&TextSizes, Precision),
        (packed, changing): (&Packed, usize),
        card: &Card,
    ) -> Result<Self> {
        let attention = launches(
            sizes,
            precision,
            packed.prefix,
            packed.capacity(),
            (card, true),
        )?;
        let weights = WeightPlaces::new(space, parameters, sizes, precision)?;
        let starts = space.integers(&packed.starts);
        let first = space.integers(&packed.first());
        let ends = [
            space.integers(&packed.ends()),
            space.integers(&packed.ended()),
        ];
        let pass = PassSizes {
            sizes: *sizes,
            precision,
            capacity: packed.capacity(),
            prefix: packed.prefix,
            attention,
            backward: true,
        };
        let rooms = Rooms::new(space, &pass, starts, first, ends);
        Ok(Self::assemble(&pass, weights, rooms, changing))
    }

    /// A tower for any texts behind `prefix` common tokens that fit `capacity`, forwards only; index arrays are written before
    /// each pass. `weights` are shared by towers of several capacities in one space.
    pub(super) fn for_encoding(
        space: &mut Space,
        weights: &WeightPlaces,
        (sizes, precision): (&TextSizes, Precision),
        (prefix, capacity): (usize, Capacity),
        card: &Card,
    ) -> Result<Self> {
        let attention = launches(sizes, precision, prefix, capacity, (card, false))?;
        let starts = space.words(capacity.groups + 1);
        let first = space.words(capacity.rows);
        let ends = space.words(capacity.texts);
        let pass = PassSizes {
            sizes: *sizes,
            precision,
            capacity,
            prefix,
            attention,
            backward: false,
        };
        let rooms = Rooms::new(space, &pass, starts, first, [ends, 0]);
        Ok(Self::assemble(&pass, weights.clone(), rooms, capacity.rows))
    }

    fn assemble(pass: &PassSizes, weights: WeightPlaces, rooms: Rooms, changing: usize) -> Self {
        Self {
            base: 0,
            precision: pass.precision,
            width: pass.sizes.width,
            heads: pass.sizes.heads,
            dim: pass.sizes.dim,
            context: pass.sizes.context,
            activation: pass.sizes.activation,
            prefix: pass.prefix,
            capacity: pass.capacity,
            changing,
            attention: pass.attention,
            weights,
            rooms,
        }
    }
}

/// Kernels of a tower, for compiling them.
#[derive(Debug, Clone, Copy)]
pub struct TextProgram<'a> {
    /// Sizes of the tower.
    pub sizes: &'a TextSizes,
    /// Its format.
    pub precision: Precision,
    /// Tokens that all texts begin with.
    pub prefix: usize,
    /// Rows of a group of texts.
    pub group_rows: usize,
    /// Further kernel files and their kernels, without dynamic shared memory, of a training; none for encoding.
    pub training: Option<(&'static str, &'static [&'static str])>,
}

impl TextProgram<'_> {
    /// The program for `card`.
    ///
    /// # Errors
    /// Sizes that the kernels do not cover.
    pub fn program(&self, card: &Card) -> Result<Program> {
        let Self {
            sizes,
            precision,
            prefix,
            group_rows,
            training,
        } = *self;
        // Macros and shared memory do not depend on how many texts there are.
        let capacity = Capacity {
            rows: group_rows,
            texts: 1,
            groups: 1,
            group_rows,
        };
        let attention = launches(
            sizes,
            precision,
            prefix,
            capacity,
            (card, training.is_some()),
        )?;
        let mut families = vec![
            include_str!("../kernels/text/warps.cuh"),
            include_str!("../kernels/text/rows.cu"),
            include_str!("../kernels/text/attention.cu"),
            include_str!("../kernels/text/softmax.cu"),
            include_str!("../kernels/text/forward.cu"),
        ];
        let mut kernels: Vec<(&'static str, u32)> = FORWARD.map(|name| (name, 0)).to_vec();
        kernels.push(("text_attention", attention.forward.shared));
        if let Some((source, names)) = training {
            families.push(include_str!("../kernels/text/backward.cu"));
            families.push(source);
            kernels.extend(BACKWARD.iter().chain(names).map(|name| (*name, 0)));
            kernels.push(("text_attention_backward", attention.backward.shared));
        }
        Ok(Program {
            name: if training.is_some() { "prompt" } else { "text" },
            families,
            defines: vec![
                ("ELEMENT", precision.element()),
                ("WIDTH", sizes.width as i64),
                ("HEADS", sizes.heads as i64),
                ("PAD", attention.pad as i64),
                ("ROWS", group_rows as i64),
                ("FORWARD_BLOCKS", attention.forward.resident as i64),
                ("BACKWARD_BLOCKS", attention.backward.resident as i64),
            ],
            kernels,
        })
    }
}

fn launches(
    sizes: &TextSizes,
    precision: Precision,
    prefix: usize,
    capacity: Capacity,
    (card, backward): (&Card, bool),
) -> Result<AttentionLaunch> {
    sizes.check()?;
    let attention = AttentionSizes {
        precision,
        head: sizes.head(),
        heads: sizes.heads,
        prefix,
        group_rows: capacity.group_rows,
        groups: capacity.groups,
    };
    attention.launches(card, backward)
}
