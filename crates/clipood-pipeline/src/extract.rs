//! Stage `extract`: encodes every image once and stores its features.
//!
//! [`source`] decodes the images of one unit after the other, the engine encodes the views in batches that contain
//! views of one unit only, [`write`] commits complete units.

mod attempts;
mod decode;
mod flow;
#[cfg(test)]
mod fuzz;
mod judge;
mod source;
mod staged;
mod units;
mod write;

pub use flow::extract;
pub use judge::{JUDGE, decode_alone};
pub use units::{EVAL_VIEW, ExtractUnit, FeatureIndex, feature_index};
pub use write::{GLOBAL, LOCAL, ledger_unit, part_path};
