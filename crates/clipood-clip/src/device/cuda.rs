//! NVIDIA GPUs: whether there is one, what of CUDA is missing, and where compiled kernels are kept.
//!
//! Nothing of CUDA is linked. The driver (`libcuda`) and the run-time compiler (`libnvrtc`) are loaded when a GPU is
//! first asked for, and the compiler reads CUDA's headers. Where Burn would panic for want of one of them, this module has
//! looked before and says which. Kernels and the choices of autotuning are kept in `$CLIPOOD_CACHE`, or else under the
//! user's cache folder, apart for every GPU architecture and compiler version.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::tensor::Tensor;
use burn_cuda::{Cuda, CudaDevice};
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig, cache::CacheConfig};
use cudarc::driver::sys::CUdevice_attribute;
use cudarc::driver::{CudaContext, DriverError, result, sys as driver};
use cudarc::nvrtc::sys as nvrtc;

use clipood_cuda::toolkit::{self, HEADERS, Toolkit};
use crate::error::{ClipError, Result};

/// Why a GPU cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CudaProblem {
    /// `libcuda` is not on the machine.
    #[error("the NVIDIA driver is not installed: libcuda cannot be loaded; take `--devices cpu`")]
    NoDriver,
    /// The driver is there but does not start.
    #[error(
        "the NVIDIA driver does not start: {0}; look whether `nvidia-smi` works and whether the GPU is passed into this container or job"
    )]
    Driver(String),
    /// The driver sees no GPU.
    #[error(
        "the NVIDIA driver finds no GPU; look at `nvidia-smi` and CUDA_VISIBLE_DEVICES, or take `--devices cpu`"
    )]
    NoGpu,
    /// A GPU of a higher number than there are.
    #[error("no GPU cuda:{index}: the driver finds {count}, numbered from 0")]
    NoSuchGpu {
        /// The number asked for.
        index: usize,
        /// GPUs found.
        count: usize,
    },
    /// The run-time compiler is missing.
    #[error(
        "CUDA's run-time compiler is missing: libnvrtc cannot be loaded; install the CUDA toolkit and put its lib64 into LD_LIBRARY_PATH, or `pip install nvidia-cuda-nvrtc`"
    )]
    NoCompiler,
    /// The compiler writes kernels that the driver cannot read.
    #[error(
        "the driver is for CUDA {driver}, libnvrtc of CUDA {compiler}: update the driver or install libnvrtc of CUDA {driver} or older"
    )]
    OldDriver {
        /// CUDA version of the driver.
        driver: String,
        /// CUDA version of the compiler.
        compiler: String,
    },
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
    #[error("a first kernel fails on cuda:{index}: {reason}")]
    Kernel {
        /// The GPU.
        index: usize,
        /// What Burn said.
        reason: String,
    },
}

impl CudaProblem {
    /// Whether there is no GPU to use, so that `auto` need not mention it.
    pub fn means_no_gpu(&self) -> bool {
        matches!(self, Self::NoDriver | Self::NoGpu)
    }
}

impl From<CudaProblem> for ClipError {
    fn from(problem: CudaProblem) -> Self {
        Self::Device(problem.to_string())
    }
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// The driver's name of it.
    pub name: String,
    /// Bytes of memory.
    pub memory: u64,
    /// Compute capability, 90 for 9.0.
    pub architecture: i32,
}

/// What was found on first use.
#[derive(Debug)]
struct Found {
    gpus: Vec<Gpu>,
    /// Whether a first kernel ran, by GPU.
    probed: Vec<OnceLock<std::result::Result<(), CudaProblem>>>,
}

/// Number of GPUs, if everything that they need is there.
///
/// # Errors
/// What is missing.
pub fn usable() -> std::result::Result<usize, CudaProblem> {
    Ok(found()?.gpus.len())
}

/// The GPU `index`, after a first kernel has run on it.
///
/// # Errors
/// What is missing.
pub fn gpu(index: usize) -> std::result::Result<Gpu, CudaProblem> {
    let found = found()?;
    let (Some(gpu), Some(probed)) = (found.gpus.get(index), found.probed.get(index)) else {
        return Err(CudaProblem::NoSuchGpu {
            index,
            count: found.gpus.len(),
        });
    };
    probed.get_or_init(|| probe(index)).clone()?;
    Ok(gpu.clone())
}

/// The device as Burn knows it, after the checks of [`gpu`].
///
/// # Errors
/// What is missing.
pub fn burn_device(index: usize) -> Result<CudaDevice> {
    gpu(index)?;
    Ok(CudaDevice::new(index))
}

/// Bytes in use on the GPU `index`, by every program together.
///
/// # Errors
/// What is missing.
pub fn memory_in_use(index: usize) -> Result<u64> {
    gpu(index)?;
    let (free, total) = CudaContext::new(index)
        .and_then(|context| context.mem_get_info())
        .map_err(driver_problem)?;
    Ok((total - free) as u64)
}

/// Folder of compiled kernels and autotuning choices.
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

/// Looks once; later calls remember.
fn found() -> std::result::Result<&'static Found, CudaProblem> {
    static FOUND: OnceLock<std::result::Result<Found, CudaProblem>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            // A library of another age may lack a function, which the bindings answer with a panic.
            catch_unwind(look)
                .unwrap_or_else(|panic| Err(CudaProblem::Driver(message(panic.as_ref()))))
        })
        .as_ref()
        .map_err(Clone::clone)
}

