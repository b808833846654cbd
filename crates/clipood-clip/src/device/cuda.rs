//! NVIDIA GPUs: which there are, those that were opened, and where compiled kernels are kept.
//!
//! Nothing of CUDA is linked. `clipood-cuda` loads the driver, the run-time compiler and cuBLASLt when a GPU is first asked
//! for, and says what is missing. Models that it has no kernels for, and GPUs that are too old for them, take Burn's own
//! operations ([`super::stock`]). Compiled kernels are kept in `$CLIPOOD_CACHE`, or else in the user's cache folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use clipood_cuda::gpu::{self, Description, Gpu};
use clipood_cuda::{CudaError, libraries};

use crate::error::{ClipError, Result};

impl From<CudaError> for ClipError {
    fn from(problem: CudaError) -> Self {
        Self::Device(problem.to_string())
    }
}

/// Number of GPUs, if the libraries that they need are there.
///
/// # Errors
/// What is missing.
pub fn usable() -> std::result::Result<usize, CudaError> {
    let count = gpu::gpus()?.len();
    libraries::check()?;
    Ok(count)
}

/// What the driver says about the GPU `index`, after it was opened.
///
/// # Errors
/// What is missing, or a GPU that cannot be opened.
pub fn checked(index: usize) -> std::result::Result<&'static Description, CudaError> {
    match opened(index) {
        // Burn's own operations run there.
        Ok(_) | Err(CudaError::OldGpu(_)) => gpu::description(index),
        Err(problem) => Err(problem),
    }
}

/// The GPU `index`, opened on first use.
///
/// # Errors
/// What is missing, a GPU that cannot be opened, or one that is too old for the kernels.
pub fn opened(index: usize) -> std::result::Result<Gpu, CudaError> {
    static OPENED: Mutex<BTreeMap<usize, Gpu>> = Mutex::new(BTreeMap::new());
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(gpu) = opened.get(&index) {
        return Ok(gpu.clone());
    }
    let gpu = Gpu::open(index, Some(&cache_folder()))?;
    opened.insert(index, gpu.clone());
    Ok(gpu)
}

/// Bytes in use on the GPU `index`, by every program together.
///
/// # Errors
/// What is missing.
pub fn memory_in_use(index: usize) -> Result<u64> {
    Ok(gpu::memory_in_use(index)?)
}

/// Folder of compiled kernels.
pub fn cache_folder() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = set("CLIPOOD_CACHE") {
        return PathBuf::from(folder);
    }
    set("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("clipood")
        .join("cuda")
}
