//! Device memory: one allocation, whose parts are placed before it is made, and page-locked memory of the host.

use std::sync::Arc;

use cudarc::driver::result::{memcpy_dtoh_async, memcpy_htod_async};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, PinnedHostSlice};

use crate::error::{CudaError, Result};

/// Every part of an arena begins at a multiple of this many bytes.
const ALIGNMENT: usize = 256;

/// Places of parts in one allocation that is yet to be made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Places {
    size: usize,
}

impl Places {
    /// The offset of a new part of `bytes` bytes.
    pub fn place(&mut self, bytes: usize) -> u64 {
        let at = self.size;
        self.size = (at + bytes).next_multiple_of(ALIGNMENT);
        at as u64
    }

    /// Bytes of all parts.
    pub fn size(self) -> usize {
        self.size
    }
}

/// One allocation on a GPU.
#[derive(Debug)]
pub struct Arena {
    slice: CudaSlice<u8>,
    address: u64,
}

impl Arena {
    /// `bytes` bytes of zeros.
    ///
    /// # Errors
    /// The GPU has no memory left, or fails.
    pub fn new(stream: &Arc<CudaStream>, bytes: usize) -> Result<Self> {
        let slice = stream
            .alloc_zeros::<u8>(bytes.max(1))
            .map_err(|error| match error.into() {
                CudaError::OutOfMemory { .. } => CudaError::OutOfMemory { bytes },
                other => other,
            })?;
        let (address, _) = slice.device_ptr(stream);
        Ok(Self { slice, address })
    }

    /// A copy of `bytes`, after which the stream is idle.
    ///
    /// # Errors
    /// As [`Arena::new`].
    pub fn upload(stream: &Arc<CudaStream>, bytes: &[u8]) -> Result<Self> {
        let arena = Self::new(stream, bytes.len())?;
        arena.write(stream, 0, bytes)?;
        stream.synchronize()?;
        Ok(arena)
    }

    /// Address of the first byte.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        self.slice.len()
    }

    /// Enqueues a copy to the part that begins at `offset`; `bytes` may be freed when it returns, unless it is page-locked.
    ///
    /// # Errors
    /// The part is larger than the arena, or the GPU fails.
    pub fn write(&self, stream: &Arc<CudaStream>, offset: usize, bytes: &[u8]) -> Result<()> {
        self.check(offset, bytes.len())?;
        // SAFETY: the part is inside of the allocation, as just checked.
        unsafe { memcpy_htod_async(self.address + offset as u64, bytes, stream.cu_stream()) }
            .map_err(CudaError::from)
    }

    /// The `bytes` bytes from `offset` on, after all work of the stream.
    ///
    /// # Errors
    /// The part is larger than the arena, or the GPU fails.
    pub fn read(&self, stream: &Arc<CudaStream>, offset: usize, bytes: usize) -> Result<Vec<u8>> {
        self.check(offset, bytes)?;
        let mut found = vec![0u8; bytes];
        // SAFETY: the part is inside of the allocation, as just checked, and `found` lives until the stream is idle.
        unsafe { memcpy_dtoh_async(&mut found, self.address + offset as u64, stream.cu_stream())? };
        stream.synchronize()?;
        Ok(found)
    }

    fn check(&self, offset: usize, bytes: usize) -> Result<()> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.slice.len() => Ok(()),
            _ => Err(CudaError::Failed(format!(
                "a copy of {bytes} bytes at {offset} leaves an allocation of {}",
                self.slice.len()
            ))),
        }
    }
}

/// Page-locked memory of the host, which a GPU reads and writes while the host works.
pub struct Pinned {
    slice: PinnedHostSlice<u8>,
    pointer: *mut u8,
}

// SAFETY: the memory belongs to this value alone; the driver does not tie it to a thread.
unsafe impl Send for Pinned {}

impl Pinned {
    /// `bytes` bytes of zeros.
    ///
    /// # Errors
    /// The host has no memory that can be locked.
    pub fn new(stream: &Arc<CudaStream>, bytes: usize) -> Result<Self> {
        // SAFETY: filled below, before anything reads it. Flags 0: cudarc's default is write-combined memory, which is slow to
        // read.
        let mut slice = unsafe {
            stream
                .context()
                .alloc_pinned_with_flags::<u8>(bytes.max(1), 0)?
        };
        slice.as_mut_slice()?.fill(0);
        let pointer = slice.as_mut_ptr()?;
        Ok(Self { slice, pointer })
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        self.slice.len()
    }

    /// The memory. Nothing of the GPU may be writing to it.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the allocation has that many bytes, all of them initialised.
        unsafe { std::slice::from_raw_parts(self.pointer, self.slice.len()) }
    }

    /// The memory. Nothing of the GPU may be reading or writing it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.slice.len()) }
    }

    /// Enqueues a copy of the first `bytes` bytes to a device address. May be part of a graph.
    ///
    /// # Errors
    /// The GPU fails.
    pub fn enqueue_upload(&self, stream: &CudaStream, to: u64, bytes: usize) -> Result<()> {
        let from = &self.bytes()[..bytes];
        // SAFETY: the caller owns `bytes` bytes at `to`; this memory outlives the stream's work.
        unsafe { memcpy_htod_async(to, from, stream.cu_stream()) }.map_err(CudaError::from)
    }

    /// Enqueues a copy of `bytes` bytes of a device address to place `at`. May be part of a graph.
    ///
    /// # Errors
    /// The GPU fails.
    pub fn enqueue_download(
        &mut self,
        stream: &CudaStream,
        from: u64,
        at: usize,
        bytes: usize,
    ) -> Result<()> {
        let to = &mut self.bytes_mut()[at..at + bytes];
        // SAFETY: the caller owns `bytes` bytes at `from`; this memory outlives the stream's work.
        unsafe { memcpy_dtoh_async(to, from, stream.cu_stream()) }.map_err(CudaError::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_aligned_and_do_not_overlap() {
        let mut places = Places::default();
        let mut end = 0;
        for bytes in [1, 0, 256, 257, 4096, 3] {
            let at = places.place(bytes);
            assert!(at.is_multiple_of(ALIGNMENT as u64) && at >= end);
            end = at + bytes as u64;
        }
        assert!(places.size() as u64 >= end && places.size().is_multiple_of(ALIGNMENT));
    }
}
