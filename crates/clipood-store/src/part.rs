//! The inputs and outcomes of a commit.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use serde_json::Value;

use crate::error::Result;
use crate::record::{CommitRecord, Unit, record_stem};

/// The facts in the footer of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartFooter {
    /// The fingerprint of the unit that the part is the result of.
    pub fingerprint: String,
    /// Rows in the part.
    pub rows: u64,
    /// Rows that the unit put into quarantine, listed in the footer.
    pub quarantined: u64,
}

/// Reads the footer of a part from its bytes; `None` if they are not a complete part.
pub type FooterReader<'a> = &'a dyn Fn(&Bytes) -> Option<PartFooter>;

/// A finished part, not yet published.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its path, relative to the ledger's store; a function of the unit alone.
    pub path: String,
    /// The complete file, footer and [seal](crate::check_seal) included. Without a seal the part of a worker that dies before
    /// it has written the record cannot be checked, and is made again.
    pub bytes: Bytes,
    /// Additional fields of the commit record.
    pub extra: BTreeMap<String, Value>,
}

/// The outcome of a commit. In every case the unit is done.
#[derive(Clone, Debug, PartialEq)]
pub enum CommitOutcome {
    /// This worker's part (or none) and record were published.
    Committed(CommitRecord),
    /// Another worker's record was published first, for identical bytes.
    AlreadyCommitted(CommitRecord),
    /// Another part of the same fingerprint was published first and is kept; this worker's part is dropped.
    LostRace {
        /// The record of the published part.
        record: CommitRecord,
        /// The published part, so that the caller can compare its rows within a tolerance.
        published: Bytes,
    },
}

impl CommitOutcome {
    /// The published record of the unit.
    pub fn record(&self) -> &CommitRecord {
        match self {
            Self::Committed(record)
            | Self::AlreadyCommitted(record)
            | Self::LostRace { record, .. } => record,
        }
    }
}

/// The finished units of a stage, from the names of the records alone.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    pub(crate) stems: HashSet<String>,
}

impl Committed {
    /// Whether the unit is done with its current fingerprint.
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
