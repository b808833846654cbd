//! Which GPUs there are, and [`Gpu`], one of them ready for work.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use cudarc::driver::sys::{self as driver, CUdevice_attribute};
use cudarc::driver::{CudaContext, DriverError, result};

use crate::error::{CudaError, Result, describe};
use crate::libraries;

/// Compute capability that the kernels need: `cp.async`, and `mma` of bfloat16.
const OLDEST: (i32, i32) = (8, 0);

/// What the driver says about a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Bytes of memory.
    pub memory: u64,
    /// Compute capability, (9, 0) for 9.0.
    pub capability: (i32, i32),
}

impl Description {
    /// The architecture as compilers name it, such as `sm_90`.
    pub fn architecture(&self) -> String {
        let (major, minor) = self.capability;
        format!("sm_{major}{minor}")
    }
}

/// All GPUs that the driver shows to this process. It is asked once.
///
/// # Errors
/// No driver, no GPU, or a driver that does not start.
pub fn gpus() -> Result<&'static [Description]> {
    static FOUND: OnceLock<Result<Vec<Description>>> = OnceLock::new();
    FOUND.get_or_init(look).as_deref().map_err(Clone::clone)
}

/// The GPU `index`.
///
/// # Errors
/// As [`gpus`], and a number that is too high.
pub fn description(index: usize) -> Result<&'static Description> {
    let found = gpus()?;
    found.get(index).ok_or(CudaError::NoSuchGpu {
        index,
        count: found.len(),
    })
}

/// Bytes in use on the GPU `index`, by every program together.
///
/// # Errors
/// As [`description`], and a context that the driver refuses.
pub fn memory_in_use(index: usize) -> Result<u64> {
    let gpu = Gpu {
        description: description(index)?,
        context: CudaContext::new(index)?,
        cache: None,
    };
    gpu.memory_in_use()
}

fn look() -> Result<Vec<Description>> {
    libraries::load_driver()?;
    let failed = |error: DriverError| CudaError::Driver(describe(error));
    match result::init() {
        Err(DriverError(driver::CUresult::CUDA_ERROR_NO_DEVICE)) => return Err(CudaError::NoGpu),
        other => other.map_err(failed)?,
    }
    let count = result::device::get_count().map_err(failed)?;
    let found = (0..count)
        .map(describe_gpu)
        .collect::<std::result::Result<Vec<_>, _>>();
    let found = found.map_err(failed)?;
    match found.is_empty() {
        true => Err(CudaError::NoGpu),
        false => Ok(found),
    }
}

fn describe_gpu(ordinal: i32) -> std::result::Result<Description, DriverError> {
    let device = result::device::get(ordinal)?;
    // SAFETY: `device` comes from the driver.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) };
    Ok(Description {
        name: result::device::get_name(device)?,
        // SAFETY: as above.
        memory: unsafe { result::device::total_mem(device)? } as u64,
        capability: (
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
    })
}

/// A GPU with an open context.
#[derive(Debug, Clone)]
pub struct Gpu {
    description: &'static Description,
    context: Arc<CudaContext>,
    cache: Option<PathBuf>,
}

impl Gpu {
    /// Opens the GPU `index`; compiled kernels are kept in `cache`.
    ///
    /// # Errors
    /// As [`description`], a GPU too old for the kernels, and a context that the driver refuses.
    pub fn open(index: usize, cache: Option<&Path>) -> Result<Self> {
        let description = description(index)?;
        if description.capability < OLDEST {
            let (major, minor) = description.capability;
            return Err(CudaError::OldGpu(format!("{major}.{minor}")));
        }
        libraries::check()?;
        let context = CudaContext::new(index)?;
        // SAFETY: every buffer of this crate is used on one stream, or is idle when another stream takes it. cudarc's own
        // tracking would add events to each launch, also inside of a graph, where they are refused.
        unsafe { context.disable_event_tracking() };
        Ok(Self {
            description,
            context,
            cache: cache.map(Path::to_path_buf),
        })
    }

    /// What the driver says about it.
    pub fn description(&self) -> &'static Description {
        self.description
    }

    /// The architecture as compilers name it, such as `sm_90`.
    pub fn architecture(&self) -> String {
        self.description.architecture()
    }

    /// Bytes in use, by every program together.
    ///
    /// # Errors
    /// The driver fails.
    pub fn memory_in_use(&self) -> Result<u64> {
        let (free, total) = self.context.mem_get_info()?;
        Ok((total - free) as u64)
    }

    /// The driver's context.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// Folder of compiled kernels.
    pub fn cache(&self) -> Option<&Path> {
        self.cache.as_deref()
    }
}
