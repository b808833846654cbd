//! What can go wrong with a GPU, its libraries and its memory.

use cudarc::cublaslt::result::CublasError;
use cudarc::driver::{DriverError, sys::CUresult};

/// An error of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
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
    /// A library that `pip` installs is missing.
    #[error(
        "{purpose} is missing: {library} cannot be loaded; install the CUDA toolkit and put its lib64 into LD_LIBRARY_PATH, or `pip install {package}`"
    )]
    NoLibrary {
        /// What the library does.
        purpose: &'static str,
        /// Its name without a version, such as `libnvrtc`.
        library: &'static str,
        /// The package of pip that has it.
        package: &'static str,
    },
    /// A library is of a later CUDA than the driver.
    #[error(
        "the driver is for CUDA {driver}, {library} of CUDA {found}: update the driver or install {library} of CUDA {driver} or older"
    )]
    OldDriver {
        /// The library that is too new.
        library: &'static str,
        /// CUDA version of the driver.
        driver: String,
        /// CUDA version of the library.
        found: String,
    },
    /// The driver lacks functions that the bindings use.
    #[error("the driver is for CUDA {found}, and {needed} or newer is needed: update the driver")]
    DriverTooOld {
        /// CUDA version of the driver.
        found: String,
        /// The oldest that has them.
        needed: String,
    },
    /// The kernels need a newer GPU.
    #[error("compute capability {0} is too old for the kernels, which need 8.0 or newer")]
    OldGpu(String),
    /// A kernel source that the compiler refuses: a fault of this crate or of the compiler's version.
    #[error("the kernels `{program}` do not compile for {architecture}: {log}")]
    Compile {
        /// The program.
        program: &'static str,
        /// Such as `sm_90`.
        architecture: String,
        /// What the compiler said.
        log: String,
    },
    /// A kernel asks for more shared memory than a block of this GPU may have.
    #[error("kernel `{kernel}` needs {bytes} bytes of shared memory, more than this GPU has")]
    SharedMemory {
        /// The kernel.
        kernel: &'static str,
        /// What it needs.
        bytes: u32,
    },
    /// A kernel that the program does not have: a mistake in this crate.
    #[error("the program has no kernel `{0}`")]
    NoKernel(&'static str),
    /// The GPU has no memory left.
    #[error("the GPU has no memory left{}", if *.bytes > 0 { format!(": {bytes} bytes were asked for") } else { String::new() })]
    OutOfMemory {
        /// What was asked for; 0 where a library asked.
        bytes: usize,
    },
    /// cuBLASLt refuses a product.
    #[error("cuBLASLt: {status} for the product {product}")]
    Product {
        /// The library's name of the failure.
        status: String,
        /// The shape.
        product: String,
    },
    /// The GPU or its driver failed while it worked.
    #[error("the GPU failed: {0}")]
    Failed(String),
    /// A model whose sizes the kernels do not cover.
    #[error("no kernel for {0}")]
    Unsupported(String),
    /// A tensor that a model of these sizes needs is missing or has another number of values.
    #[error("tensor `{name}`: expected {expected} values, found {found}")]
    Weight {
        /// Its name in OpenAI's state dict.
        name: String,
        /// Values expected.
        expected: usize,
        /// Values found; 0 where there is no such tensor.
        found: usize,
    },
}

impl CudaError {
    /// Whether there is no GPU at all, rather than one that cannot be used.
    pub fn means_no_gpu(&self) -> bool {
        matches!(self, Self::NoDriver | Self::NoGpu)
    }

    /// Whether a smaller batch may succeed.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::OutOfMemory { .. })
    }
}

impl From<DriverError> for CudaError {
    fn from(error: DriverError) -> Self {
        if error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return Self::OutOfMemory { bytes: 0 };
        }
        Self::Failed(describe(error))
    }
}

impl From<CublasError> for CudaError {
    fn from(CublasError(status): CublasError) -> Self {
        Self::Failed(format!("cuBLASLt: {status:?}"))
    }
}

/// The driver's name and sentence for an error.
pub(crate) fn describe(error: DriverError) -> String {
    let name = format!("{:?}", error.0);
    match error.error_string() {
        Ok(text) => format!("{} ({name})", text.to_string_lossy()),
        Err(_) => name,
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, CudaError>;
