//! CLIP on NVIDIA GPUs: own kernels, compiled at run time, and cuBLASLt's products. No tensor library.
//!
//! Nothing of CUDA is linked and nothing of it is needed to build. The driver, the run-time compiler (NVRTC) and cuBLASLt are
//! loaded when a GPU is opened ([`libraries`]); `pip install nvidia-cublas nvidia-cuda-nvrtc` brings the last two.
//!
//! A pass through a model is Rust code that sends kernels and products to an [`Executor`](executor::Executor): to the GPU's
//! [`Queue`](queue::Queue), or in this crate's tests to the CPU. Kernel files are in `src/kernels`; each is documented with
//! its macros and shapes, and its launches are in the Rust file of the same name.
//!
//! # How to
//! Encode images: describe the model, pack its weights, and give both to an encoder. Batches are launched and waited for; two of
//! them are on their way at a time.
//!
//! ```no_run
//! use clipood_cuda::gpu::Gpu;
//! use clipood_cuda::image::{ImageEncoder, ImageSizes, Tensors, Tower, Vit, VitSizes};
//! use clipood_cuda::precision::Precision;
//! use clipood_cuda::rows::Activation;
//!
//! # fn parameters() -> Vec<(String, Vec<f32>)> { Vec::new() }
//! let parameters = parameters(); // by OpenAI's names: `visual.conv1.weight`, ...
//! let tensors: Tensors<'_> = parameters.iter().map(|(name, values)| (name.as_str(), values.as_slice())).collect();
//! let image = ImageSizes {
//!     side: 224,
//!     dim: 512,
//!     heads: 12,
//!     precision: Precision::Bf16,
//!     mean: [0.48145466, 0.4578275, 0.40821073],
//!     deviation: [0.26862954, 0.2613026, 0.2757771],
//! };
//! let sizes = VitSizes { image, patch: 16, width: 768, layers: 12, activation: Activation::QuickGelu };
//! let (tower, weights) = Vit::new(sizes, &tensors)?;
//! let gpu = Gpu::open(0, None)?;
//! let mut encoder = ImageEncoder::open(&gpu, Tower::Vit(tower), &weights)?;
//! let batch = encoder.launch(&vec![0; 64 * image.pixel_bytes()], false)?; // [64, 224, 224, 3]
//! let features = encoder.wait(&batch)?.global; // [64, 512]
//! # assert_eq!(features.len(), 64 * 512);
//! # Ok::<(), clipood_cuda::CudaError>(())
//! ```
//!
//! Add a kernel: write it into the file of its family in `src/kernels`, with its macros and shapes; inline PTX goes into
//! `device.cuh` as a small function, and its counterpart for the CPU into `tests/host/host.h`. Add its name to the list of kernels
//! of its programs, and a function that launches it on an executor. A test runs it on the emulated GPU against its definition;
//! `make check-cuda` compiles it for A100, H100 and B200.

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
