//! CLIP's image towers on a GPU: from the bytes of decoded pixels to features in float32.
//!
//! [`Tower`] holds the sizes of a model and the places of its weights. It knows the order of kernels and products for a batch
//! ([`Tower::enqueue`]) and the memory that they need ([`Tower::places`]), but owns no device. [`ImageEncoder`] has the GPU: weights,
//! two lanes of activations, and a graph for each size of batch.

mod convolution;
mod encoder;
mod lane;
mod resnet;
mod tensors;
mod vit;

use crate::compile::Program;
use crate::error::{CudaError, Result};
use crate::executor::{Argument, Executor};
use crate::precision::Precision;

pub use encoder::{Features, ImageEncoder, Ticket};
pub use resnet::{COLUMN_BYTES, Resnet, ResnetSizes};
pub use tensors::Tensors;
pub use vit::{Vit, VitSizes};

/// What the two families have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageSizes {
    /// Side of the square input in pixels.
    pub side: usize,
    /// Width of the space that images and texts share, D.
    pub dim: usize,
    /// Attention heads: of the blocks, or of a ModifiedResNet's attention pooling.
    pub heads: usize,
    /// Format of weights and activations.
    pub precision: Precision,
    /// Mean of each channel, for pixels in 0..=1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel.
    pub deviation: [f32; 3],
}

impl ImageSizes {
    /// Factors and summands that turn a byte of each channel into its normalised value.
    fn normalisation(&self) -> [Argument; 6] {
        let scale = self.deviation.map(|deviation| 1.0 / (255.0 * deviation));
        let shift = [0, 1, 2].map(|i| -self.mean[i] / self.deviation[i]);
        [scale[0], scale[1], scale[2], shift[0], shift[1], shift[2]].map(Argument::F32)
    }

    /// Bytes of an image's pixels.
    pub fn pixel_bytes(&self) -> usize {
        3 * self.side * self.side
    }
}

/// An image tower of any family.
#[derive(Debug, Clone)]
pub enum Tower {
    /// Vision transformer.
    Vit(Vit),
    /// ModifiedResNet.
    Resnet(Resnet),
}

/// A batch to encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Batch {
    /// Images.
    pub images: usize,
    /// Whether the features of the positions are computed as well.
    pub local: bool,
}

/// Offsets in an arena that holds a batch on its way through a tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Pixels `[images, side, side, 3]`, bytes.
    pub pixels: u64,
    /// Global features `[images, D]`, float32.
    pub global: u64,
    /// Local features `[images, positions, D]`, float32; nothing unless asked for.
    pub local: u64,
    /// Where a pass keeps what is between them.
    working: [u64; 8],
    /// Bytes of all.
    pub size: usize,
}

/// Addresses of a tower's weights and of the arena of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Weights.
    pub weights: u64,
    /// Activations, by the offsets of [`Places`].
    pub arena: u64,
}

impl Tower {
    /// Sizes of the images and their features.
    pub fn sizes(&self) -> &ImageSizes {
        match self {
            Self::Vit(tower) => &tower.sizes.image,
            Self::Resnet(tower) => &tower.sizes.image,
        }
    }

    /// Positions with local features.
    pub fn positions(&self) -> usize {
        match self {
            Self::Vit(tower) => tower.sizes.patches(),
            Self::Resnet(tower) => tower.sizes.positions(),
        }
    }

    /// The kernels of the tower.
    pub fn program(&self) -> Program {
        match self {
            Self::Vit(tower) => tower.sizes.program(),
            Self::Resnet(tower) => tower.sizes.program(),
        }
    }

    /// Where the parts of a batch lie.
    pub fn places(&self, batch: Batch) -> Places {
        match self {
            Self::Vit(tower) => tower.places(batch),
            Self::Resnet(tower) => tower.places(batch),
        }
    }

    /// Enqueues everything between pixels and features.
    ///
    /// # Errors
    /// Those of the executor.
    pub fn enqueue(
        &self,
        executor: &mut impl Executor,
        batch: Batch,
        memory: Memory,
    ) -> Result<()> {
        match self {
            Self::Vit(tower) => tower.enqueue(executor, batch, memory),
            Self::Resnet(tower) => tower.enqueue(executor, batch, memory),
        }
    }
}

/// An error if `count` is beyond what the kernels count with.
fn check_count(what: &str, count: usize) -> Result<()> {
    match i32::try_from(count) {
        Ok(_) => Ok(()),
        Err(_) => Err(CudaError::Unsupported(format!("{count} {what}"))),
    }
}
