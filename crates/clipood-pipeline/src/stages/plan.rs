//! Stage `plan`: lists the datasets, draws the few-shot splits, hashes every image and cuts the images to score into
//! shards. [`crate::plan`] does the work, before [`Planned`], which the other stages need, is made.

use super::{ExplainedUnit, Stage};
use crate::places::Shelf;
use crate::plan::{STAGE as PLAN, plan_inputs, plan_units};

/// See the head of this file.
pub static STAGE: Stage = Stage {
    name: PLAN,
    needs: &[],
    uses_devices: false,
    ledgers: |_| &[(Shelf::Run, PLAN)],
    units: |job, _| plan_units(job),
    explained: |job, _| {
        let inputs = plan_inputs(job)?.into_iter();
        let units = inputs.zip(plan_units(job)?);
        let explained = units.map(|((name, builder), unit)| ExplainedUnit {
            name,
            shelf: Shelf::Run,
            stage: PLAN,
            unit,
            inputs: builder.inputs().clone(),
            prompt: None,
        });
        Ok(explained.collect())
    },
    // `Planned` exists only if the plan is made.
    run: |_, _| Ok(()),
    serves: None,
};
