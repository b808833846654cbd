//! [`Queue`]: the executor that is a stream of a GPU.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys::CUfunction_attribute_enum as FunctionAttribute;
use cudarc::driver::{CudaFunction, CudaStream, result};
use cudarc::nvrtc::Ptx;

use crate::compile::Program;
use crate::error::{CudaError, Result};
use crate::executor::{Argument, Executor, Launch};
use crate::gpu::Gpu;
use crate::product::{Choice, Operands, Products, Shape};

/// Shared memory that a kernel gets without asking.
const ORDINARY_SHARED: u32 = 48 << 10;

/// Arguments of a kernel at most.
const MOST_ARGUMENTS: usize = 24;

/// The kernels of a program, loaded on a GPU.
#[derive(Debug, Clone)]
pub struct Kernels {
    functions: Arc<HashMap<&'static str, CudaFunction>>,
}

impl Kernels {
    /// Compiles the program, or takes it from the GPU's folder of kernels, and loads it.
    ///
    /// # Errors
    /// The program does not compile, or a kernel needs more shared memory than the GPU has.
    pub fn load(gpu: &Gpu, program: &Program) -> Result<Self> {
        let code = program.cubin(&gpu.architecture(), gpu.cache())?;
        let module = gpu.context().load_module(Ptx::from_binary(code))?;
        let mut functions = HashMap::new();
        for (name, shared) in &program.kernels {
            let function = module.load_function(name)?;
            if *shared > ORDINARY_SHARED {
                let most = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                function.set_attribute(most, *shared as i32).map_err(|_| {
                    CudaError::SharedMemory {
                        kernel: name,
                        bytes: *shared,
                    }
                })?;
            }
            functions.insert(*name, function);
        }
        Ok(Self {
            functions: Arc::new(functions),
        })
    }
}

/// Kernels and products on one stream.
pub struct Queue {
    stream: Arc<CudaStream>,
    kernels: Kernels,
    products: Products,
}

impl Queue {
    /// A stream of its own.
    ///
    /// # Errors
    /// cuBLASLt is missing, or the GPU has no memory for its workspace.
    pub fn new(gpu: &Gpu, kernels: Kernels, choice: Choice) -> Result<Self> {
        let stream = gpu.context().new_stream()?;
        let products = Products::new(&stream, choice)?;
        Ok(Self {
            stream,
            kernels,
            products,
        })
    }

    /// Another stream with the same kernels and choices of algorithms.
    ///
    /// # Errors
    /// As [`Queue::new`].
    pub fn beside(&self) -> Result<Self> {
        let stream = self.stream.context().new_stream()?;
        let products = self.products.beside(&stream)?;
        Ok(Self {
            stream,
            kernels: self.kernels.clone(),
            products,
        })
    }

    /// The stream.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }
}

impl Executor for Queue {
    fn launch(&mut self, launch: &Launch<'_>) -> Result<()> {
        let name = launch.kernel;
        let function = self
            .kernels
            .functions
            .get(name)
            .ok_or(CudaError::NoKernel(name))?;
        let mut pointers = [std::ptr::null_mut::<c_void>(); MOST_ARGUMENTS];
        let places = pointers
            .get_mut(..launch.arguments.len())
            .ok_or(CudaError::NoKernel(name))?;
        for (place, argument) in places.iter_mut().zip(launch.arguments) {
            let value: *const c_void = match argument {
                Argument::Address(value) => std::ptr::from_ref(value).cast(),
                Argument::I32(value) => std::ptr::from_ref(value).cast(),
                Argument::I64(value) => std::ptr::from_ref(value).cast(),
                Argument::F32(value) => std::ptr::from_ref(value).cast(),
            };
            *place = value.cast_mut();
        }
        let [x, y, z] = launch.grid;
        self.stream.context().bind_to_thread()?;
        // SAFETY: the arguments are those of the kernel, by number and type; the memory that they point to outlives the
        // stream's work. The driver copies the arguments before it returns.
        unsafe {
            result::launch_kernel(
                function.cu_function(),
                (x, y, z),
                (launch.block, 1, 1),
                launch.shared,
                self.stream.cu_stream(),
                places,
            )?;
        }
        Ok(())
    }

    fn product(&mut self, shape: &Shape, operands: &Operands) -> Result<()> {
        self.stream.context().bind_to_thread()?;
        self.products.run(shape, operands)
    }
}
