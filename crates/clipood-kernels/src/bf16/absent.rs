//! Instruction sets without products of bf16.

use super::Operands;

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
pub fn product(found: Found, _: &Operands<'_>, _: &mut [f32]) {
    match found {}
}
