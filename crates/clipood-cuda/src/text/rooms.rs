//! Memory of a pass through the text tower.

use super::attention::AttentionLaunch;
use super::pack::Capacity;
use super::weights::TextSizes;
use crate::precision::Precision;
use crate::space::Space;

/// What a block keeps of its forward pass, as offsets.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerRooms {
    /// Mean and reciprocal deviation of each row before the first norm, and before the second.
    pub stats_1: u64,
    pub stats_2: u64,
    /// Input `[rows, width]`.
    pub x: u64,
    /// Queries, keys and values `[rows, 3 width]`.
    pub qkv: u64,
    /// After attention `[rows, width]`; in the last block, here and below, a row for each text.
    pub middle: u64,
    /// Before the activation `[rows, 4 width]`.
    pub hidden: u64,
}

/// All memory of a pass but the parameters, as offsets.
#[derive(Debug, Clone)]
pub(super) struct Rooms {
    pub layers: Vec<LayerRooms>,
    pub stats_final: u64,
    /// `[groups + 1]`, `[rows]`, `[texts]`.
    pub starts: u64,
    pub first: u64,
    pub ends: u64,
    /// Of each row the text that it ends `[rows]`; only for a backward pass, as all that follow `features`.
    pub ended: u64,
    /// What the last block wrote `[texts, width]`.
    pub out: u64,
    /// Values between two products: `[rows, width]` twice, `[texts, width]`, `[rows, 4 width]`.
    pub normed: u64,
    pub attended: u64,
    pub short: u64,
    pub wide: u64,
    /// Float32 `[texts, dim]`.
    pub features: u64,
    /// `[texts, dim]`.
    pub dfeatures: u64,
    /// The gradient on its way down `[rows, width]`.
    pub gradient: u64,
    /// Shares of the gradient of the prefix's keys and values, float32 `[blocks, prefix, 2 width]`.
    pub partial: u64,
}

/// Sizes of a pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct PassSizes {
    pub sizes: TextSizes,
    pub precision: Precision,
    pub capacity: Capacity,
    pub prefix: usize,
    pub attention: AttentionLaunch,
    /// Whether there is a backward pass, for which each block keeps its values; otherwise all blocks share one set of rooms.
    pub backward: bool,
}

impl Rooms {
    /// Places the memory; index arrays that are known, `ended` among them, are given by the caller.
    pub fn new(
        space: &mut Space,
        pass: &PassSizes,
        starts: u64,
        first: u64,
        [ends, ended]: [u64; 2],
    ) -> Self {
        let PassSizes {
            sizes,
            precision,
            capacity,
            prefix,
            attention,
            backward,
        } = *pass;
        let (rows, texts, width) = (capacity.rows, capacity.texts, sizes.width);
        let distinct = if backward { sizes.layers } else { 1 };
        let mut layers: Vec<LayerRooms> = (0..distinct)
            .map(|i| {
                let going = if i + 1 == sizes.layers { texts } else { rows };
                LayerRooms {
                    stats_1: space.words(2 * rows),
                    stats_2: space.words(2 * going),
                    x: space.values(precision, rows * width),
                    qkv: space.values(precision, rows * 3 * width),
                    middle: space.values(precision, going * width),
                    hidden: space.values(precision, going * 4 * width),
                }
            })
            .collect();
        let shared = layers[0];
        layers.resize(sizes.layers, shared);
        let when = |space: &mut Space, values: usize| {
            if backward {
                space.values(precision, values)
            } else {
                0
            }
        };
        Self {
            layers,
            stats_final: space.words(2 * texts),
            starts,
            first,
            ends,
            ended,
            out: space.values(precision, texts * width),
            normed: space.values(precision, rows * width),
            attended: space.values(precision, rows * width),
            short: space.values(precision, texts * width),
            wide: space.values(precision, rows * 4 * width),
            features: space.words(texts * sizes.dim),
            dfeatures: when(space, texts * sizes.dim),
            gradient: when(space, rows * width),
            partial: if backward {
                space.words(attention.backward.count * prefix * 2 * width)
            } else {
                0
            },
        }
    }
}
