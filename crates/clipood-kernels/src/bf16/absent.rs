//! Instruction sets without products of bf16.

use std::ops::Range;

use super::Panels;

/// Nothing is ever found.
#[derive(Debug, Clone, Copy)]
pub enum Found {}

impl Found {
    /// Always none.
    pub fn on_this_cpu() -> Option<Self> {
        None
    }
}

/// Never called, as nothing is found.
pub fn product(
    found: Found,
    _: &Panels,
    _: &[f32],
    _: Range<usize>,
    _: Option<&[f32]>,
    _: &mut [f32],
    _: bool,
) {
    match found {}
}
