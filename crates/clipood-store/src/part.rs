//! What goes into a commit and what comes out.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use serde_json::Value;

use crate::error::Result;
use crate::record::{CommitRecord, Unit, record_stem};

/// What a part's footer says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartFooter {
    /// The fingerprint of the unit that made the part.
    pub fingerprint: String,
    /// Rows in the part.
    pub rows: u64,
    /// Rows put into quarantine by the unit, listed in the footer.
    pub quarantined: u64,
}

/// Reads the footer of a part from its bytes; `None` if they are no whole part.
pub type FooterReader<'a> = &'a dyn Fn(&Bytes) -> Option<PartFooter>;

/// A finished part, not yet published.
#[derive(Clone, Debug)]
pub struct Part {
    /// Where it goes, relative to the ledger's store; a function of the unit alone.
    pub path: String,
    /// The whole file, footer included.
    pub bytes: Bytes,
    /// What else the record shall say.
    pub extra: BTreeMap<String, Value>,
}

/// What became of a commit. In every case the unit is done.
#[derive(Clone, Debug, PartialEq)]
pub enum CommitOutcome {
    /// Our part (or none) and our record stand.
    Committed(CommitRecord),
    /// Another worker's record stands, over the very bytes we brought.
    AlreadyCommitted(CommitRecord),
    /// Another part of the same fingerprint was there first and stays; ours is dropped.
    LostRace {
        /// The record that stands, about the published part.
        record: CommitRecord,
        /// The published part, so that the loser can compare rows within tolerance.
        published: Bytes,
    },
}

impl CommitOutcome {
    /// The record that stands for the unit.
    pub fn record(&self) -> &CommitRecord {
        match self {
            Self::Committed(record)
            | Self::AlreadyCommitted(record)
            | Self::LostRace { record, .. } => record,
        }
    }
}

/// The part behind a record, as [`Ledger::check_part`](crate::Ledger::check_part) found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartState {
    /// The part has the recorded bytes, or the record is of a unit without a part.
    Whole,
    /// There is no such object.
    Missing,
    /// The object's size or BLAKE3 differs from the record.
    Changed,
}

/// Which units of a stage are done, from the names of the records alone.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    pub(crate) stems: HashSet<String>,
}

impl Committed {
    /// Whether the unit is done with its present fingerprint.
    ///
    /// # Errors
    /// [`Error::InvalidName`](crate::Error::InvalidName).
    pub fn contains(&self, unit: &Unit) -> Result<bool> {
        Ok(self.stems.contains(&record_stem(unit)?))
    }

    /// Number of commit records.
    pub fn len(&self) -> usize {
        self.stems.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.stems.is_empty()
    }
}
