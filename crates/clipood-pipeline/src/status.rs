//! Inspecting run directories: progress, integrity of the tables, inputs of a unit, and what no run needs in a store.
//! Nothing here computes features, prompts or scores.

mod audit;
mod explain;
mod garbage;
mod pace;
mod stages;

pub use audit::{Audit, audit};
pub use explain::{Explanation, explain};
pub use garbage::{Garbage, collect_garbage, find_garbage};
pub use pace::Pace;
pub use stages::{Status, status, status_of};
