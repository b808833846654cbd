//! Stage `extract`: every image through the image tower once, its features into the store.
//!
//! Images are decoded in parallel, views are batched in key order, device threads encode, one writer commits whole
//! units. Bounded channels join the steps, so memory does not grow with the data and a slow step holds back those before
//! it. Batches never cross a unit.

mod attempts;
mod decode;
mod filling;
mod flow;
#[cfg(test)]
mod fuzz;
mod in_order;
mod share;
mod simulated;
mod units;
mod workers;

pub use decode::panic_message;
pub use flow::{GLOBAL, LOCAL, extract, ledger_unit, part_path};
pub use share::share_out;
pub use simulated::encode_from_memory;
pub use units::{EVAL_VIEW, ExtractUnit, FeatureIndex, feature_index};
