//! Parts that are committed and not there.

use crate::error::Result;
use crate::job::Job;
use crate::places::Shelf;
use crate::planned::Planned;
use crate::stages::STAGES;

/// What to do about missing tables of a run directory.
pub const OWN_PARTS: &str = "Bring them back from a copy, or run the recipe in another run directory, which takes \
                             features and prompts from the store";

/// A committed part that is not there, with full paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingPart {
    /// The part.
    pub part: String,
    /// For a part of the store, the commit records to remove so that it is made again, with `*` for some digits.
    pub record: Option<String>,
}

/// The parts of all stages that have a commit record and do not exist; parts of features and prompts lie in the store.
///
/// # Errors
/// Records that cannot be read.
pub fn missing_parts(job: &Job, planned: &Planned) -> Result<Vec<MissingPart>> {
    let mut missing = Vec::new();
    for stage in STAGES {
        for unit in (stage.explained)(job, planned)? {
            let ledger = job.places.ledger(unit.shelf);
            let Some(record) = ledger.record(unit.stage, &unit.unit)? else {
                continue;
            };
            let Some(part) = record.part else {
                continue;
            };
            if !ledger.store().exists(&part)? {
                let record = format!("_commits/commits/{}/{}.*.json", unit.stage, unit.unit.key);
                missing.push(MissingPart {
                    part: ledger.store().display(&part),
                    record: (unit.shelf != Shelf::Run).then(|| ledger.store().display(&record)),
                });
            }
        }
    }
    Ok(missing)
}
