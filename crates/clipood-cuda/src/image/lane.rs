//! [`Lane`]: the way of one batch at a time, from page-locked pixels to page-locked features, as one graph on one stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaEvent, CudaGraph};

use super::{Batch, Features, Memory, Tower};
use crate::error::{CudaError, Result};
use crate::memory::{Arena, Pinned};
use crate::queue::Queue;

/// Bytes of a feature.
const FEATURE: usize = size_of::<f32>();

/// A tower with its weights on the GPU.
#[derive(Debug)]
pub(super) struct Loaded {
    pub tower: Tower,
    pub weights: Arena,
}

/// A part of a batch: the images that went through a lane together.
#[derive(Debug)]
pub(super) struct Piece {
    /// Images that were asked for.
    images: usize,
    /// What the lane computes, which may be more images.
    batch: Batch,
    /// Set when the lane has finished.
    features: Mutex<Option<Features>>,
}

impl Piece {
    /// The features, if they are there and were not taken before.
    pub fn take(&self) -> Option<Features> {
        self.features
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Memory of a lane for batches up to a size, and the passes that were captured in it.
struct Buffers {
    passes: HashMap<Batch, CudaGraph>,
    arena: Arena,
    pixels: Pinned,
    features: Pinned,
}

/// A stream with its memory.
pub(super) struct Lane {
    queue: Queue,
    buffers: Option<Buffers>,
    done: CudaEvent,
    open: Option<Arc<Piece>>,
}

// SAFETY: the driver ties neither graphs nor streams to the thread that made them. A lane is used by one thread at a time, because
// all of its methods that touch the GPU take `&mut self`.
unsafe impl Send for Lane {}

impl Lane {
    pub fn new(queue: Queue) -> Result<Self> {
        // The thread that waits sleeps: its core has images to decode.
        let sleeping = Some(CUevent_flags::CU_EVENT_BLOCKING_SYNC);
        let done = queue.stream().context().new_event(sleeping)?;
        Ok(Self {
            queue,
            buffers: None,
            done,
            open: None,
        })
    }

    /// Another lane with the same kernels.
    pub fn beside(&self) -> Result<Self> {
        Self::new(self.queue.beside()?)
    }

    /// Whether a batch is on its way.
    pub fn is_busy(&self) -> bool {
        self.open.is_some()
    }

    /// Whether `piece` is on its way here.
    pub fn has(&self, piece: &Arc<Piece>) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| Arc::ptr_eq(open, piece))
    }

    /// Makes room for `batch`. Nothing may be on its way.
    pub fn reserve(&mut self, tower: &Tower, batch: Batch) -> Result<()> {
        let size = tower.places(batch).size;
        let (pixels, features) = (pixel_bytes(tower, batch), feature_bytes(tower, batch));
        let fits = self.buffers.as_ref().is_some_and(|buffers| {
            buffers.arena.size() >= size
                && buffers.pixels.size() >= pixels
                && buffers.features.size() >= features.total()
        });
        if fits {
            return Ok(());
        }
        self.release()?;
        let stream = self.queue.stream();
        self.buffers = Some(Buffers {
            passes: HashMap::new(),
            arena: Arena::new(stream, size)?,
            pixels: Pinned::new(stream, pixels)?,
            features: Pinned::new(stream, features.total())?,
        });
        Ok(())
    }

    /// Gives the memory back. Nothing may be on its way.
    pub fn release(&mut self) -> Result<()> {
        let stream = self.queue.stream();
        stream.synchronize()?;
        self.buffers = None;
        // The allocation goes back when the stream has come to it.
        Ok(stream.synchronize()?)
    }

    /// Starts to encode `pixels`, as a batch of the size that room was made for; what they lack is left as it was.
    pub fn launch(&mut self, loaded: &Loaded, batch: Batch, pixels: &[u8]) -> Result<Arc<Piece>> {
        let images = pixels.len() / loaded.tower.sizes().pixel_bytes();
        let buffers = self.buffers()?;
        buffers.pixels.bytes_mut()[..pixels.len()].copy_from_slice(pixels);
        if !buffers.passes.contains_key(&batch) {
            self.capture(loaded, batch)?;
        }
        let piece = Arc::new(Piece {
            images,
            batch,
            features: Mutex::default(),
        });
        if let Some(pass) = self.buffers()?.passes.get(&batch) {
            pass.launch()?;
        }
        self.done.record(self.queue.stream())?;
        self.open = Some(piece.clone());
        Ok(piece)
    }