fn look() -> std::result::Result<Found, CudaProblem> {
    // SAFETY: loads the driver's library, as every later call does.
    if !unsafe { driver::is_culib_present() } {
        return Err(CudaProblem::NoDriver);
    }
    match result::init() {
        Err(DriverError(driver::CUresult::CUDA_ERROR_NO_DEVICE)) => return Err(CudaProblem::NoGpu),
        other => other.map_err(driver_problem)?,
    }
    let count = result::device::get_count().map_err(driver_problem)?;
    let gpus = (0..count)
        .map(describe)
        .collect::<std::result::Result<Vec<_>, _>>()?;
    if gpus.is_empty() {
        return Err(CudaProblem::NoGpu);
    }
    let toolkits = toolkit::candidates();
    load_compiler(&toolkits)?;
    let compiler = check_versions()?;
    point_to_headers(&toolkits)?;
    keep_kernels(&gpus, &compiler);
    let probed = gpus.iter().map(|_| OnceLock::new()).collect();
    Ok(Found { gpus, probed })
}

fn driver_problem(error: DriverError) -> CudaProblem {
    CudaProblem::Driver(format!("{error:?}"))
}

fn describe(ordinal: i32) -> std::result::Result<Gpu, CudaProblem> {
    let device = result::device::get(ordinal).map_err(driver_problem)?;
    // SAFETY: `device` comes from the driver.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) };
    let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
        .map_err(driver_problem)?;
    let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
        .map_err(driver_problem)?;
    // SAFETY: as above.
    let memory = unsafe { result::device::total_mem(device) }.map_err(driver_problem)?;
    Ok(Gpu {
        name: result::device::get_name(device).map_err(driver_problem)?,
        memory: memory as u64,
        architecture: 10 * major + minor,
    })
}

/// Makes sure that a later `dlopen` by name finds the compiler: where the loader does not know it, a toolkit's own is
/// loaded by its path and stays loaded.
fn load_compiler(toolkits: &[Toolkit]) -> std::result::Result<(), CudaProblem> {
    // SAFETY: loads the compiler's library, as every later call does.
    let present = || unsafe { nvrtc::is_culib_present() };
    if present() {
        return Ok(());
    }
    #[cfg(unix)]
    for file in toolkits.iter().flat_map(|toolkit| toolkit.files("libnvrtc")) {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
        // SAFETY: NVIDIA's library, whose constructors do nothing but initialise it.
        if let Ok(library) = unsafe { Library::open(Some(&file), RTLD_NOW | RTLD_GLOBAL) } {
            std::mem::forget(library);
            if present() {
                return Ok(());
            }
        }
    }
    Err(CudaProblem::NoCompiler)
}

/// The compiler's version, which must not be above the driver's: the driver would refuse its kernels.
fn check_versions() -> std::result::Result<String, CudaProblem> {
    let (mut major, mut minor, mut supported) = (0, 0, 0);
    // SAFETY: both functions write to the integers they are given.
    let asked = unsafe {
        driver::cuDriverGetVersion(&mut supported)
            .result()
            .map_err(driver_problem)?;
        nvrtc::nvrtcVersion(&mut major, &mut minor).result()
    };
    if asked.is_err() {
        return Err(CudaProblem::NoCompiler);
    }
    let compiler = format!("{major}.{minor}");
    if 1000 * major + 10 * minor > supported {
        return Err(CudaProblem::OldDriver {
            driver: format!("{}.{}", supported / 1000, supported % 1000 / 10),
            compiler,
        });
    }
    Ok(compiler)
}

/// Sets CUDA_PATH, which is where Burn's compiler looks, to the first toolkit with all headers.
fn point_to_headers(toolkits: &[Toolkit]) -> std::result::Result<(), CudaProblem> {
    if let Some(toolkit) = toolkits.iter().find(|t| t.missing_header().is_none()) {
        // SAFETY: happens once, when the command line is read and before any worker thread or device exists; nothing of
        // this process reads the environment through C at that time.
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
    Err(CudaProblem::NoHeaders {
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
fn keep_kernels(gpus: &[Gpu], compiler: &str) {
    let first = gpus.first().map_or(0, |gpu| gpu.architecture);
    let name = format!("sm{first}-nvrtc{compiler}");
    let mut folder = cache_folder().join(&name);
    if std::fs::create_dir_all(&folder).is_err() {
        // A home that cannot be written to.
        folder = std::env::temp_dir().join("clipood-cuda").join(name);
    }
    let mut config = CubeClRuntimeConfig::default().override_from_env();
    if gpus.iter().all(|gpu| gpu.architecture == first) {
        config.compilation.cache = Some(CacheConfig::File(folder.clone()));
    }
    config.autotune.cache = CacheConfig::File(folder);
    let unset = CubeClRuntimeConfig::storage().lock().is_none();
    if unset {
        CubeClRuntimeConfig::set(config);
    }
}

/// Runs a product and a sum whose result is known.
fn probe(index: usize) -> std::result::Result<(), CudaProblem> {
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
    Err(CudaProblem::Kernel { index, reason })
}

/// The text of a panic.
pub(crate) fn message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_string())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_string())
}
