//! [`Executor`]: what a tower asks of a device.
//!
//! A pass through a model is a list of kernel launches and products on addresses. [`Queue`](crate::queue::Queue) sends them to a
//! GPU; the tests of this crate run the same list on the CPU, with the kernels built by a C++ compiler.

use crate::error::Result;
use crate::product::{Operands, Shape};

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Argument {
    /// An address of device memory.
    Address(u64),
    /// `int`.
    I32(i32),
    /// `long long`.
    I64(i64),
    /// `float`.
    F32(f32),
}

/// One launch of a kernel.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Its name in the program.
    pub kernel: &'static str,
    /// Blocks in each direction.
    pub grid: [u32; 3],
    /// Threads of a block, in one direction.
    pub block: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// In the order of the kernel's parameters.
    pub arguments: &'a [Argument],
}

/// Runs kernels and products one after another, in the order they are given.
pub trait Executor {
    /// Enqueues a kernel.
    ///
    /// # Errors
    /// A kernel that the program does not have, or a failure of the device.
    fn launch(&mut self, launch: &Launch<'_>) -> Result<()>;

    /// Enqueues a matrix product.
    ///
    /// # Errors
    /// A product that the library refuses, or a failure of the device.
    fn product(&mut self, shape: &Shape, operands: &Operands) -> Result<()>;
}

/// Threads of a block of every kernel here that does not say otherwise.
pub const BLOCK: u32 = 256;

/// A grid of [`BLOCK`] threads a block with one thread for each of `count` things.
pub fn threads(count: usize) -> [u32; 3] {
    [count.div_ceil(BLOCK as usize) as u32, 1, 1]
}

/// A grid of [`BLOCK`] threads a block with one warp for each of `count` rows.
pub fn warps(count: usize) -> [u32; 3] {
    [count.div_ceil(BLOCK as usize / 32) as u32, 1, 1]
}
