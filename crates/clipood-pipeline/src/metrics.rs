//! The metric tables of a run: what stage `aggregate` writes, and reports and notebooks read.

use bytes::Bytes;
use clipood_store::{Run, Store, Unit};

use crate::error::Result;
use crate::tables::{
    AccuracyRow, OodRow, PairedRow, StreamRow, SummaryRow, read_accuracy, read_ood, read_paired,
    read_streams, read_summary,
};

/// Stage of the tables in the ledger of the run.
pub const AGGREGATE: &str = "aggregate";
/// Name of the rows that average over the OOD sets; those of a group are `average:<group>`.
pub const AVERAGE: &str = "average";
/// Name of the fused dual-pattern score.
pub const DUAL_PATTERN: &str = "dual_pattern";

/// Name and path of each table, relative to the run directory.
pub const TABLES: [(&str, &str); 4] = [
    ("ood", "metrics/ood.parquet"),
    ("accuracy", "metrics/accuracy.parquet"),
    ("summary", "metrics/summary.parquet"),
    ("paired", "metrics/paired.parquet"),
];

/// The table of single streams, which a run has if its recipe lists a detector of streams.
pub const STREAM_TABLE: (&str, &str) = ("streams", "metrics/streams.parquet");

/// The metric tables of a run.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// One row per prompt set, detector, selection and OOD set, and one for each average.
    pub ood: Vec<OodRow>,
    /// One row per prompt set.
    pub accuracy: Vec<AccuracyRow>,
    /// The rows of `ood` over seeds.
    pub summary: Vec<SummaryRow>,
    /// Each trained prompt set compared with zero-shot on the first detector that both have; empty without zero-shot or
    /// intervals.
    pub paired: Vec<PairedRow>,
    /// One row per stream of a detector that learns from the images it scores; `ood` has their means over the orders.
    pub streams: Vec<StreamRow>,
}

/// Reads the metric tables of a finished run directory, and compares them with their commit records; `None` if one of
/// them is not committed.
///
/// # Errors
/// A table or record that is damaged, or a table that is missing.
pub fn read_metrics(run: &Store) -> Result<Option<Metrics>> {
    let ledger = Run::ledger_in(run.clone(), "reader");
    let records = ledger.records(AGGREGATE)?;
    let table = |path: &'static str| -> Result<Option<(&'static str, Bytes)>> {
        // The last one, if the unit was committed under several fingerprints; all name the part that was first.
        let mut own = records.iter().filter(|r| r.part.as_deref() == Some(path));
        let Some(record) = own.next_back() else {
            return Ok(None);
        };
        let unit = Unit {
            key: record.unit.clone(),
            fingerprint: record.fingerprint.clone(),
        };
        Ok(Some((path, ledger.read_part(AGGREGATE, &unit, path)?)))
    };
    let mut tables = Vec::new();
    for (_, path) in TABLES {
        tables.extend(table(path)?);
    }
    let streams = match table(STREAM_TABLE.1)? {
        Some((path, bytes)) => read_streams(bytes, path)?,
        None => Vec::new(),
    };
    let mut next = tables.into_iter();
    let (Some(ood), Some(accuracy), Some(summary), Some(paired)) =
        (next.next(), next.next(), next.next(), next.next())
    else {
        return Ok(None);
    };
    Ok(Some(Metrics {
        ood: read_ood(ood.1, ood.0)?,
        accuracy: read_accuracy(accuracy.1, accuracy.0)?,
        summary: read_summary(summary.1, summary.0)?,
        paired: read_paired(paired.1, paired.0)?,
        streams,
    }))
}
