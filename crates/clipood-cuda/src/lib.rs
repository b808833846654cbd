//! CLIP on NVIDIA GPUs: own kernels, compiled at run time, and cuBLASLt's products. No tensor library.
//!
//! Nothing of CUDA is linked and nothing of it is needed to build. The driver, the run-time compiler (NVRTC) and cuBLASLt are
//! loaded when a GPU is opened ([`libraries`]); `pip install nvidia-cublas nvidia-cuda-nvrtc` brings the last two.
//!
//! A pass through a model is Rust code that sends kernels and products to an [`Executor`](executor::Executor): to the GPU's
//! [`Queue`](queue::Queue), or in this crate's tests to the CPU. Kernel files are in `src/kernels`; each is documented with
//! its macros and shapes, and its launches are in the Rust file of the same name.

pub mod attention;
pub mod card;
pub mod compile;
mod error;
pub mod executor;
pub mod gpu;
pub mod image;
pub mod libraries;
pub mod memory;
pub mod on_gpu;
pub mod precision;
pub mod product;
pub mod prompt;
pub mod queue;
pub mod rows;
pub mod scores;
pub mod space;
pub mod text;
pub mod toolkit;

pub use error::{CudaError, Result};
