//! What a run directory says about itself: how far it is, whether its tables are whole, what made a unit, and what of a
//! store no run needs. Nothing here computes features, prompts or scores.

mod audit;
mod explain;
mod garbage;
mod stages;

pub use audit::{Audit, audit};
pub use explain::{Explanation, explain};
pub use garbage::{Garbage, collect_garbage, find_garbage};
pub use stages::{Status, status};
