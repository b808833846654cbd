//! [`ImageEncoder`]: a tower on a GPU, with two lanes, so that the copies of one batch overlap the computation of another.

use std::sync::Arc;

use super::lane::{Lane, Loaded, Piece};
use super::{Batch, Tower};
use crate::error::{CudaError, Result};
use crate::gpu::Gpu;
use crate::memory::Arena;
use crate::product::Choice;
use crate::queue::{Kernels, Queue};

/// Batches that are on their way at the same time.
const LANES: usize = 2;

/// Features of a batch of images, row-major, before normalisation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Features {
    /// `[images, D]`.
    pub global: Vec<f32>,
    /// `[images, positions, D]`; empty unless asked for.
    pub local: Vec<f32>,
}

/// A batch that was launched, to be waited for.
#[derive(Debug)]
pub struct Ticket {
    pieces: Vec<Arc<Piece>>,
}

/// A tower on a GPU.
pub struct ImageEncoder {
    loaded: Loaded,
    lanes: Vec<Lane>,
    /// Lanes that the memory suffices for.
    most_lanes: usize,
    sizes: BatchSizes,
}

/// Which sizes of batch are computed, each of which has graphs and plans of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BatchSizes {
    /// The largest batch seen.
    largest: usize,
    /// The most images that the memory suffices for, as far as is known.
    limit: usize,
}

impl BatchSizes {
    /// The size that `images` images are computed in: a power of two, or the largest batch seen.
    fn padded(self, images: usize) -> usize {
        let most = self.largest.min(self.limit).max(images);
        images.next_power_of_two().min(most)
    }

    /// Learns that the memory did not suffice for `images` images.
    fn halve(&mut self, images: usize) {
        self.limit = (images / 2).max(1);
    }
}

impl ImageEncoder {
    /// Loads kernels and weights, which come from [`Vit::new`](super::Vit::new) or [`Resnet::new`](super::Resnet::new).
    ///
    /// # Errors
    /// Kernels that do not compile or do not suit the GPU, and weights that do not fit its memory.
    pub fn open(gpu: &Gpu, tower: Tower, weights: &[u8]) -> Result<Self> {
        let kernels = Kernels::load(gpu, &tower.program())?;
        let queue = Queue::new(gpu, kernels, Choice::Timed)?;
        let weights = Arena::upload(queue.stream(), weights)?;
        Ok(Self {
            loaded: Loaded { tower, weights },
            lanes: vec![Lane::new(queue)?],
            most_lanes: LANES,
            sizes: BatchSizes {
                largest: 0,
                limit: usize::MAX,
            },
        })
    }

    /// Starts to encode `pixels` `[images, side, side, 3]`, which are copied before it returns. Where the memory does not
    /// suffice for all images, half as many go through at a time, and so on.
    ///
    /// # Errors
    /// Pixels that are not whole images, a failure of the GPU, or memory that does not suffice for one image.
    pub fn launch(&mut self, pixels: &[u8], local: bool) -> Result<Ticket> {
        let image = self.loaded.tower.sizes().pixel_bytes();
        if pixels.is_empty() || !pixels.len().is_multiple_of(image) {
            let found = pixels.len();
            return Err(CudaError::Unsupported(format!(
                "{found} bytes of pixels, where an image has {image}"
            )));
        }
        self.sizes.largest = self.sizes.largest.max(pixels.len() / image);
        let mut pieces = Vec::new();
        let mut rest = pixels;
        while !rest.is_empty() {
            let images = (rest.len() / image).min(self.sizes.limit);
            let (now, later) = rest.split_at(images * image);
            match self.launch_piece(now, images, local) {
                Ok(piece) => {
                    pieces.push(piece);
                    rest = later;
                }
                Err(error) if error.is_out_of_memory() && images > 1 => {
                    self.release()?;
                    self.sizes.halve(images);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Ticket { pieces })
    }

    /// Waits for the features of a batch.
    ///
    /// # Errors
    /// The GPU failed.
    pub fn wait(&mut self, ticket: &Ticket) -> Result<Features> {
        let mut all = Features::default();
        for piece in &ticket.pieces {
            if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.has(piece)) {
                lane.finish(&self.loaded.tower)?;
            }
            let lost = || CudaError::Failed("the features of a batch are lost".into());
            let features = piece.take().ok_or_else(lost)?;
            if ticket.pieces.len() == 1 {
                return Ok(features);
            }
            all.global.extend(features.global);
            all.local.extend(features.local);
        }
        Ok(all)
    }

    fn launch_piece(&mut self, pixels: &[u8], images: usize, local: bool) -> Result<Arc<Piece>> {
        let batch = Batch {
            images: self.sizes.padded(images),
            local,
        };
        let index = self.free_lane(batch)?;
        self.lanes[index].launch(&self.loaded, batch, pixels)
    }

    /// A lane with nothing on its way and room for `batch`.
    fn free_lane(&mut self, batch: Batch) -> Result<usize> {
        let tower = &self.loaded.tower;
        if let Some(index) = self.lanes.iter().position(|lane| !lane.is_busy()) {
            self.lanes[index].reserve(tower, batch)?;
            return Ok(index);
        }
        if self.lanes.len() < self.most_lanes {
            let another = self.lanes[0]
                .beside()
                .and_then(|mut lane| lane.reserve(tower, batch).map(|()| lane));
            match another {
                Ok(lane) => {
                    self.lanes.push(lane);
                    return Ok(self.lanes.len() - 1);
                }
                // One lane is slower than two, and faster than two of half the size.
                Err(error) if error.is_out_of_memory() => self.most_lanes = self.lanes.len(),
                Err(error) => return Err(error),
            }
        }
        // A caller that keeps more batches open than there are lanes waits for one of them here; its features stay in its piece.
        let mut oldest = self.lanes.remove(0);
        let finished = oldest
            .finish(tower)
            .and_then(|()| oldest.reserve(tower, batch));
        self.lanes.push(oldest);
        finished?;
        Ok(self.lanes.len() - 1)
    }

    /// Finishes what is on its way and gives all activations back.
    fn release(&mut self) -> Result<()> {
        for lane in &mut self.lanes {
            lane.finish(&self.loaded.tower)?;
            lane.release()?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for ImageEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageEncoder")
            .field("sizes", self.loaded.tower.sizes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_padded_to_few_sizes() {
        let sizes = BatchSizes {
            largest: 100,
            limit: usize::MAX,
        };
        let padded: Vec<usize> = [1, 2, 3, 33, 64, 65, 100].map(|n| sizes.padded(n)).to_vec();
        assert_eq!(padded, [1, 2, 4, 64, 64, 100, 100]);
    }

    #[test]
    fn a_batch_that_does_not_fit_is_halved_down_to_one() {
        let mut sizes = BatchSizes {
            largest: 100,
            limit: usize::MAX,
        };
        for expected in [50, 25, 12, 6, 3, 1, 1] {
            let images = sizes.largest.min(sizes.limit);
            sizes.halve(images);
            assert_eq!(sizes.limit, expected);
            assert_eq!(sizes.padded(expected), expected);
        }
    }
}
