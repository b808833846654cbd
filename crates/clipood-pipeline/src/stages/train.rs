//! Stage `train`: makes the prompt sets that the store does not have yet, one after the other on each device. One unit
//! per prompt set.
//!
//! Trainings take long, so a worker waits for those that other workers have claimed, and does them only when nothing is heard
//! of those workers any more ([`Worker::patience`](crate::Worker::patience)).

mod bench;

use std::time::Instant;

use clipood_clip::model::Device;
use clipood_store::{Ledger, Share, Unit, passes};

use self::bench::Bench;
use super::take_over::{Lost, Turn};
use super::waiting::{Waiting, claimed_by};
use super::{ExplainedUnit, Stage};
use crate::error::Result;
use crate::job::Job;
use crate::places::Shelf;
use crate::planned::Planned;
use crate::prompts::file::{prompt_footer, prompt_path};
use crate::prompts::trainers::PlannedPrompt;

/// Name of the stage in the ledger of the prompts.
pub const TRAIN: &str = "train";

/// See the head of this file.
pub static STAGE: Stage = Stage {
    name: TRAIN,
    needs: &["extract"],
    uses_devices: true,
    ledgers: |_| &[(Shelf::Prompts, TRAIN)],
    units: |_, planned| {
        let prompts = planned.distinct_prompts().into_iter();
        Ok(prompts.map(|prompt| prompt.unit.clone()).collect())
    },
    explained: |_, planned| {
        let listed = |base: &PlannedPrompt| planned.prompts.iter().any(|p| p.unit == base.unit);
        let bases = planned.prompts.iter().filter_map(|p| p.base.as_deref());
        let bases = bases.filter(|base| !listed(base));
        let prompts = planned
            .prompts
            .iter()
            .chain(bases)
            .map(|prompt| ExplainedUnit {
                name: prompt.key.name(),
                shelf: Shelf::Prompts,
                stage: TRAIN,
                unit: prompt.unit.clone(),
                inputs: prompt.inputs.clone(),
                prompt: Some(prompt.key.name()),
            });
        Ok(prompts.collect())
    },
    run,
    serves: None,
};

/// Makes every prompt set that is missing. On return all of them are committed, by this worker or by others.
///
/// Those that build on others come last, each when that other one is committed.
///
/// # Errors
/// An interruption (trainings write a checkpoint), a loss that is not finite, a store that cannot be written.
fn run(job: &Job, planned: &Planned) -> Result<()> {
    let mut trainings = Trainings {
        job,
        planned,
        devices: job.worker.devices.distinct(),
        lost: Lost::default(),
    };
    let pending = missing(job, planned.distinct_prompts())?;
    let (mut building, mut first) = (pending.clone(), pending.clone());
    building.retain(|prompt| prompt.base.is_some());
    first.retain(|prompt| prompt.base.is_none());
    let mut bases = planned.trained_prompts();
    bases.retain(|base| building.iter().any(|prompt| builds_on(prompt, base)));
    bases = missing(job, bases)?;
    first.retain(|prompt| bases.iter().all(|base| base.unit != prompt.unit));
    first.splice(0..0, bases.iter().copied());
    let repeat = job.worker.patience.is_zero();
    trainings.make(&first, repeat)?;
    while !building.is_empty() {
        trainings.finish(&bases, bases.len().saturating_sub(1))?;
        bases = missing(job, bases)?;
        let (later, ready): (Vec<_>, Vec<_>) = building
            .into_iter()
            .partition(|prompt| bases.iter().any(|base| builds_on(prompt, base)));
        trainings.make(&ready, repeat)?;
        building = later;
    }
    trainings.finish(&pending, 0)
}

/// Whether `prompt` builds on `base`.
fn builds_on(prompt: &PlannedPrompt, base: &PlannedPrompt) -> bool {
    prompt
        .base
        .as_deref()
        .is_some_and(|other| other.unit == base.unit)
}

/// Those of `prompts` that the store does not have. A missing record of one that lies there is written again.
fn missing<'a>(job: &Job, prompts: Vec<&'a PlannedPrompt>) -> Result<Vec<&'a PlannedPrompt>> {
    let ledger = &job.places.prompts;
    let done = ledger.committed(TRAIN)?;
    let mut missing = Vec::new();
    for prompt in prompts {
        if !done.contains(&prompt.unit)? && !recovered(ledger, &prompt.unit)? {
            missing.push(prompt);
        }
    }
    Ok(missing)
}

/// Whether a prompt set without a commit record lies in the store; its record is then written again.
fn recovered(ledger: &Ledger, unit: &Unit) -> Result<bool> {
    let found = ledger.recover_part(TRAIN, unit, &prompt_path(unit), &prompt_footer)?;
    Ok(found.is_some())
}

