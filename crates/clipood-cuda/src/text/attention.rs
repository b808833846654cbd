//! Shapes of the launches of the attention kernels over [`Packed`](super::pack::Packed) texts.

use crate::card::Card;
use crate::error::{CudaError, Result};
use crate::precision::Precision;

/// Groups that a block of the 16-bit forward kernel takes, and queries of a warp: `PARTS` and `QUERIES` of `forward.cu`.
const PARTS: usize = 2;
const QUERIES: usize = 16;
/// Blocks that a multiprocessor could hold at most if they used all its registers: more than this and the compiler would spill.
const FORWARD_BLOCKS_F32: usize = 3;
const BACKWARD_BLOCKS_F32: usize = 2;
const BACKWARD_BLOCKS_HALF: usize = 4;
/// Shared memory that every block takes beside its own, and the arrays whose size the kernels fix.
const RESERVED: usize = 1024 + 1024;

/// Sizes that decide the launches.
#[derive(Debug, Clone, Copy)]
pub struct AttentionSizes {
    /// Number format of rows.
    pub precision: Precision,
    /// Values of a head, a multiple of 16.
    pub head: usize,
    /// Heads.
    pub heads: usize,
    /// Tokens of the prefix.
    pub prefix: usize,
    /// Rows of a group.
    pub group_rows: usize,
    /// Groups, the prefix's included.
    pub groups: usize,
}

/// Launches of both kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionLaunch {
    /// Keys of the prefix in a tile, `PAD`.
    pub pad: usize,
    /// Threads of a block, bytes of dynamic shared memory, groups of a block, blocks of a multiprocessor: forwards.
    pub forward: Blocks,
    /// The same backwards.
    pub backward: Blocks,
}

/// Blocks of threads of one kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
    /// Groups that a block takes, one after another.
    pub chunk: usize,
    /// Blocks along the groups.
    pub count: usize,
    /// Blocks that a multiprocessor shall hold.
    pub resident: usize,
}

impl AttentionSizes {
    /// Launches on `card`; the backward pass is left out of the check where `backward` is not set.
    ///
    /// # Errors
    /// A head that the tiles do not divide, or tiles that exceed the shared memory of a block.
    pub fn launches(&self, card: &Card, backward: bool) -> Result<AttentionLaunch> {
        if self.head == 0 || !self.head.is_multiple_of(16) {
            return Err(CudaError::Unsupported(format!(
                "text towers with heads of {} values",
                self.head
            )));
        }
        let half = self.precision.bytes() == 2;
        let pad = self.prefix.next_multiple_of(32);
        let keys = pad + self.group_rows;
        let tile = (self.head + self.precision.vector()) * self.precision.bytes();
        let scores = self.group_rows * (keys + 4) * 4;
        let forward = match half {
            true => (2 * pad + 3 * PARTS * self.group_rows) * tile,
            false => (self.group_rows + 2 * keys) * tile + scores,
        };
        let back = (2 * self.group_rows + 2 * keys) * tile
            + 2 * scores
            + 2 * self.prefix * (self.head + 8) * 4;
        for (bytes, needed) in [(forward, true), (back, backward)] {
            if needed && bytes + RESERVED > card.shared_per_block {
                return Err(CudaError::Unsupported(format!(
                    "texts of {} tokens behind {} common ones: {bytes} bytes of shared memory, the GPU has {}",
                    self.group_rows, self.prefix, card.shared_per_block
                )));
            }
        }
        let large = self.group_rows > 32;
        let most = |half_blocks, float_blocks| match (large, half) {
            (true, _) => 1,
            (false, true) => half_blocks,
            (false, false) => float_blocks,
        };
        let forward = match half {
            true => Blocks {
                threads: (PARTS * self.group_rows / QUERIES * 32) as u32,
                shared: forward as u32,
                chunk: PARTS,
                count: self.groups.div_ceil(PARTS),
                resident: 1,
            },
            false => self.blocks(card, forward, most(1, FORWARD_BLOCKS_F32)),
        };
        Ok(AttentionLaunch {
            pad,
            forward,
            backward: self.blocks(card, back, most(BACKWARD_BLOCKS_HALF, BACKWARD_BLOCKS_F32)),
        })
    }

    /// As many groups for a block as make all blocks fit on the card at once: no second, half empty wave.
    fn blocks(&self, card: &Card, shared: usize, most: usize) -> Blocks {
        let resident = (card.shared_per_multiprocessor / (shared + RESERVED)).clamp(1, most);
        let slots = (card.multiprocessors * resident / self.heads).max(1);
        let chunk = self.groups.div_ceil(slots);
        Blocks {
            threads: 256,
            shared: shared as u32,
            chunk,
            count: self.groups.div_ceil(chunk),
            resident,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H200: Card = Card {
        multiprocessors: 132,
        shared_per_block: 232_448,
        shared_per_multiprocessor: 233_472,
    };

    fn sizes(precision: Precision, prefix: usize, group_rows: usize) -> AttentionSizes {
        AttentionSizes {
            precision,
            head: 64,
            heads: 8,
            prefix,
            group_rows,
            groups: 300,
        }
    }

    #[test]
    fn shapes_of_a_thousand_classes() -> Result<()> {
        let half = sizes(Precision::F16, 17, 32).launches(&H200, true)?;
        assert_eq!(
            (half.pad, half.forward.threads, half.forward.count),
            (32, 128, 150)
        );
        // Four blocks of 45 KB a multiprocessor, 66 blocks a head.
        assert_eq!(
            (
                half.backward.resident,
                half.backward.chunk,
                half.backward.count
            ),
            (4, 5, 60)
        );
        let float = sizes(Precision::F32, 17, 32).launches(&H200, true)?;
        assert_eq!((float.backward.resident, float.backward.chunk), (2, 10));
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let small = Card {
            shared_per_block: 101_376,
            ..H200
        };
        let long = sizes(Precision::F32, 1, 96);
        assert!(long.launches(&H200, false).is_ok());
        assert!(long.launches(&small, false).is_err());
        let head = AttentionSizes {
            head: 24,
            ..sizes(Precision::F16, 1, 32)
        };
        assert!(head.launches(&H200, false).is_err());
    }
}
