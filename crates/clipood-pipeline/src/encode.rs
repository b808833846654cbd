//! The inference engine: from images to features, on all devices.
//!
//! [`Engine::run`] connects a source of decoded batches, one thread per device and a consumer by bounded channels, so
//! that memory does not grow with the data and a slow step slows down the steps before it. The stage `extract` runs it
//! with the units of a plan; [`encode_files`] runs it with a list of files, for the commands that take single images.

mod batch;
mod decode;
mod device;
mod engine;
mod files;
mod in_order;
mod queue;
mod simulated;
mod tower;

pub use batch::{EVAL_VIEW, EncodeEvent};
pub use decode::{Unreadable, read_eval_view, read_eval_view_as};
pub(crate) use decode::{decoded, eval_view_of};
pub use engine::{BatchSink, Engine, UnitSink};
pub(crate) use files::convert_files;
pub use files::{EncodedImage, FILE_BATCH, decode_files, encode_files};
pub(crate) use in_order::in_order;
pub use queue::Clock;
