//! One thread per device that makes prompt sets until none is left.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};

use bytes::Bytes;
use clipood_clip::model::{Device, PromptTrainer};
use clipood_ood::Matrix;
use clipood_store::{Part, Passes};

use super::{TRAIN, recovered};
use crate::devices::{is_fatal, on_devices, report_lost_device};
use crate::error::{PipelineError, Result};
use crate::inputs::recorded;
use crate::job::Job;
use crate::journal::EVERY;
use crate::panics::guarded;
use crate::planned::Planned;
use crate::progress::StageProgress;
use crate::prompts::data::{name_losses, prompt_data, shot_features};
use crate::prompts::file::{PromptSet, prompt_footer, prompt_path, read_prompt};
use crate::prompts::trainers::work::Work;
use crate::prompts::trainers::{PlannedPrompt, Trainer};
use crate::sync::locked;

/// The prompt sets to make, shared by one thread per device.
pub struct Bench<'a> {
    job: &'a Job,
    planned: &'a Planned,
    prompts: &'a [&'a PlannedPrompt],
    /// Which of `prompts` comes next.
    turns: Mutex<Passes<'a>>,
    /// Whether `turns` has given all that it has.
    all_given: AtomicBool,
    /// Prompt sets that failed GPUs did not finish.
    returned: Mutex<Vec<usize>>,
    progress: Mutex<StageProgress>,
}

impl<'a> Bench<'a> {
    /// A bench for those of `prompts` that `turns` gives.
    pub fn new(
        job: &'a Job,
        planned: &'a Planned,
        prompts: &'a [&'a PlannedPrompt],
        turns: Passes<'a>,
        progress: StageProgress,
    ) -> Self {
        Self {
            job,
            planned,
            prompts,
            turns: Mutex::new(turns),
            all_given: AtomicBool::new(false),
            returned: Mutex::default(),
            progress: Mutex::new(progress),
        }
    }

    /// Makes all of them on `devices`, from which failed GPUs are removed. Meanwhile a thread reports that this worker lives,
    /// because a step of a training may take longer than others wait for a report.
    pub fn make_all(self, devices: &mut Vec<Device>) -> Result<()> {
        let at_once = self.prompts.len();
        let left_over =
            || !self.all_given.load(Ordering::SeqCst) || !locked(&self.returned).is_empty();
        std::thread::scope(|scope| {
            let (end, ended) = channel::<()>();
            let progress = &self.progress;
            let beat = move || {
                while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                    locked(progress).beat();
                }
            };
            // Without memory for a thread there are the reports of the steps.
            let _ = std::thread::Builder::new().spawn_scoped(scope, beat);
            let made = on_devices(TRAIN, devices, at_once, left_over, |device| {
                self.make_on(device)
            });
            drop(end);
            made
        })?;
        if let Ok(progress) = self.progress.into_inner() {
            progress.finish();
        }
        Ok(())
    }

    /// Makes prompt sets on `device` until none is left. If a GPU fails, its prompt set is left to the other devices,
    /// which resume from its last checkpoint.
    fn make_on(&self, device: Device) -> Result<()> {
        let mut trainer = None;
        while let Some(number) = self.next()? {
            let made = guarded(TRAIN, || {
                let prompt = self.prompts[number];
                // Opened for the first that needs it: the text tower with gradients is large.
                if trainer.is_none() && prompt.trainer.trains_context() {
                    let dtype = self.job.worker.devices.dtype.for_training(device);
                    let model = &self.job.experiment.model;
                    trainer = Some(model.prompt_trainer_as(device, dtype)?);
                }
                self.make(device, trainer.as_ref(), prompt)
            });
            if let Err(error) = made {
                locked(&self.returned).push(number);
                if !is_fatal(device, &error) {
                    report_lost_device(self.job.worker.reporting, device, &error);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// The next of `prompts` to make. Called as late as possible, because each call claims a unit.
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
    fn make(
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
