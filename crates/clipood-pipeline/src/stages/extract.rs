//! Stage `extract`: encodes every image once, into the store of features that runs share. One unit per shard and per
//! group of few-shot images.

use super::{ExplainedUnit, Stage};
use crate::error::Result;
use crate::extract::{GLOBAL, LOCAL, extract, ledger_unit};
use crate::job::Job;
use crate::places::Shelf;
use crate::planned::Planned;
use crate::quarantine::{keep_quarantine, quarantine};

/// See the head of this file.
pub static STAGE: Stage = Stage {
    name: "extract",
    needs: &["plan"],
    uses_devices: true,
    ledgers: |planned| match planned.patches {
        true => &[(Shelf::Features, LOCAL), (Shelf::Features, GLOBAL)],
        false => &[(Shelf::Features, GLOBAL)],
    },
    units: |job, planned| Ok(planned.feature_units(job)),
    explained,
    run,
    serves: None,
};

/// Extracts what is missing, then writes the list of unreadable images and checks the recipe's limit for them.
fn run(job: &Job, planned: &Planned) -> Result<()> {
    extract(job, planned)?;
    let unreadable = quarantine(job, &planned.plan, &planned.features)?;
    keep_quarantine(job, &unreadable)
}

fn explained(job: &Job, planned: &Planned) -> Result<Vec<ExplainedUnit>> {
    let units = planned.features.units.iter().map(|unit| {
        let mut inputs = job.places.features.inputs.clone();
        inputs.insert("images".to_string(), unit.images.to_string());
        inputs.insert("views".to_string(), format!("{:?}", unit.views));
        ExplainedUnit {
            name: unit.key.clone(),
            shelf: Shelf::Features,
            stage: GLOBAL,
            unit: ledger_unit(job, unit),
            inputs,
            prompt: None,
        }
    });
    Ok(units.collect())
}
