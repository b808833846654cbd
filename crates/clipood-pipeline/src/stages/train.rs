//! Stage `train`: makes the prompt sets that the store does not have yet, one after the other on each device. One unit
//! per prompt set.
//!
//! Trainings take long, so a worker waits for those that other workers have claimed, and does them only when nothing is heard
//! of those workers any more ([`Worker::patience`](crate::Worker::patience)).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Instant;

use bytes::Bytes;
use clipood_clip::model::{Device, PromptTrainer};
use clipood_ood::Matrix;
use clipood_store::{Ledger, Part, Passes, Share, Unit, passes};

use super::take_over::{Lost, Turn, last_claim};
use super::waiting::{Waiting, claimed_by};
use super::{ExplainedUnit, Stage};
use crate::devices::{is_fatal, on_devices, report_lost_device};
use crate::error::{PipelineError, Result};
use crate::inputs::recorded;
use crate::job::Job;
use crate::journal::EVERY;
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
/// Those that build on others come last, when all that they need is committed.
///
/// # Errors
/// An interruption (trainings write a checkpoint), a loss that is not finite, a store that cannot be written.
fn run(job: &Job, planned: &Planned) -> Result<()> {
    let pending = missing(job, planned.trained_prompts())?;
    let mut alone = pending.clone();
    alone.retain(|prompt| prompt.base.is_none());
    let mut building = pending.clone();
    building.retain(|prompt| prompt.base.is_some());
    let is_base = |prompt: &PlannedPrompt| {
        let mut needed = building.iter().filter_map(|other| other.base.as_deref());
        needed.any(|base| base.unit == prompt.unit)
    };
    alone.sort_by_key(|prompt| !is_base(prompt));
    let mut bases = alone.clone();
    bases.retain(|prompt| is_base(prompt));
    let mut devices = job.worker.devices.distinct();
    let repeat = job.worker.patience.is_zero();
    make_prompts(job, planned, &mut devices, &alone, repeat)?;
    make_all(job, planned, &mut devices, &bases)?;
    make_prompts(job, planned, &mut devices, &building, repeat)?;
    make_all(job, planned, &mut devices, &pending)
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

/// Returns when all of `prompts` are committed: waits for other workers, and takes the place of those that are gone.
fn make_all(
    job: &Job,
    planned: &Planned,
    devices: &mut Vec<Device>,
    prompts: &[&PlannedPrompt],
) -> Result<()> {
    let mut lost = Lost::default();
    loop {
        let taken = wait_for_others(job, devices.len(), prompts, &mut lost)?;
        if taken.is_empty() {
            return Ok(());
        }
        make_prompts(job, planned, devices, &taken, true)?;
    }
}

/// Makes those of `prompts` that are this worker's turn, one after the other on each of `devices`, from which failed GPUs are
/// removed; with `backups` also those that others have claimed.
fn make_prompts(
    job: &Job,
    planned: &Planned,
    devices: &mut Vec<Device>,
    prompts: &[&PlannedPrompt],
    backups: bool,
) -> Result<()> {
    if prompts.is_empty() {
        return Ok(());
    }
    let ledger = &job.places.prompts;
    let trains = |prompt: &&PlannedPrompt| match prompt.trainer {
        Trainer::Context(_) | Trainer::Negative(_) => true,
        Trainer::HandWritten(_) | Trainer::LinearProbe(_) => false,
    };
    let open: Vec<Unit> = prompts.iter().map(|prompt| prompt.unit.clone()).collect();
    let share = Share {
        backups,
        ..job.worker.share
    };
    let epochs = open_epochs(ledger, planned)?;
    let bench = Bench {
        job,
        planned,
        trains: prompts.iter().any(trains),
        pending: prompts,
        turns: Mutex::new(passes(ledger, TRAIN, &open, share)),
        all_given: AtomicBool::new(false),
        returned: Mutex::default(),
        progress: Mutex::new(job.worker.progress(TRAIN, "epochs", epochs)),
    };
    bench.make(devices)?;
    if let Ok(progress) = bench.progress.into_inner() {
        progress.finish();
    }
    Ok(())
}

/// Epochs of the trainings that nobody has finished.
fn open_epochs(ledger: &Ledger, planned: &Planned) -> Result<u64> {
    let done = ledger.committed(TRAIN)?;
    let mut epochs = 0;
    for prompt in planned.trained_prompts() {
        if !done.contains(&prompt.unit)? {
            epochs += prompt.trainer.epochs() as u64;
        }
    }
    Ok(epochs)
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
    /// Whether `turns` has given all that it has.
    all_given: AtomicBool,
    /// Prompt sets that failed GPUs did not finish.
    returned: Mutex<Vec<usize>>,
    progress: Mutex<StageProgress>,
}

impl Bench<'_> {
    /// Makes all of them on `devices`. Meanwhile a thread reports that this worker lives, because a step of a training may
    /// take longer than others wait for a sign.
    fn make(&self, devices: &mut Vec<Device>) -> Result<()> {
        let at_once = self.pending.len();
        let left_over =
            || !self.all_given.load(Ordering::SeqCst) || !locked(&self.returned).is_empty();
        std::thread::scope(|scope| {
            let (end, ended) = channel::<()>();
            let beat = move || {
                while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                    locked(&self.progress).beat();
                }
            };
            // Without memory for a thread there are the reports of each epoch.
            let _ = std::thread::Builder::new().spawn_scoped(scope, beat);
            let made = on_devices(TRAIN, devices, at_once, left_over, |device| {
                self.make_all(device)
            });
            drop(end);
            made
        })
    }

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
                self.make_one(device, trainer.as_ref(), self.pending[number])
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
        if turn.is_none() {
            self.all_given.store(true, Ordering::SeqCst);
        }
        Ok(turn.map(|turn| turn.unit))
    }

    /// Makes one prompt set and commits it.
    fn make_one(
        &self,
        device: Device,
        trainer: Option<&PromptTrainer>,
        prompt: &PlannedPrompt,
    ) -> Result<()> {
        let (experiment, ledger) = (&self.job.experiment, &self.job.places.prompts);
        self.job.worker.interrupt.check()?;
        // Another worker may have made it meanwhile.
        if ledger.is_done(TRAIN, &prompt.unit)? || recovered(ledger, &prompt.unit)? {
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
                let base = prompt.base.as_deref().ok_or_else(|| {
                    let name = &work.name;
                    PipelineError::Inconsistent(format!(
                        "{name}: no prompt set to build on was planned"
                    ))
                })?;
                let positive = read_prompt(&job.places.prompts, TRAIN, &base.unit)?;
                let data = prompt_data(job, planned, key, false)?;
                training.make(work, trainer, &data, positive)
            }
        }
    }
}

