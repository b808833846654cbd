//! Launches of `kernels/attention.cu`: attention over packed projections.

use crate::error::Result;
use crate::executor::{Argument, Executor, Launch};
use crate::precision::Precision;

/// Text of the kernel file; its macros are those of [`Heads::defines`].
pub const SOURCE: &str = include_str!("kernels/attention.cu");

/// Of the 16-bit kernel: warps of a block at most, blocks of a multiprocessor, keys of a tile, tiles in shared memory.
const MOST_WARPS: usize = 4;
const LEAST_BLOCKS: usize = 3;
const KEYS: usize = 32;
const STAGES: usize = 4;
/// Of the float32 kernel: queries of a block and keys of a tile, pitch of the transposed tiles, threads.
const TILE: usize = 64;
const TILE_PITCH: usize = TILE + 4;
const TILE_THREADS: u32 = 256;

/// Sizes that the kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// How many.
    pub count: usize,
    /// Values of one.
    pub size: usize,
    /// Format of the projections.
    pub precision: Precision,
}

/// Where queries, keys and values lie and the output goes. Strides are in elements; heads lie side by side in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attention {
    /// First query.
    pub query: Rows,
    /// First key.
    pub key: u64,
    /// First value.
    pub value: u64,
    /// From one row of keys, and of values, to the next.
    pub key_row: usize,
    /// From one sequence's keys to the next.
    pub key_sequence: usize,
    /// First row of the output.
    pub output: Rows,
    /// Sequences.
    pub sequences: usize,
    /// Queries of a sequence.
    pub queries: usize,
    /// Keys of a sequence, all of which every query sees.
    pub keys: usize,
}

/// Rows of several sequences in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Address of the first.
    pub at: u64,
    /// Elements from one row to the next.
    pub row: usize,
    /// Elements from one sequence to the next.
    pub sequence: usize,
}

impl Heads {
    /// Why the kernel cannot have these sizes, if so.
    pub fn problem(self) -> Option<String> {
        let words = self.precision.bytes() == 2;
        (words && !self.size.is_multiple_of(8))
            .then(|| format!("heads of {} values in 16 bits: no multiple of 8", self.size))
    }

    /// Sixteens of queries that a warp takes: two where the registers hold their sums, one with larger heads.
    fn tall(self) -> usize {
        if self.size <= 64 { 2 } else { 1 }
    }

    /// Macros of the kernel.
    pub fn defines(self) -> Vec<(&'static str, i64)> {
        vec![
            ("HEAD", self.size as i64),
            ("TALL", self.tall() as i64),
            ("MOST_WARPS", MOST_WARPS as i64),
            ("LEAST_BLOCKS", LEAST_BLOCKS as i64),
            ("KEYS", KEYS as i64),
            ("STAGES", STAGES as i64),
        ]
    }

    /// Bytes of dynamic shared memory, as the kernel lays them out.
    pub fn shared(self) -> u32 {
        let bytes = match self.precision {
            Precision::F32 | Precision::Tf32 => {
                (2 * self.size * TILE_PITCH + TILE * self.size + TILE * TILE_PITCH) * 4
            }
            Precision::F16 | Precision::Bf16 => {
                // Rows are padded to an odd number of 16-byte pieces.
                let pitch = ((2 * self.size.div_ceil(16)) | 1) * 8;
                STAGES * 2 * KEYS * pitch * 2
            }
        };
        bytes as u32
    }

    /// Threads of a block and the queries that it takes.
    fn block(self, queries: usize) -> (u32, usize) {
        match self.precision {
            Precision::F32 | Precision::Tf32 => (TILE_THREADS, TILE),
            Precision::F16 | Precision::Bf16 => {
                let of_warp = 16 * self.tall();
                // Few warps where there are few queries: the others would only help to load.
                let warps = queries.div_ceil(of_warp).clamp(1, MOST_WARPS);
                (32 * warps as u32, of_warp * warps)
            }
        }
    }

    /// Enqueues the attention of all heads.
    ///
    /// # Errors
    /// Those of the executor.
    pub fn attend(self, executor: &mut impl Executor, a: &Attention) -> Result<()> {
        let (block, queries) = self.block(a.queries);
        let wide = |n: usize| Argument::I64(n as i64);
        let count = |n: usize| Argument::I32(n as i32);
        executor.launch(&Launch {
            kernel: "attention",
            grid: [
                a.queries.div_ceil(queries) as u32,
                self.count as u32,
                a.sequences as u32,
            ],
            block,
            shared: self.shared(),
            arguments: &[
                Argument::Address(a.query.at),
                Argument::Address(a.key),
                Argument::Address(a.value),
                Argument::Address(a.output.at),
                wide(a.query.sequence),
                count(a.query.row),
                wide(a.key_sequence),
                count(a.key_row),
                wide(a.output.sequence),
                count(a.output.row),
                count(a.queries),
                count(a.keys),
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_the_queries_and_fit_the_kernel() {
        for precision in [Precision::F32, Precision::F16] {
            for size in [64, 80, 88, 104] {
                let heads = Heads {
                    count: 4,
                    size,
                    precision,
                };
                for queries in [1, 15, 16, 17, 50, 64, 65, 197, 257, 577, 1025] {
                    let (threads, rows) = heads.block(queries);
                    assert!(threads.is_multiple_of(32) && threads <= 256);
                    assert!(queries.div_ceil(rows) * rows >= queries);
                    if precision == Precision::F16 {
                        assert_eq!(threads as usize / 32 * 16 * heads.tall(), rows);
                        assert!(threads as usize <= 32 * MOST_WARPS);
                    }
                }
            }
        }
    }

    #[test]
    fn shared_memory_is_below_what_a_block_may_have() {
        // 99 KiB is the least of all GPUs from compute capability 8.0 on.
        for precision in [Precision::F32, Precision::Bf16] {
            for size in [16, 64, 80, 88, 96] {
                assert!(
                    Heads {
                        count: 1,
                        size,
                        precision
                    }
                    .shared()
                        <= 99 << 10
                );
            }
        }
    }
}
