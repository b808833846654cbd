//! Burn's own operations on NVIDIA GPUs: for models without kernels of ours, for GPUs that are too old for them, and for tests.
//!
//! Burn compiles its kernels with CUDA's headers and tunes each of them by trial, which takes minutes. Where it would panic for
//! want of a file, this module has looked before and says which. Kernels and the choices of tuning are kept in the same folder
//! as ours, apart for every architecture and compiler version. Candidates that fail while Burn tunes panic inside of it; those
//! panics are not printed.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};

use burn::tensor::Tensor;
use burn_cuda::{Cuda, CudaDevice};
use clipood_cuda::gpu::Description;
use clipood_cuda::toolkit::{self, HEADERS, Toolkit};
use clipood_cuda::{CudaError, gpu, libraries};
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig, cache::CacheConfig};

use super::cuda::cache_folder;
use crate::error::{ClipError, Result};

/// What Burn's operations lack.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Problem {
    /// The compiler would not find its headers.
    #[error(
        "CUDA's headers are missing: no {missing} in {looked}; set CUDA_PATH to the toolkit, or `pip install nvidia-cuda-runtime nvidia-cuda-crt nvidia-cuda-cccl`"
    )]
    NoHeaders {
        /// The first file that is missing in the best place.
        missing: String,
        /// Folders that were looked through.
        looked: String,
    },
    /// All is there, but a first kernel fails.
    #[error("a first kernel of Burn's fails on cuda:{index}: {reason}")]
    Kernel {
        /// The GPU.
        index: usize,
        /// What Burn said.
        reason: String,
    },
}

impl From<Problem> for ClipError {
    fn from(problem: Problem) -> Self {
        Self::Device(problem.to_string())
    }
}

/// The device as Burn knows it, after a first kernel has run on it.
///
/// # Errors
/// What is missing.
pub fn burn_device(index: usize) -> Result<CudaDevice> {
    static READY: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let mut ready = READY.lock().unwrap_or_else(PoisonError::into_inner);
    if !ready.contains(&index) {
        let gpus = gpu::gpus()?;
        gpu::description(index)?;
        if ready.is_empty() {
            super::kernels_may_compile();
            silence_tuning();
            let compiler = check_versions()?;
            point_to_headers(&toolkit::candidates())?;
            keep_kernels(gpus, &compiler);
        }
        probe(index)?;
        ready.push(index);
    }
    Ok(CudaDevice::new(index))
}

/// Keeps panics of Burn's tuning off the terminal: it catches them itself and takes the next candidate. A panic that it does not
/// catch still becomes the error of the thread that called it.
fn silence_tuning() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
            let file = panic.location().map(|location| location.file());
            if !file.is_some_and(is_of_burn) {
                before(panic);
            }
        }));
    });
}

/// Whether a source file belongs to Burn or the runtime under it.
fn is_of_burn(file: &str) -> bool {
    file.split(['/', '\\']).any(|folder| {
        folder.starts_with("burn-") || folder.starts_with("cubecl") || folder.starts_with("cubek")
    })
}

/// The compiler's version, which must not be above the driver's: Burn hands PTX to the driver, which would refuse it.
fn check_versions() -> Result<String> {
    let (found, driver) = (libraries::nvrtc_version()?, libraries::driver_version()?);
    let text = |(major, minor): (i32, i32)| format!("{major}.{minor}");
    if found > driver {
        let (driver, found) = (text(driver), text(found));
        return Err(CudaError::OldDriver {
            library: "libnvrtc",
            driver,
            found,
        }
        .into());
    }
    Ok(text(found))
}

/// Sets CUDA_PATH, which is where Burn's compiler looks, to the first toolkit with all headers.
fn point_to_headers(toolkits: &[Toolkit]) -> std::result::Result<(), Problem> {
    if let Some(toolkit) = toolkits.iter().find(|t| t.missing_header().is_none()) {
        // SAFETY: happens once, before Burn's first device exists, under a lock. Other threads of this process do not write the
        // environment, and nothing of it reads the environment through C.
        unsafe { std::env::set_var("CUDA_PATH", &toolkit.prefix) };
        return Ok(());
    }
    // The place that has most of them tells best what to install.
    let best = toolkits.iter().filter(|t| t.has_some_headers());
    let missing = best.filter_map(Toolkit::missing_header).next();
    let looked: Vec<String> = toolkits
        .iter()
        .map(|t| t.prefix.join("include").display().to_string())
        .collect();
    Err(Problem::NoHeaders {
        missing: missing.unwrap_or(HEADERS[0]).to_string(),
        looked: if looked.is_empty() {
            "CUDA_PATH, /usr/local/cuda, /opt/cuda, /usr and pip's nvidia packages".to_string()
        } else {
            looked.join(", ")
        },
    })
}

/// Tells Burn where to keep compiled kernels. Their names do not hold the architecture, so the folder does; kernels are
/// compiled anew in each process where the GPUs differ. A configuration that somebody set before stays.
fn keep_kernels(gpus: &[Description], compiler: &str) {
    let first = gpus
        .first()
        .map(Description::architecture)
        .unwrap_or_default();
    let name = format!("burn-{first}-nvrtc{compiler}");
    let mut folder = cache_folder().join(&name);
    if std::fs::create_dir_all(&folder).is_err() {
        // A home that cannot be written to.
        folder = std::env::temp_dir().join("clipood-cuda").join(name);
    }
    let mut config = CubeClRuntimeConfig::default().override_from_env();
    if gpus.iter().all(|gpu| gpu.architecture() == first) {
        config.compilation.cache = Some(CacheConfig::File(folder.clone()));
    }
    config.autotune.cache = CacheConfig::File(folder);
    let unset = CubeClRuntimeConfig::storage().lock().is_none();
    if unset {
        CubeClRuntimeConfig::set(config);
    }
}

/// Runs a product and a sum whose result is known.
fn probe(index: usize) -> std::result::Result<(), Problem> {
    let device = CudaDevice::new(index);
    let sum = catch_unwind(AssertUnwindSafe(|| {
        let ones = Tensor::<Cuda, 2>::ones([16, 16], &device);
        let sum = ones.clone().matmul(ones).sum();
        sum.try_into_data().map(|data| data.iter::<f32>().next())
    }));
    let reason = match sum {
        Ok(Ok(Some(4096.0))) => return Ok(()),
        Ok(Ok(other)) => format!("expected 4096, found {other:?}"),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => message(panic.as_ref()),
    };
    Err(Problem::Kernel { index, reason })
}

/// The text of a panic.
pub(crate) fn message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_string())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_panics_of_burn_are_kept_off_the_terminal() {
        let registry = "/home/u/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f";
        for file in [
            "cubecl-cuda-0.10.0/src/compute/context.rs",
            "burn-cubecl-0.21.0/src/kernel/matmul/tune/base.rs",
            "cubecl-runtime-0.10.0/src/tune/tuner.rs",
        ] {
            assert!(is_of_burn(&format!("{registry}/{file}")), "{file}");
        }
        for file in [
            "crates/clipood-clip/src/device/stock.rs",
            "/home/burn/x/crates/clipood/src/main.rs",
            "/rustc/1/library/core/src/option.rs",
        ] {
            assert!(!is_of_burn(file), "{file}");
        }
    }
}
