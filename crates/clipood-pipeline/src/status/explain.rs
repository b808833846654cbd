//! What made a unit's fingerprint, and what differs from what is there.

use std::collections::BTreeMap;

use clipood_core::nearest;
use clipood_store::{CommitRecord, Difference, Ledger, Unit, differences};
use serde::Serialize;
use serde_json::json;

use crate::error::{PipelineError, Result};
use crate::extract::{GLOBAL, feature_index, ledger_unit};
use crate::inputs::inputs_of;
use crate::job::Job;
use crate::plan::standing_plan;
use crate::prompts::{TRAIN, prompt_inputs, prompt_keys, prompt_units};
use crate::score::{STAGE as SCORE, score_inputs, score_unit, shards};

/// Why a unit is done, or is to be done.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// `stage/unit`, as it was asked for.
    pub unit: String,
    /// The fingerprint that the unit has to have.
    pub fingerprint: String,
    /// What the fingerprint is made from: short values as JSON, long ones as their digests.
    pub inputs: BTreeMap<String, String>,
    /// The worker that committed the unit; `None` while it is not done.
    pub done_by: Option<String>,
    /// Rows and quarantined rows of the unit's part.
    pub rows: Option<(u64, u64)>,
    /// Where it is not done: the inputs in which the most similar committed unit of the same name differs. Empty if there is
    /// none, or if its record keeps no inputs.
    pub differences: Vec<String>,
}

/// A unit that can be asked for.
struct Candidate<'a> {
    name: String,
    ledger: &'a Ledger,
    stage: &'static str,
    unit: Unit,
    inputs: BTreeMap<String, String>,
    /// Name under which prompt sets of other fingerprints stand beside this one.
    prompt: Option<String>,
}

/// Explains the unit called `name`: `extract/<key>`, `train/<prompt>` or `score/<prompt>.<dataset>.<shard>`.
///
/// # Errors
/// No such unit (the nearest name is suggested), no plan, a record that cannot be read.
pub fn explain(job: &Job, name: &str) -> Result<Explanation> {
    let all = candidates(job)?;
    let Some(found) = all.iter().find(|candidate| candidate.name == name) else {
        let hint = match nearest(name, all.iter().map(|c| c.name.as_str())) {
            Some(close) => format!("did you mean `{close}`?"),
            None => match all.first() {
                Some(first) => format!("the first of {} is `{}`", all.len(), first.name),
                None => "the run has none".to_string(),
            },
        };
        return Err(PipelineError::Usage(format!("no unit `{name}`; {hint}")));
    };
    let record = found.ledger.record(found.stage, &found.unit)?;
    let different = match &record {
        Some(_) => Vec::new(),
        None => closest(found, &found.ledger.records(found.stage)?),
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

/// The differences from the committed unit of the same name that differs least.
fn closest(wanted: &Candidate<'_>, records: &[CommitRecord]) -> Vec<Difference> {
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

fn candidates(job: &Job) -> Result<Vec<Candidate<'_>>> {
    let plan = standing_plan(job)?
        .ok_or_else(|| PipelineError::Usage(format!("{} has no plan yet", job.run_location)))?;
    let index = feature_index(job, &plan);
    let mut all = Vec::new();
    for unit in &index.units {
        let mut inputs = job.features.inputs.clone();
        inputs.insert("images".to_string(), unit.images.to_string());
        inputs.insert("views".to_string(), format!("{:?}", unit.views));
        all.push(Candidate {
            name: format!("extract/{}", unit.key),
            ledger: &job.features.ledger,
            stage: GLOBAL,
            unit: ledger_unit(job, unit),
            inputs,
            prompt: None,
        });
    }
    let keys = prompt_keys(job);
    let prompts = prompt_units(job, &plan, &keys)?;
    for (key, unit) in keys.iter().zip(&prompts) {
        all.push(Candidate {
            name: format!("train/{}", key.name()),
            ledger: &job.prompts,
            stage: TRAIN,
            unit: unit.clone(),
            inputs: prompt_inputs(job, &plan, key)?.inputs().clone(),
            prompt: Some(key.name()),
        });
    }
    for shard in shards(&plan, &index) {
        for (key, prompt) in keys.iter().zip(&prompts) {
            let unit = score_unit(job, key, &prompt.fingerprint, &shard)?;
            all.push(Candidate {
                name: format!("score/{}", unit.key),
                ledger: job.run.ledger(),
                stage: SCORE,
                unit,
                inputs: score_inputs(job, key, &prompt.fingerprint, &shard)?
                    .inputs()
                    .clone(),
                prompt: None,
            });
        }
    }
    Ok(all)
}
