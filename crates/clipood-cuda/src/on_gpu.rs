//! [`OnGpu`]: a [`Queue`] with one allocation, the [`Device`] that is a GPU.

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaGraph, sys::CUdevice_attribute as Attribute};

use crate::card::Card;
use crate::compile::Program;
use crate::error::{CudaError, Result};
use crate::executor::{Executor, Launch};
use crate::gpu::Gpu;
use crate::memory::Arena;
use crate::product::{Choice, Operands, Shape};
use crate::queue::{Kernels, Queue};
use crate::space::{Device, Space};

/// Kernels, products and memory of one model on a GPU.
pub struct OnGpu {
    queue: Queue,
    arena: Arena,
    passes: Vec<Pass>,
}

/// What is known of a pass that repeats.
enum Pass {
    /// It has not run: products of its shapes have no plan, and the library's kernels are not loaded.
    New,
    /// It has run once and can be recorded.
    Known,
    /// It is recorded.
    Recorded(CudaGraph),
    /// The driver does not record it; it is launched piece by piece.
    Plain,
}

// SAFETY: a recorded pass belongs to this value alone and is used by one thread at a time (`&mut self`); the driver does not tie
// it to the thread that made it.
unsafe impl Send for OnGpu {}

impl OnGpu {
    /// Compiles the program, allocates the space and fills it. Algorithms of products are a fixed choice, so that equal inputs
    /// give equal bits in every process on one GPU model.
    ///
    /// # Errors
    /// A library is missing, the GPU has no memory left, or fails.
    pub fn new(gpu: &Gpu, program: &Program, space: &mut Space) -> Result<Self> {
        let queue = Queue::new(gpu, Kernels::load(gpu, program)?, Choice::Fixed)?;
        let arena = Arena::new(queue.stream(), space.size())?;
        for (at, bytes) in space.take_contents() {
            arena.write(queue.stream(), at as usize, &bytes)?;
        }
        queue.stream().synchronize()?;
        Ok(Self {
            queue,
            arena,
            passes: Vec::new(),
        })
    }

    fn offset(&self, at: u64) -> Result<usize> {
        let offset = at.checked_sub(self.arena.address());
        let offset = offset.ok_or_else(|| {
            CudaError::Failed(format!("address {at:#x} is before the allocation"))
        })?;
        Ok(offset as usize)
    }

    fn record(
        &mut self,
        pass: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<Option<CudaGraph>> {
        let stream = self.queue.stream().clone();
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        let outcome = pass(&mut self.queue);
        // Also after an error, or the stream stays in this state.
        let graph = stream.end_capture(CUgraphInstantiate_flags(0));
        outcome?;
        Ok(graph?)
    }
}

impl Executor for OnGpu {
    fn launch(&mut self, launch: &Launch<'_>) -> Result<()> {
        self.queue.launch(launch)
    }

    fn product(&mut self, shape: &Shape, operands: &Operands) -> Result<()> {
        self.queue.product(shape, operands)
    }
}

impl Device for OnGpu {
    fn base(&self) -> u64 {
        self.arena.address()
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.arena
            .write(self.queue.stream(), self.offset(at)?, bytes)
    }

    fn read(&mut self, at: u64, bytes: usize) -> Result<Vec<u8>> {
        self.arena
            .read(self.queue.stream(), self.offset(at)?, bytes)
    }

    fn repeat(
        &mut self,
        slot: usize,
        pass: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<()> {
        while self.passes.len() <= slot {
            self.passes.push(Pass::New);
        }
        if matches!(self.passes[slot], Pass::Known) {
            self.passes[slot] = match self.record(pass) {
                Ok(Some(graph)) => Pass::Recorded(graph),
                Ok(None) | Err(_) => Pass::Plain,
            };
        }
        match &self.passes[slot] {
            Pass::Recorded(graph) => Ok(graph.launch()?),
            Pass::Plain | Pass::Known => pass(&mut self.queue),
            Pass::New => {
                pass(&mut self.queue)?;
                self.passes[slot] = Pass::Known;
                Ok(())
            }
        }
    }
}

impl Card {
    /// The sizes of a GPU.
    ///
    /// # Errors
    /// The driver fails.
    pub fn of(gpu: &Gpu) -> Result<Self> {
        let attribute =
            |which| Ok::<usize, CudaError>(gpu.context().attribute(which)?.max(0) as usize);
        Ok(Self {
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_per_block: attribute(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )?,
            shared_per_multiprocessor: attribute(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
            )?,
        })
    }
}
