//! Stage `train`: makes the prompt sets that the store does not have yet, one after the other on each device. One unit
//! per prompt set.
//!
//! Trainings take long, so a worker waits for those that other workers have claimed, and repeats them only with
//! `backup_training`.

use std::sync::Mutex;

use bytes::Bytes;
use clipood_clip::model::{Device, PromptTrainer};
use clipood_ood::Matrix;
use clipood_store::{Ledger, Part, Passes, Share, Unit, passes};

use super::waiting::{Waiting, claimed_by};
use super::{ExplainedUnit, Stage};
use crate::devices::{is_fatal, on_devices, report_lost_device};
use crate::error::{PipelineError, Result};
use crate::inputs::recorded;
use crate::job::Job;
use crate::panics::guarded;
use crate::places::Shelf;
use crate::planned::Planned;
use crate::progress::StageProgress;
use crate::prompts::data::{name_losses, prompt_data, shot_features};
use crate::prompts::file::{PromptSet, prompt_footer, prompt_path, read_prompt};
use crate::prompts::trainers::work::Work;
use crate::prompts::trainers::{PlannedPrompt, Trainer};
use crate::sync::locked;

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
/// # Errors
/// An interruption (trainings write a checkpoint), a loss that is not finite, a store that cannot be written.
fn run(job: &Job, planned: &Planned) -> Result<()> {
    let ledger = &job.places.prompts;
    let done = ledger.committed(TRAIN)?;
    let mut pending: Vec<&PlannedPrompt> = Vec::new();
    for prompt in planned.distinct_prompts() {
        if !done.contains(&prompt.unit)? && !recovered(ledger, &prompt.unit)? {
            pending.push(prompt);
        }
    }
    if pending.is_empty() {
        return Ok(());
    }
    let mut epochs: usize = pending.iter().map(|prompt| prompt.trainer.epochs()).sum();
    for base in pending.iter().filter_map(|prompt| prompt.base.as_deref()) {
        let listed = pending.iter().any(|other| other.unit == base.unit);
        if !listed && !done.contains(&base.unit)? {
            epochs += base.trainer.epochs();
        }
    }
    let trains = |prompt: &&PlannedPrompt| match prompt.trainer {
        Trainer::Context(_) | Trainer::Negative(_) => true,
        Trainer::HandWritten(_) | Trainer::LinearProbe(_) => false,
    };
    let mut devices = job.worker.devices.distinct();
    devices.truncate(pending.len());
    let open: Vec<Unit> = pending.iter().map(|prompt| prompt.unit.clone()).collect();
    let share = Share {
        backups: job.worker.backup_training,
        ..job.worker.share
    };
    let bench = Bench {
        job,
        planned,
        trains: pending.iter().any(trains),
        pending: &pending,
        turns: Mutex::new(passes(ledger, TRAIN, &open, share)),
        returned: Mutex::default(),
        progress: Mutex::new(job.worker.progress(TRAIN, "epochs", epochs as u64)),
    };
    let left_over = || !locked(&bench.returned).is_empty();
    on_devices(TRAIN, devices, left_over, |device| bench.make_all(device))?;
    if let Ok(progress) = bench.progress.into_inner() {
        progress.finish();
    }
    wait_for_others(job, &pending)
}

/// Whether a prompt set without a commit record lies in the store; its record is then written again.
fn recovered(ledger: &Ledger, unit: &Unit) -> Result<bool> {
    let found = ledger.recover_part(TRAIN, unit, &prompt_path(unit), &prompt_footer)?;
    Ok(found.is_some())
}

/// The prompt sets to make, shared by one thread per device.
struct Bench<'a> {
    job: &'a Job,
    planned: &'a Planned,
    /// Whether a context is trained, which needs the text tower with gradients.
    trains: bool,
    pending: &'a [&'a PlannedPrompt],
    /// Which of `pending` comes next.
    turns: Mutex<Passes<'a>>,
    /// Prompt sets that failed GPUs did not finish.
    returned: Mutex<Vec<usize>>,
    progress: Mutex<StageProgress>,
}

