//! Object-store access, atomic commits, claims and run state of clipood.
//!
//! # How to
//! Open a [`Store`] from a path or URL, open a [`Run`] in it, and iterate over the units of a stage with [`passes()`]. The
//! result of a unit is one part, committed by [`Ledger::commit_part`]:
//!
//! ```
//! use bytes::Bytes;
//! use clipood_store::{CommitOutcome, Part, PartFooter, Run, Share, Store, Unit, passes};
//!
//! // A toy part: "fingerprint rows". Real parts are Parquet files with the same facts in their footer.
//! let read_footer = |part: &Bytes| {
//!     let text = std::str::from_utf8(part).ok()?;
//!     let (fingerprint, rows) = text.split_once(' ')?;
//!     Some(PartFooter { fingerprint: fingerprint.into(), rows: rows.parse().ok()?, quarantined: 0 })
//! };
//!
//! let config = serde_json::json!({ "model": "ViT-B-16", "shots": 16 });
//! let run = Run::open_or_create(Store::memory(), &config, &serde_json::json!({}), "worker-0")?;
//! let units: Vec<Unit> = (0..3)
//!     .map(|shard| Unit { key: format!("{shard:05}"), fingerprint: "0123456789abcdef".into() })
//!     .collect();
//! let share = Share { index: 0, count: 1, backups: true };
//!
//! for turn in passes(run.ledger(), "score", &units, share) {
//!     let unit = &units[turn?.unit];
//!     let path = format!("scores/part-{}.parquet", unit.key);
//!     if run.ledger().recover_part("score", unit, &path, &read_footer)?.is_some() {
//!         continue; // an earlier worker crashed between the part and its record
//!     }
//!     let bytes = Bytes::from(format!("{} 1000", unit.fingerprint)); // the work
//!     let part = Part { path, bytes, extra: Default::default() };
//!     let outcome = run.ledger().commit_part("score", unit, part, &read_footer)?;
//!     assert!(matches!(outcome, CommitOutcome::Committed(_)));
//! }
//! assert_eq!(run.ledger().committed("score")?.len(), 3);
//! # Ok::<(), clipood_store::Error>(())
//! ```
//!
//! All calls block and may be made from any thread that is not inside an asynchronous runtime. The documentation of
//! [`protocol`] explains why commits are correct under crashes and races.

mod difference;
mod error;
mod faults;
mod local;
mod part;
mod passes;
pub mod protocol;
mod record;
mod retry;
mod run;
mod store;
mod wait;

pub use difference::{Difference, differences};
pub use error::{Error, Result};
pub use part::{CommitOutcome, Committed, FooterReader, Part, PartFooter, PartState};
pub use passes::{Pass, Passes, Share, Turn, passes};
pub use protocol::Ledger;
pub use record::{CommitRecord, Unit};
pub use retry::RetryPolicy;
pub use run::Run;
pub use store::{Created, ObjectInfo, Store};
pub use wait::wait_for;