/// The trainer of a device, for a method that needs one.
fn opened<'a>(work: &Work<'_>, trainer: Option<&'a PromptTrainer>) -> Result<&'a PromptTrainer> {
    trainer
        .ok_or_else(|| PipelineError::Inconsistent(format!("{}: no trainer was opened", work.name)))
}

/// Returns when every one of `prompts` is committed, with none of them, or as soon as this worker is to make some in the
/// place of workers that are gone, with those: at most `at_once`, so that the others that wait have their part.
fn wait_for_others<'a>(
    job: &Job,
    at_once: usize,
    prompts: &[&'a PlannedPrompt],
    lost: &mut Lost,
) -> Result<Vec<&'a PlannedPrompt>> {
    let (ledger, worker) = (&job.places.prompts, &job.worker);
    let patience = worker.patience;
    let mut waiting = Waiting::new(job, TRAIN);
    let mut looked: Option<Instant> = None;
    loop {
        let done = ledger.committed(TRAIN)?;
        let (mut open, mut taken) = (Vec::new(), Vec::new());
        // Often enough for the patience, and seldom enough for a store that is paid by the request.
        let looks = looked.is_none_or(|at| at.elapsed() >= patience / 20);
        if looks {
            looked = Some(Instant::now());
        }
        for prompt in prompts {
            let (name, unit) = (prompt.key.name(), &prompt.unit);
            if done.contains(unit)? {
                continue;
            }
            if looks && taken.len() < at_once {
                match lost.turn(ledger, &worker.journal, (TRAIN, unit), patience)? {
                    Turn::Others => {}
                    Turn::Mine => taken.push(*prompt),
                    Turn::TakenOver => {
                        taken.push(*prompt);
                        worker.reporting.say(&format!(
                            "{TRAIN:>9} {name}: its worker has not reported for {} s that it trains, so this one does it",
                            patience.as_secs()
                        ));
                    }
                }
            }
            open.push((name, unit));
        }
        if open.is_empty() || !taken.is_empty() {
            return Ok(taken);
        }
        waiting.pause(|| {
            let claimants = claimed_by(&open, |unit| Ok(last_claim(ledger, TRAIN, unit)?.1))?;
            let text = format!(
                "{} prompt sets that other workers have claimed: {claimants}; if one of those does not report for {} s, a \
                 worker that waits takes its place",
                open.len(),
                patience.as_secs()
            );
            Ok((open.len(), text))
        })?;
    }
}
