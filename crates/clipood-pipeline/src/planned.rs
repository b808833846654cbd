//! [`Planned`]: the units of every stage after the plan. Built once from the plan, without computing any of them.

use std::collections::BTreeSet;

use clipood_core::Method;
use clipood_store::Unit;

use crate::error::Result;
use crate::experiment::Experiment;
use crate::extract::ExtractUnit;
use crate::extract::{FeatureIndex, feature_index, ledger_unit};
use crate::job::Job;
use crate::negative::PlannedNegatives;
use crate::negative::{TextSet, sets_of};
use crate::plan::{Plan, PlannedDataset, Purpose, plan, standing_plan};
use crate::prompts::key::{PromptKey, prompt_keys};
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
    /// Texts and images of no class that detectors need.
    pub negatives: Vec<PlannedNegatives>,
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
        let features = &job.places.features;
        let negatives = PlannedNegatives::all(experiment, features, &plan)?;
        let mut prompts = prompt_keys(&experiment.recipe)
            .into_iter()
            .map(|key| PlannedPrompt::new(experiment, features, &plan, key))
            .collect::<Result<Vec<_>>>()?;
        name_inputs(experiment, &negatives, &mut prompts)?;
        let trains_on_patches = prompts.iter().any(|p| match &p.trainer {
            Trainer::Context(training) => training.uses_patches(),
            Trainer::HandWritten(_) | Trainer::Negative(_) | Trainer::LinearProbe(_) => false,
        });
        Ok(Self {
            features: feature_index(experiment, &plan)?,
            patches: trains_on_patches || experiment.detectors_use_patches()?,
            negatives,
            prompts,
            plan,
        })
    }

    /// The prompt sets whose classifiers detectors join with that of `key`: zero-shot, and the linear probe of the same
    /// shots and seed.
    pub fn members_of(&self, key: &PromptKey) -> Vec<&PlannedPrompt> {
        let prompts = self.prompts.iter();
        prompts.filter(|other| is_member(&other.key, key)).collect()
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

    /// As [`Planned::distinct_prompts`], with the prompt sets that others build on.
    pub fn trained_prompts(&self) -> Vec<&PlannedPrompt> {
        let mut all = self.distinct_prompts();
        for prompt in self.distinct_prompts() {
            if let Some(base) = prompt.base.as_deref()
                && all.iter().all(|other| other.unit != base.unit)
            {
                all.push(base);
            }
        }
        all
    }
}

/// Whether the classifier of `other` is joined with that of `key`.
fn is_member(other: &PromptKey, key: &PromptKey) -> bool {
    let same_shots = (other.shots, other.seed) == (key.shots, key.seed);
    match other.method {
        Method::ZeroShot => key.method.uses_shots(),
        Method::LinearProbe => same_shots && key.method != Method::LinearProbe,
        _ => false,
    }
}

/// Names what the detectors of each prompt set read beside it.
fn name_inputs(
    experiment: &Experiment,
    negatives: &[PlannedNegatives],
    prompts: &mut [PlannedPrompt],
) -> Result<()> {
    let named = |sets: Vec<TextSet>| {
        let planned = negatives.iter().filter(|n| sets.contains(&n.set));
        let named = planned.map(|n| (n.set.name(), n.unit.fingerprint.clone()));
        named.collect()
    };
    let units: Vec<(PromptKey, String)> = prompts
        .iter()
        .map(|prompt| (prompt.key.clone(), prompt.unit.fingerprint.clone()))
        .collect();
    for prompt in prompts {
        let mut sets = sets_of(experiment, &experiment.columns, &prompt.key)?;
        sets.retain(|set| *set != TextSet::Plain);
        prompt.text_sets = named(sets);
        prompt.stream_sets = named(sets_of(experiment, &experiment.streams, &prompt.key)?);
        let mut joins = false;
        for column in &experiment.columns {
            let spec = column.spec(prompt.key.method)?;
            joins |= spec.is_some_and(|spec| spec.needs().classifiers);
        }
        if joins {
            let members = units.iter().filter(|(key, _)| is_member(key, &prompt.key));
            prompt.members = members
                .map(|(key, fingerprint)| (key.name(), fingerprint.clone()))
                .collect();
        }
    }
    Ok(())
}
