//! The inputs of a unit's fingerprint, and their differences from committed units.

use std::collections::BTreeMap;

use clipood_core::nearest;
use clipood_store::{CommitRecord, Difference, differences};
use serde::Serialize;
use serde_json::json;

use crate::error::{PipelineError, Result};
use crate::inputs::inputs_of;
use crate::job::Job;
use crate::planned::Planned;
use crate::stages::{ExplainedUnit, STAGES};

/// Why a unit is done or must be done.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// `stage/unit`, as given by the user.
    pub unit: String,
    /// The fingerprint of the unit in this run.
    pub fingerprint: String,
    /// The inputs of the fingerprint: short values as JSON, long ones as their digests.
    pub inputs: BTreeMap<String, String>,
    /// The worker that committed the unit; `None` while it is not done.
    pub done_by: Option<String>,
    /// Rows and quarantined rows of the unit's part.
    pub rows: Option<(u64, u64)>,
    /// If it is not done, the inputs in which the most similar committed unit of the same name differs. Empty if there
    /// is no such unit, or if its record contains no inputs.
    pub differences: Vec<String>,
}

/// Explains the unit called `name`: `STAGE/UNIT`, such as `extract/<key>`, `train/<prompt>` or
/// `score/<prompt>.<dataset>.<shard>`.
///
/// # Errors
/// No such unit (the nearest name is suggested), no plan, a record that cannot be read.
pub fn explain(job: &Job, name: &str) -> Result<Explanation> {
    let planned = Planned::read(job)?.ok_or_else(|| {
        PipelineError::Usage(format!("{} has no plan yet", job.places.run_location))
    })?;
    let mut all = Vec::new();
    for stage in STAGES {
        for unit in (stage.explained)(job, &planned)? {
            all.push((format!("{}/{}", stage.name, unit.name), unit));
        }
    }
    let Some((_, found)) = all.iter().find(|(other, _)| other == name) else {
        let hint = match nearest(name, all.iter().map(|(name, _)| name.as_str())) {
            Some(close) => format!("did you mean `{close}`?"),
            None => match all.first() {
                Some((first, _)) => format!("the first of {} is `{first}`", all.len()),
                None => "the run has none".to_string(),
            },
        };
        return Err(PipelineError::Usage(format!("no unit `{name}`; {hint}")));
    };
    let ledger = job.places.ledger(found.shelf);
    let record = ledger.record(found.stage, &found.unit)?;
    let different = match &record {
        Some(_) => Vec::new(),
        None => closest(found, &ledger.records(found.stage)?),
    };
    Ok(Explanation {
        unit: name.to_string(),
        fingerprint: found.unit.fingerprint.clone(),
        inputs: found.inputs.clone(),
        rows: record.as_ref().map(|r| (r.rows, r.quarantined)),
        done_by: record.map(|r| r.worker),
        differences: different.iter().map(Difference::to_string).collect(),
    })
}

/// The differences from the most similar committed unit of the same name.
fn closest(wanted: &ExplainedUnit, records: &[CommitRecord]) -> Vec<Difference> {
    let same_name = |record: &&CommitRecord| match &wanted.prompt {
        Some(prompt) => record.extra.get("prompt") == Some(&json!(prompt)),
        None => record.unit == wanted.unit.key,
    };
    let own = json!(wanted.inputs);
    records
        .iter()
        .filter(same_name)
        .filter_map(inputs_of)
        .map(|inputs| differences(inputs, &own))
        .min_by_key(Vec::len)
        .unwrap_or_default()
}
