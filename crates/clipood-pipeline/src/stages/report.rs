//! Stage `report`: the page of a run, and the record that the whole run is done. One unit.

use std::collections::BTreeMap;

use clipood_store::Unit;
use serde_json::json;

use super::extract::STAGE as EXTRACT;
use super::train::TRAIN;
use super::{ExplainedUnit, Stage, score};
use crate::error::{PipelineError, Result};
use crate::extract::GLOBAL;
use crate::job::Job;
use crate::metrics::{Metrics, read_metrics};
use crate::places::Shelf;
use crate::plan::{Purpose, SetOverlap, origin, overlaps};
use crate::planned::Planned;
use crate::prompts::trainers::prompt_unit;
use crate::quarantine::{kept_quarantine, quarantine};
use crate::report::{ensure_page, write_page};
use crate::tables::QuarantineRow;

/// Name of the stage in the ledger of the run: its unit is committed after all others.
pub const FINISH: &str = "finish";
/// Key of the [`Account`] in the record of a finished run.
const ACCOUNT: &str = "account";

/// See the head of this file.
pub static STAGE: Stage = Stage {
    name: "report",
    needs: &["aggregate"],
    ledgers: |_| &[(Shelf::Run, FINISH)],
    units: |job, _| Ok(vec![unit(job)]),
    explained: |job, _| {
        let explained = ExplainedUnit {
            name: "run".to_string(),
            shelf: Shelf::Run,
            stage: FINISH,
            unit: unit(job),
            inputs: BTreeMap::new(),
            prompt: None,
        };
        Ok(vec![explained])
    },
    run,
    serves: None,
};

/// The results of a finished run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The metric tables.
    pub metrics: Metrics,
    /// Test images planned.
    pub planned: usize,
    /// Test images scored under every prompt set.
    pub scored: usize,
    /// Images in quarantine, training images included.
    pub quarantined: Vec<QuarantineRow>,
    /// When and from where the images were planned, as a phrase; absent for plans of earlier builds.
    pub origin: Option<String>,
    /// Images that are in two sets, or twice in one.
    pub overlaps: Vec<SetOverlap>,
}

/// The units and image counts of a finished run.
#[derive(serde::Serialize, serde::Deserialize)]
struct Account {
    planned: usize,
    scored: usize,
    /// Keys of the units of its features.
    features: Vec<String>,
    /// Fingerprints of its prompt sets.
    prompts: Vec<String>,
}

fn unit(job: &Job) -> Unit {
    Unit {
        key: "run".to_string(),
        fingerprint: job.experiment.fingerprint.to_string(),
    }
}

/// Writes the page, and checks that every test image was scored or is in quarantine.
fn run(job: &Job, planned: &Planned) -> Result<()> {
    let location = &job.places.run_location;
    let Some(metrics) = read_metrics(job.places.run.store())? else {
        let problem = format!(
            "{}: the metric tables are committed and missing; start the same command again, which makes them again",
            job.places.run.store().display("metrics/")
        );
        return Err(PipelineError::Inconsistent(problem));
    };
    write_page(job, Some(&metrics))?;
    let unreadable = quarantine(job, &planned.plan, &planned.features)?;
    let tested = unreadable.iter().filter(|d| d.purpose == Purpose::Test);
    let lost: usize = tested.map(|d| d.scored.len()).sum();
    let all = planned.plan.test_images();
    let scored = score::count_scored(job, planned)?;
    if scored + lost != all {
        return Err(PipelineError::Inconsistent(format!(
            "{location}: {all} test images planned, {scored} scored, {lost} in quarantine; `clipood status --audit` names them"
        )));
    }
    let features = (EXTRACT.units)(job, planned)?.into_iter();
    let prompts = planned.prompts.iter();
    let account = Account {
        planned: all,
        scored,
        features: features.map(|unit| unit.key).collect(),
        prompts: prompts.map(|p| p.unit.fingerprint.clone()).collect(),
    };
    let extra = BTreeMap::from([(ACCOUNT.to_string(), json!(account))]);
    let ledger = job.places.run.ledger();
    ledger.commit_without_part(FINISH, &unit(job), extra)?;
    Ok(())
}

/// The outcome of the run if it is finished, without reading its plan: this takes three listings and a few small files,
/// however many images there are.
///
/// # Errors
/// Records or tables that cannot be read.
pub fn finished(job: &Job) -> Result<Option<Outcome>> {
    let places = &job.places;
    let Some(record) = places.run.ledger().record(FINISH, &unit(job))? else {
        return Ok(None);
    };
    let account = record.extra.get(ACCOUNT).cloned().unwrap_or_default();
    let Ok(account) = serde_json::from_value::<Account>(account) else {
        return Ok(None);
    };
    // Shared features or prompts may have been removed.
    let features = places.features.ledger.committed(GLOBAL)?;
    for key in account.features {
        let fingerprint = places.features.fingerprint.to_string();
        if !features.contains(&Unit { key, fingerprint })? {
            return Ok(None);
        }
    }
    let prompts = places.prompts.committed(TRAIN)?;
    for fingerprint in account.prompts {
        if !prompts.contains(&prompt_unit(fingerprint))? {
            return Ok(None);
        }
    }
    let Some(metrics) = read_metrics(places.run.store())? else {
        return Ok(None);
    };
    ensure_page(job, &metrics)?;
    Ok(Some(Outcome {
        metrics,
        planned: account.planned,
        scored: account.scored,
        quarantined: kept_quarantine(job, FINISH, &unit(job))?,
        origin: origin(job)?,
        overlaps: overlaps(job)?,
    }))
}
