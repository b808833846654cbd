//! Text towers: zero-shot texts ([`encoder`]) and the packed passes that prompts are trained with ([`tower`]).
//!
//! Kernels: `kernels/text`.

pub mod attention;
pub mod encoder;
pub mod launch;
pub mod pack;
pub mod plan;
mod rooms;
pub mod tower;
pub mod weights;