/// The trainings of this worker.
struct Trainings<'a> {
    job: &'a Job,
    planned: &'a Planned,
    /// The devices that have not failed.
    devices: Vec<Device>,
    lost: Lost,
}

impl<'a> Trainings<'a> {
    /// Makes those of `prompts` that are this worker's turn, one after the other on each device; with `backups` also those that
    /// others have claimed.
    fn make(&mut self, prompts: &[&PlannedPrompt], backups: bool) -> Result<()> {
        if prompts.is_empty() {
            return Ok(());
        }
        let epochs = self.open_epochs()?;
        let units: Vec<Unit> = prompts.iter().map(|prompt| prompt.unit.clone()).collect();
        let share = Share {
            backups,
            ..self.job.worker.share
        };
        let turns = passes(&self.job.places.prompts, TRAIN, &units, share);
        let progress = self.job.worker.progress(TRAIN, "epochs", epochs);
        let bench = Bench::new(self.job, self.planned, prompts, turns, progress);
        bench.make_all(&mut self.devices)
    }

    /// Epochs of the trainings that nobody has finished.
    fn open_epochs(&self) -> Result<u64> {
        let done = self.job.places.prompts.committed(TRAIN)?;
        let mut epochs = 0;
        for prompt in self.planned.trained_prompts() {
            if !done.contains(&prompt.unit)? {
                epochs += prompt.trainer.epochs() as u64;
            }
        }
        Ok(epochs)
    }

    /// Returns when at most `open` of `prompts` are not committed: waits for other workers, and takes the place of those that
    /// are gone.
    fn finish(&mut self, prompts: &[&'a PlannedPrompt], open: usize) -> Result<()> {
        loop {
            self.job.worker.interrupt.check()?;
            let taken = self.wait(prompts, open)?;
            if taken.is_empty() {
                return Ok(());
            }
            self.make(&taken, true)?;
        }
    }

    /// Waits until at most `most_open` of `prompts` are not committed, or until this worker is to make some in the place of
    /// workers that are gone, which it returns: at most one for each device, so that others that wait have their part.
    fn wait(
        &mut self,
        prompts: &[&'a PlannedPrompt],
        most_open: usize,
    ) -> Result<Vec<&'a PlannedPrompt>> {
        let (ledger, worker) = (&self.job.places.prompts, &self.job.worker);
        let patience = worker.patience;
        let mut waiting = Waiting::new(self.job, TRAIN);
        let mut looked: Option<Instant> = None;
        loop {
            let done = ledger.committed(TRAIN)?;
            let mut open = Vec::new();
            for prompt in prompts {
                if !done.contains(&prompt.unit)? {
                    open.push(*prompt);
                }
            }
            if open.len() <= most_open {
                return Ok(Vec::new());
            }
            // Often enough for the patience, and seldom enough for a store that is paid by the request.
            if looked.is_none_or(|at| at.elapsed() >= patience / 20) {
                looked = Some(Instant::now());
                let taken = self.taken(&open)?;
                if !taken.is_empty() {
                    return Ok(taken);
                }
            }
            waiting.pause(|| {
                let named: Vec<(String, &Unit)> = open
                    .iter()
                    .map(|prompt| (prompt.key.name(), &prompt.unit))
                    .collect();
                let claimant = |unit: &Unit| Ok(ledger.last_claim(TRAIN, &unit.key)?.1);
                let text = format!(
                    "{} prompt sets that other workers have claimed: {}; a worker that does not report for {} s is replaced",
                    open.len(),
                    claimed_by(&named, claimant)?,
                    patience.as_secs()
                );
                Ok((open.len(), text))
            })?;
        }
    }

    /// Those of `open` whose workers are gone, and which this one takes over now or has taken over before it was started again.
    fn taken(&mut self, open: &[&'a PlannedPrompt]) -> Result<Vec<&'a PlannedPrompt>> {
        let (ledger, worker) = (&self.job.places.prompts, &self.job.worker);
        let mut taken = Vec::new();
        for prompt in open {
            if taken.len() == self.devices.len() {
                break;
            }
            // A listing may be behind.
            if ledger.is_done(TRAIN, &prompt.unit)? {
                continue;
            }
            let unit = (TRAIN, &prompt.unit);
            let turn = self
                .lost
                .turn(ledger, &worker.journal, unit, worker.patience)?;
            if turn == Turn::TakenOver {
                worker.reporting.say(&format!(
                    "{TRAIN:>9} {}: its worker has not reported for {} s and is replaced by this one",
                    prompt.key.name(),
                    worker.patience.as_secs()
                ));
            }
            if turn != Turn::Others {
                taken.push(*prompt);
            }
        }
        Ok(taken)
    }
}
