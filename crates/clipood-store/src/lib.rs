//! Object-store access, atomic commits, claims and run state of clipood.
//!
//! # How to
//! Open a [`Store`] from a path or URL, open a [`Run`] in it, and iterate over the units of a stage with [`passes()`]. The
//! result of a unit is one part, committed by [`Ledger::commit_part`]:
//!
//! ```
//! use bytes::Bytes;
//! use clipood_store::{CommitOutcome, Part, PartFooter, Run, Share, Store, Unit, blank_seal, passes, stamp};
//!
//! // A toy part: "fingerprint rows seal". Real parts are Parquet files with the same facts in their footer.
//! let read_footer = |part: &Bytes| {
//!     let text = std::str::from_utf8(part).ok()?;
//!     let (fingerprint, rest) = text.split_once(' ')?;
//!     let (rows, _seal) = rest.split_once(' ')?;
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
//!     let mut bytes = format!("{} 1000 {}", unit.fingerprint, blank_seal()).into_bytes(); // the work
//!     stamp(&mut bytes);
//!     let part = Part { path: path.clone(), bytes: bytes.into(), extra: Default::default() };
//!     let outcome = run.ledger().commit_part("score", unit, part, &read_footer)?;
//!     assert!(matches!(outcome, CommitOutcome::Committed(_)));
//!     // Readers get the bytes that were committed, or an error.
//!     run.ledger().read_part("score", unit, &path)?;
//! }
//! assert_eq!(run.ledger().committed("score")?.len(), 3);
//! # Ok::<(), clipood_store::Error>(())
//! ```
//!
//! All calls block and may be made from any thread that is not inside an asynchronous runtime. The documentation of
//! [`protocol`] explains why commits are correct under crashes and races.

mod damage;
mod difference;
mod error;
mod facts;
mod faults;
mod http;
mod local;
mod part;
mod passes;
pub mod protocol;
mod record;
mod retry;
mod run;
mod runtime;
mod seal;
mod store;
mod wait;

pub use damage::Damage;
pub use difference::{Difference, differences};
pub use error::{Error, Result};
pub use facts::{Facts, Folder};
pub use part::{CommitOutcome, Committed, FooterReader, Part, PartFooter};
pub use passes::{Pass, Passes, Share, Turn, passes};
pub use protocol::Ledger;
pub use record::{CommitRecord, Unit};
pub use retry::RetryPolicy;
pub use run::Run;
pub use seal::{Seal, blank_seal, check_json_seal, check_seal, seal_json, stamp};
pub use store::{Created, ObjectInfo, Store};
pub use wait::wait_for;