    /// Waits for the batch that is on its way and keeps its features in its piece.
    pub fn finish(&mut self, tower: &Tower) -> Result<()> {
        let Some(piece) = self.open.take() else {
            return Ok(());
        };
        self.done.synchronize()?;
        let batch = piece.batch;
        let computed = feature_bytes(tower, batch);
        let wanted = feature_bytes(
            tower,
            Batch {
                images: piece.images,
                ..batch
            },
        );
        let (global, local) = self.buffers()?.features.bytes().split_at(computed.global);
        let features = Features {
            global: values(&global[..wanted.global]),
            local: values(&local[..wanted.local]),
        };
        *piece
            .features
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(features);
        Ok(())
    }

    /// Runs a pass once, launch by launch, in which products are planned and libraries load their kernels, and then captures
    /// it as a graph. What the first run computes is wrong where algorithms were timed.
    fn capture(&mut self, loaded: &Loaded, batch: Batch) -> Result<()> {
        let stream = self.queue.stream().clone();
        self.enqueue(loaded, batch)?;
        stream.synchronize()?;
        // Other threads may allocate meanwhile.
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        let enqueued = self.enqueue(loaded, batch);
        let captured = stream.end_capture(CUgraphInstantiate_flags(0));
        enqueued?;
        let nothing = || CudaError::Failed("a pass was captured as an empty graph".into());
        let pass = captured?.ok_or_else(nothing)?;
        pass.upload()?;
        self.buffers()?.passes.insert(batch, pass);
        Ok(())
    }

    /// Upload, tower, features back.
    fn enqueue(&mut self, loaded: &Loaded, batch: Batch) -> Result<()> {
        let Loaded { tower, weights } = loaded;
        let places = tower.places(batch);
        let stream = self.queue.stream().clone();
        let buffers = self.buffers()?;
        let arena = buffers.arena.address();
        buffers
            .pixels
            .enqueue_upload(&stream, arena + places.pixels, pixel_bytes(tower, batch))?;
        let memory = Memory {
            weights: weights.address(),
            arena,
        };
        tower.enqueue(&mut self.queue, batch, memory)?;
        let bytes = feature_bytes(tower, batch);
        let features = &mut self.buffers()?.features;
        features.enqueue_download(&stream, arena + places.global, 0, bytes.global)?;
        if batch.local {
            features.enqueue_download(&stream, arena + places.local, bytes.global, bytes.local)?;
        }
        Ok(())
    }

    fn buffers(&mut self) -> Result<&mut Buffers> {
        let missing = || CudaError::Failed("a batch was launched without room for it".into());
        self.buffers.as_mut().ok_or_else(missing)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // The GPU must not write to memory that is given back; nothing useful can be done about an error here.
        let _ = self.queue.stream().synchronize();
    }
}

/// Bytes of a batch's pixels.
fn pixel_bytes(tower: &Tower, batch: Batch) -> usize {
    batch.images * tower.sizes().pixel_bytes()
}

/// Bytes of a batch's features.
struct FeatureBytes {
    global: usize,
    local: usize,
}

impl FeatureBytes {
    fn total(&self) -> usize {
        self.global + self.local
    }
}

fn feature_bytes(tower: &Tower, batch: Batch) -> FeatureBytes {
    let global = batch.images * tower.sizes().dim * FEATURE;
    let local = if batch.local {
        global * tower.positions()
    } else {
        0
    };
    FeatureBytes { global, local }
}

fn values(bytes: &[u8]) -> Vec<f32> {
    let words = bytes.as_chunks::<FEATURE>().0.iter();
    words.map(|word| f32::from_ne_bytes(*word)).collect()
}
