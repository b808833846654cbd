//! The inner loops of CLIP on a CPU: float32 slices in, float32 slices out, no tensor library.
//!
//! [`vit`] and [`resnet`] are the image towers at inference, [`text`] is the text tower. A transformer block is written out
//! once, in [`block`], from four pieces: layer norm ([`norm`]), matrix products ([`matrix`], and [`packed`] for weights that
//! are used again and again), attention ([`attention`]) and the activations ([`activation`]). Against the same block composed
//! of tensor operations it saves the copies between them: biases and residuals go through the products, queries, keys and
//! values are read where one product left them, and softmax and activation are vector code.
//!
//! Every thread of the current rayon pool takes whole images or texts; with fewer of them than threads, all threads share
//! the rows of each step, or the columns of a map where there are few rows.
//!
//! [`tower`] is the text transformer with frozen weights under training, from texts that share their first tokens to the
//! gradient of those tokens.
//!
//! [`retrieval`] finds the rows nearest to a query.
//!
//! [`bf16`] keeps weights in bf16 for CPUs that multiply it.
//!
//! The loops choose the instruction set of the CPU at hand while they run (AVX-512, AVX2 with FMA, or what the build
//! allows, which is NEON on ARM), and round the same on each; products with [`matrix`] round as the `gemm` crate does on that
//! CPU. The environment variable `CLIPOOD_CPU` holds the packed products and convolutions back to `avx2` or `plain`, for
//! tests and measurements; `bf16` lets every CPU multiply bf16, in slow code for tests.

pub mod activation;
pub mod attention;
mod attention_pool;
pub mod bf16;
pub mod block;
mod conv;
mod exp;
mod lanes;
pub mod matrix;
pub mod norm;
pub mod packed;
mod ragged;
pub mod resnet;
pub mod retrieval;
mod share;
pub mod text;
pub mod tower;
pub mod vit;

/// Runs `work` compiled for the best instruction set of this CPU.
#[inline(always)]
fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}