impl Bench<'_> {
    /// Makes prompt sets on `device` until none is left. If a GPU fails, its prompt set is left to the other devices,
    /// which resume from its last checkpoint.
    fn make_all(&self, device: Device) -> Result<()> {
        let trainer = match self.trains {
            true => {
                let opened = guarded(TRAIN, || {
                    let dtype = self.job.worker.devices.dtype.for_training(device);
                    let model = &self.job.experiment.model;
                    Ok(model.prompt_trainer_as(device, dtype)?)
                });
                Some(opened.inspect_err(|error| self.report_lost(device, error))?)
            }
            false => None,
        };
        while let Some(number) = self.next()? {
            let made = guarded(TRAIN, || {
                self.make(device, trainer.as_ref(), self.pending[number])
            });
            if let Err(error) = made {
                locked(&self.returned).push(number);
                self.report_lost(device, &error);
                return Err(error);
            }
        }
        Ok(())
    }

    fn report_lost(&self, device: Device, error: &PipelineError) {
        if !is_fatal(device, error) {
            report_lost_device(self.job.worker.reporting, device, error);
        }
    }

    /// The next of `pending` to make. Called as late as possible, because each call claims a unit.
    fn next(&self) -> Result<Option<usize>> {
        if let Some(number) = locked(&self.returned).pop() {
            return Ok(Some(number));
        }
        let turn = locked(&self.turns).next().transpose()?;
        Ok(turn.map(|turn| turn.unit))
    }

    /// Makes one prompt set and commits it.
    fn make(
        &self,
        device: Device,
        trainer: Option<&PromptTrainer>,
        prompt: &PlannedPrompt,
    ) -> Result<()> {
        let (experiment, ledger) = (&self.job.experiment, &self.job.places.prompts);
        self.job.worker.interrupt.check()?;
        // A prompt set that builds on this one may have made it meanwhile.
        if ledger.is_done(TRAIN, &prompt.unit)? {
            return Ok(());
        }
        let name = prompt.key.name();
        let span = tracing::info_span!("train", prompt = name, %device);
        let _span = span.entered();
        let work = Work {
            name: name.clone(),
            unit: &prompt.unit,
            recipe: &experiment.recipe.name,
            classes: &self.planned.plan.classes,
            model: &experiment.model,
            store: ledger.store(),
            checkpoint_steps: experiment.recipe.engine.checkpoint_steps,
            interrupt: &self.job.worker.interrupt,
            progress: &self.progress,
        };
        let set = self.train(&work, device, trainer, prompt)?;
        let mut extra = recorded(&prompt.inputs);
        extra.insert("prompt".to_string(), name.into());
        let part = Part {
            path: prompt_path(&prompt.unit),
            bytes: Bytes::from(set.to_bytes()?),
            extra,
        };
        ledger.commit_part(TRAIN, &prompt.unit, part, &prompt_footer)?;
        Ok(())
    }

    /// Loads the training data and trains.
    fn train(
        &self,
        work: &Work<'_>,
        device: Device,
        trainer: Option<&PromptTrainer>,
        prompt: &PlannedPrompt,
    ) -> Result<PromptSet> {
        let (job, planned, key) = (self.job, self.planned, &prompt.key);
        match &prompt.trainer {
            Trainer::HandWritten(texts) => texts.make(work, device),
            Trainer::LinearProbe(probe) => {
                let (features, labels) = shot_features(job, planned, key)?;
                name_losses(job, planned, key, &labels)?;
                let dim = job.experiment.dim();
                let features = Matrix::new("shots", &features, labels.len(), dim)?;
                probe.make(work, &features, &labels)
            }
            Trainer::Context(training) => {
                let trainer = opened(work, trainer)?;
                let data = prompt_data(job, planned, key, training.uses_patches())?;
                training.make(work, trainer, &data)
            }
            Trainer::Negative(training) => {
                let trainer = opened(work, trainer)?;
                let positive = self.base(device, trainer, prompt)?;
                let data = prompt_data(job, planned, key, false)?;
                training.make(work, trainer, &data, positive)
            }
        }
    }

    /// The prompt set that another one builds on, made and committed here if nobody has. Two workers may make it at once: the
    /// first to commit wins, as with every unit.
    fn base(
        &self,
        device: Device,
        trainer: &PromptTrainer,
        prompt: &PlannedPrompt,
    ) -> Result<PromptSet> {
        let ledger = &self.job.places.prompts;
        let base = prompt.base.as_deref().ok_or_else(|| {
            let name = prompt.key.name();
            PipelineError::Inconsistent(format!("{name}: no prompt set to build on was planned"))
        })?;
        if !ledger.is_done(TRAIN, &base.unit)? && !recovered(ledger, &base.unit)? {
            self.make(device, Some(trainer), base)?;
        }
        read_prompt(ledger, TRAIN, &base.unit)
    }
}

/// The trainer of a device, for a method that needs one.
fn opened<'a>(work: &Work<'_>, trainer: Option<&'a PromptTrainer>) -> Result<&'a PromptTrainer> {
    trainer
        .ok_or_else(|| PipelineError::Inconsistent(format!("{}: no trainer was opened", work.name)))
}

/// Returns when every one of `prompts` is committed. There is no timeout: a worker that claimed a unit and died is started
/// again by the cluster or the user, or a worker with `backup_training` does the unit.
fn wait_for_others(job: &Job, prompts: &[&PlannedPrompt]) -> Result<()> {
    let ledger = &job.places.prompts;
    let mut waiting = Waiting::new(job, TRAIN);
    loop {
        let done = ledger.committed(TRAIN)?;
        let mut open = Vec::new();
        for prompt in prompts {
            if !done.contains(&prompt.unit)? {
                open.push((prompt.key.name(), &prompt.unit));
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        waiting.pause(|| {
            let text = format!(
                "{} prompt sets that other workers have claimed: {}; if those are gone, start them again, or this one with \
                 --backup-training",
                open.len(),
                claimed_by(ledger, TRAIN, &open)?
            );
            Ok((open.len(), text))
        })?;
    }
}
