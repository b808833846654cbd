//! [`Card`]: what of a GPU decides the shape of launches.

/// Sizes of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// Bytes of shared memory that a block may ask for at most.
    pub shared_per_block: usize,
    /// Bytes of shared memory of a multiprocessor.
    pub shared_per_multiprocessor: usize,
}
