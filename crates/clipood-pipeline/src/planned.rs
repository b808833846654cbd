//! [`Planned`]: the units of every stage after the plan. Built once from the plan, without computing any of them.

use std::collections::BTreeSet;

use clipood_store::Unit;

use crate::error::Result;
use crate::extract::ExtractUnit;
use crate::extract::{FeatureIndex, feature_index, ledger_unit};
use crate::job::Job;
use crate::negative::PlannedNegatives;
use crate::plan::{Plan, PlannedDataset, Purpose, plan, standing_plan};
use crate::prompts::key::prompt_keys;
use crate::prompts::trainers::{PlannedPrompt, Trainer};

/// Everything that a run has to do.
#[derive(Debug)]
pub struct Planned {
    /// The images.
    pub plan: Plan,
    /// Which units hold their features.
    pub features: FeatureIndex,
    /// Whether patch features are extracted as well.
    pub patches: bool,
    /// Texts of no class, if a detector needs any.
    pub negatives: Option<PlannedNegatives>,
    /// The prompt sets: every method, number of shots and seed.
    pub prompts: Vec<PlannedPrompt>,
}

/// One shard of one dataset: images that are scored together.
#[derive(Debug, Clone, Copy)]
pub struct Shard<'a> {
    /// The dataset.
    pub dataset: &'a PlannedDataset,
    /// Its number.
    pub number: usize,
    /// Unit of its features.
    pub features: &'a ExtractUnit,
}

impl Planned {
    /// Plans the run, or reads its plan.
    ///
    /// # Errors
    /// A dataset that is missing or empty, a class with fewer images than shots, a recipe that does not fit the data.
    pub fn make(job: &Job) -> Result<Self> {
        Self::of(job, plan(job)?)
    }

    /// The work of a run that has a plan; `None` if it has none.
    ///
    /// # Errors
    /// A plan that cannot be read.
    pub fn read(job: &Job) -> Result<Option<Self>> {
        match standing_plan(job)? {
            Some(plan) => Self::of(job, plan).map(Some),
            None => Ok(None),
        }
    }

    fn of(job: &Job, plan: Plan) -> Result<Self> {
        let experiment = &job.experiment;
        let prompts = prompt_keys(&experiment.recipe)
            .into_iter()
            .map(|key| PlannedPrompt::new(experiment, &job.places.features, &plan, key))
            .collect::<Result<Vec<_>>>()?;
        let trains_on_patches = prompts.iter().any(|p| match &p.trainer {
            Trainer::Context(training) => training.uses_patches(),
            Trainer::HandWritten(_) | Trainer::LinearProbe(_) => false,
        });
        Ok(Self {
            features: feature_index(experiment, &plan)?,
            patches: trains_on_patches || experiment.detectors_use_patches()?,
            negatives: PlannedNegatives::of(experiment, &plan)?,
            prompts,
            plan,
        })
    }

    /// The shards, dataset by dataset.
    pub fn shards(&self) -> Vec<Shard<'_>> {
        let datasets = self.plan.datasets.iter().zip(&self.features.scored);
        let shards = datasets.flat_map(|(dataset, units)| {
            units.iter().enumerate().map(move |(number, unit)| Shard {
                dataset,
                number,
                features: &self.features.units[*unit],
            })
        });
        shards.collect()
    }

    /// The shards of the datasets that are used for `purpose`.
    pub fn shards_for(&self, purpose: Purpose) -> Vec<Shard<'_>> {
        let mut shards = self.shards();
        shards.retain(|shard| shard.dataset.purpose == purpose);
        shards
    }

    /// The units of the features.
    pub fn feature_units(&self, job: &Job) -> Vec<Unit> {
        let units = self.features.units.iter();
        units.map(|unit| ledger_unit(job, unit)).collect()
    }

    /// The prompt sets with distinct units: a unit that several keys share is made once.
    pub fn distinct_prompts(&self) -> Vec<&PlannedPrompt> {
        let mut seen = BTreeSet::new();
        let prompts = self.prompts.iter();
        prompts.filter(|p| seen.insert(&p.unit.key)).collect()
    }
}
