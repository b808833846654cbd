//! Makes the prompt sets that the store does not have yet.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clipood_clip::model::{Device, PromptTask, PromptTrainer};
use clipood_clip::prompt::{
    EpochLog, PatchLoss, PromptLoss, PromptOptions, PromptState, TrainOptions,
};
use clipood_core::{FingerprintBuilder, Method};
use clipood_store::{Part, Passes, Share, Unit, passes};

use super::checkpoint::Checkpoint;
use super::data::prompt_data;
use super::file::{PromptSet, prompt_footer};
use super::probe::{linear_probe, options_of};
use crate::devices::{drops_out, gives_up, guarded, on_devices};
use crate::error::{PipelineError, Result};
use crate::extract::FeatureIndex;
use crate::inputs::recorded;
use crate::job::{Job, RESULTS_VERSION};
use crate::plan::Plan;
use crate::progress::StageProgress;
use crate::tables::{FileMeta, TrainLogRow, write_train_log};

/// Name of the stage in the ledger of the prompts.
pub const STAGE: &str = "train";
/// Time between two checkpoints of a training.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// Which prompt set: the `prompt` column of every table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PromptKey {
    /// The method.
    pub method: Method,
    /// Training images a class; `None` for hand-written prompts.
    pub shots: Option<usize>,
    /// Seed of split and training; `None` for hand-written prompts.
    pub seed: Option<u64>,
}

impl PromptKey {
    /// `zero-shot`, `coop-16shot-seed1`.
    pub fn name(&self) -> String {
        match (self.shots, self.seed) {
            (Some(shots), Some(seed)) => format!("{}-{shots}shot-seed{seed}", self.method),
            _ => self.method.to_string(),
        }
    }
}

/// The prompt sets of a recipe: every method, shots and seed.
pub fn prompt_keys(job: &Job) -> Vec<PromptKey> {
    let mut keys = Vec::new();
    for method in &job.recipe.methods {
        if !method.uses_shots() {
            keys.push(PromptKey {
                method: *method,
                shots: None,
                seed: None,
            });
            continue;
        }
        for shots in &job.recipe.shots {
            for seed in &job.recipe.seeds {
                keys.push(PromptKey {
                    method: *method,
                    shots: Some(*shots),
                    seed: Some(*seed),
                });
            }
        }
    }
    keys
}

/// Time between two looks at the prompt sets that other workers are making.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Makes or reads every prompt set of the recipe, in the order of [`prompt_keys`]. Those that other workers have claimed
/// are waited for, or, where the job backs trainings up, made here as well.
///
/// # Errors
/// An interruption (a training leaves a checkpoint), a loss that is not finite, a store that cannot be written.
pub fn prompt_sets(job: &Job, plan: &Plan, index: &FeatureIndex) -> Result<Vec<PromptSet>> {
    let keys = prompt_keys(job);
    let units = prompt_units(job, plan, &keys)?;
    let done = job.prompts.committed(STAGE)?;
    let mut pending: Vec<(&PromptKey, &Unit)> = Vec::new();
    for (key, unit) in keys.iter().zip(&units) {
        // A dual-pattern method may share the prompt set of its namesake, and seeds that chose the same images their probe.
        if pending.iter().any(|(_, other)| *other == unit) {
            continue;
        }
        let stands = done.contains(unit)?
            || job
                .prompts
                .recover_part(STAGE, unit, &part_path(unit), &prompt_footer)?
                .is_some();
        if !stands {
            pending.push((key, unit));
        }
    }
    let epochs: usize = pending
        .iter()
        .map(|(key, _)| job.recipe.train.epochs_for(key.method).max(1))
        .sum();
    if !pending.is_empty() {
        let trains = pending.iter().any(|(key, _)| key.method.trains_prompt());
        let mut devices = job.devices.distinct();
        devices.truncate(pending.len());
        let open: Vec<Unit> = pending.iter().map(|(_, unit)| (*unit).clone()).collect();
        let share = Share {
            backups: job.backup_training,
            ..job.share
        };
        let stage = Stage {
            job,
            plan,
            index,
            trains,
            pending: &pending,
            turns: Mutex::new(passes(&job.prompts, STAGE, &open, share)),
            returned: Mutex::default(),
            progress: Mutex::new(job.stage(STAGE, "epochs", epochs as u64)),
        };
        let left_over = || !locked(&stage.returned).is_empty();
        on_devices(STAGE, devices, left_over, |device| stage.make_all(device))?;
        if let Ok(progress) = stage.progress.into_inner() {
            progress.finish();
        }
        wait_for_others(job, &open)?;
    }
    units.iter().map(|unit| read(job, unit)).collect()
}

/// The prompt sets to make, shared by a thread for each device.
struct Stage<'a> {
    job: &'a Job,
    plan: &'a Plan,
    index: &'a FeatureIndex,
    trains: bool,
    pending: &'a [(&'a PromptKey, &'a Unit)],
    /// Which of `pending` comes next.
    turns: Mutex<Passes<'a>>,
    /// What GPUs that failed had in hand.
    returned: Mutex<Vec<usize>>,
    progress: Mutex<StageProgress>,
}

impl Stage<'_> {
    /// Makes prompt sets on `device` until there are none left. One that a failing GPU had in hand goes back for the others,
    /// which go on from its last checkpoint.
    fn make_all(&self, device: Device) -> Result<()> {
        let trainer = match self.trains {
            true => {
                let opened = guarded(STAGE, || {
                    let dtype = self.job.devices.dtype;
                    Ok(self.job.model.prompt_trainer_as(device, dtype)?)
                });
                Some(opened.inspect_err(|error| self.drops_out(device, error))?)
            }
            false => None,
        };
        while let Some(number) = self.next()? {
            let made = guarded(STAGE, || self.make(device, trainer.as_ref(), number));
            if let Err(error) = made {
                locked(&self.returned).push(number);
                self.drops_out(device, &error);
                return Err(error);
            }
        }
        Ok(())
    }

    fn drops_out(&self, device: Device, error: &PipelineError) {
        if !gives_up(device, error) {
            drops_out(self.job, device, error);
        }
    }

    /// The next of `pending` to make. Asked for as late as possible: each request claims a unit.
    fn next(&self) -> Result<Option<usize>> {
        if let Some(number) = locked(&self.returned).pop() {
            return Ok(Some(number));
        }
        let turn = locked(&self.turns).next().transpose()?;
        Ok(turn.map(|turn| turn.unit))
    }

    fn make(&self, device: Device, trainer: Option<&PromptTrainer>, number: usize) -> Result<()> {
        let (job, plan, index) = (self.job, self.plan, self.index);
        job.interrupt.check()?;
        let (key, unit) = self.pending[number];
        let span = tracing::info_span!("train", prompt = key.name(), %device);
        let _span = span.entered();
        let set = match trainer {
            Some(trainer) if key.method.trains_prompt() => {
                train(job, plan, index, trainer, key, unit, &self.progress)?
            }
            _ if key.method == Method::LinearProbe => {
                let (set, note) = linear_probe(job, plan, index, key, unit)?;
                locked(&self.progress).note(&note);
                locked(&self.progress).add(1);
                set
            }
            _ => {
                locked(&self.progress).add(1);
                hand_written(job, plan, unit, device)?
            }
        };
        let mut extra = recorded(prompt_inputs(job, plan, key)?.inputs());
        extra.insert("prompt".to_string(), key.name().into());
        let part = Part {
            path: part_path(unit),
            bytes: Bytes::from(set.to_bytes()?),
            extra,
        };
        job.prompts.commit_part(STAGE, unit, part, &prompt_footer)?;
        Ok(())
    }
}

/// The value behind a lock, whatever a thread that panicked left.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns when every unit is committed. Nothing is concluded from the time that this takes: whoever claimed a unit and
/// died is started again by whatever started it, or a worker that backs trainings up takes it over.
fn wait_for_others(job: &Job, units: &[Unit]) -> Result<()> {
    let mut told = false;
    loop {
        let done = job.prompts.committed(STAGE)?;
        let mut missing = 0;
        for unit in units {
            missing += usize::from(!done.contains(unit)?);
        }
        if missing == 0 {
            return Ok(());
        }
        if !told {
            job.reporting.say(&format!(
                "waiting for {missing} prompt sets that other workers have claimed; if those are gone, start them again, or \
                 this one with --backup-training"
            ));
            told = true;
        }
        job.interrupt.check()?;
        std::thread::sleep(LOOK_EVERY);
    }
}

fn part_path(unit: &Unit) -> String {
    format!("{}/prompt.safetensors", unit.fingerprint)
}

/// The units of prompt sets. A prompt set is known by what made it, so other runs, recipes and detectors find it again.
///
/// # Errors
/// A recipe whose patch term does not fit the number of classes.
pub fn prompt_units(job: &Job, plan: &Plan, keys: &[PromptKey]) -> Result<Vec<Unit>> {
    let unit = |key: &PromptKey| -> Result<Unit> {
        let fingerprint = prompt_inputs(job, plan, key)?.finish()?;
        Ok(prompt_unit(fingerprint.to_string()))
    };
    keys.iter().map(unit).collect()
}

/// The unit of the prompt set of a fingerprint.
pub fn prompt_unit(fingerprint: String) -> Unit {
    Unit {
        key: fingerprint.chars().take(24).collect(),
        fingerprint,
    }
}

/// Everything that decides a prompt set.
///
/// # Errors
/// As [`prompt_units`].
pub fn prompt_inputs(job: &Job, plan: &Plan, key: &PromptKey) -> Result<FingerprintBuilder> {
    let recipe = &job.recipe;
    let mut builder = FingerprintBuilder::new("prompt")
        .field("results", &RESULTS_VERSION)
        .field("model", &job.model.hash)
        .field("backend", &job.devices.backend())
        .field("method", &key.method.trainer())
        .field("classes", &plan.classes);
    if let (Some(shots), Some(seed)) = (key.shots, key.seed) {
        let content: BTreeMap<&str, &str> = plan
            .id()
            .train
            .iter()
            .map(|image| (image.key.as_str(), image.content_hash.as_str()))
            .collect();
        let images: Vec<(&str, &str, &str)> = plan.splits[&seed]
            .classes
            .iter()
            .flat_map(|(class, keys)| {
                keys.iter()
                    .take(shots)
                    .map(move |key| (class, key.as_str()))
            })
            .map(|(class, key)| {
                (
                    class.as_str(),
                    key,
                    content.get(key).copied().unwrap_or_default(),
                )
            })
            .collect();
        builder = builder
            .field("features", &job.features.fingerprint)
            .field("images", &images);
        if key.method == Method::LinearProbe {
            // Nothing is drawn: the seed has chosen the images, and that is all.
            let options = options_of(recipe);
            return Ok(builder
                .field("c", &options.c)
                .field("max_iter", &options.max_iter));
        }
        builder = builder
            .field("seed", &seed)
            .field("n_ctx", &recipe.prompt.n_ctx)
            .field("ctx_init", &recipe.prompt.ctx_init)
            .field("class_token", &recipe.prompt.class_token)
            .field("class_specific", &recipe.prompt.class_specific)
            .field("train", &recipe.train)
            .field("epochs", &recipe.train.epochs_for(key.method));
        if key.method.uses_patches() {
            builder = builder
                .field("lambda", &recipe.locoop.lambda)
                .field("top_k", &recipe.locoop.top_k_for(plan.classes.len())?);
        }
    } else {
        builder = builder.field("templates", &recipe.prompt.templates.templates());
    }
    Ok(builder)
}

fn hand_written(job: &Job, plan: &Plan, unit: &Unit, device: Device) -> Result<PromptSet> {
    let encoder = job.model.text_encoder(device)?;
    let templates = job.recipe.prompt.templates.templates();
    Ok(PromptSet {
        fingerprint: unit.fingerprint.clone(),
        classes: plan.classes.clone(),
        text: encoder.classes(&plan.classes, &templates)?,
        state: None,
        probe: None,
    })
}

fn loss_of(job: &Job, plan: &Plan, method: Method) -> Result<PromptLoss> {
    let patch = || -> Result<PatchLoss> {
        Ok(PatchLoss {
            lambda: job.recipe.locoop.lambda,
            top_k: job.recipe.locoop.top_k_for(plan.classes.len())?,
        })
    };
    Ok(match method.trainer() {
        Method::Locoop => PromptLoss::Locoop(patch()?),
        Method::Sct => PromptLoss::Sct(patch()?),
        _ => PromptLoss::Coop,
    })
}

#[allow(clippy::too_many_arguments)]
fn train(
    job: &Job,
    plan: &Plan,
    index: &FeatureIndex,
    trainer: &PromptTrainer,
    key: &PromptKey,
    unit: &Unit,
    progress: &Mutex<StageProgress>,
) -> Result<PromptSet> {
    let (Some(shots), Some(seed)) = (key.shots, key.seed) else {
        return Err(PipelineError::Inconsistent(format!(
            "prompt set {} trains without shots",
            key.name()
        )));
    };
    let section = &job.recipe.train;
    let data = prompt_data(job, plan, index, seed, shots, key.method.uses_patches())?;
    let options = TrainOptions {
        loss: loss_of(job, plan, key.method)?,
        logit_scale: job.model.logit_scale(),
        epochs: section.epochs_for(key.method),
        lr: section.lr,
        warmup_lr: section.warmup_lr,
        momentum: section.momentum,
        weight_decay: section.weight_decay,
        batch_size: section.batch_size,
        fresh_views: section.views == 0,
        seed,
    };
    let prompt = PromptOptions {
        n_ctx: job.recipe.prompt.n_ctx,
        ctx_init: job.recipe.prompt.ctx_init.clone(),
        class_token: job.recipe.prompt.class_token,
        class_specific: job.recipe.prompt.class_specific,
    };
    let (resume, mut log) = read_checkpoint(job, unit)?;
    if let Some(state) = &resume {
        locked(progress).note(&format!(
            "{}: going on after step {}",
            key.name(),
            state.step
        ));
        locked(progress).add(state.epoch as u64);
    }
    let mut saved = Instant::now();
    let mut saved_step = resume.as_ref().map_or(0, |state| state.step);
    let mut failure = None;
    let task = PromptTask {
        names: &plan.classes,
        prompt: &prompt,
        data: &data,
        train: &options,
    };
    let trained = trainer.train(&task, resume, |epoch, state| {
            if let Some(epoch) = epoch {
                log.push(log_row(epoch));
                locked(progress).add(1);
            }
            let stop = job.interrupt.is_set();
            let steps = state.step - saved_step >= job.recipe.engine.checkpoint_steps;
            if stop || steps || (epoch.is_some() && saved.elapsed() >= CHECKPOINT_EVERY) {
                (saved, saved_step) = (Instant::now(), state.step);
                if let Err(error) = write_checkpoint(job, unit, state, &log) {
                    failure = Some(error);
                    return false;
                }
            }
            !stop
        })?;
    if let Some(error) = failure {
        return Err(error);
    }
    if trained.state.epoch < options.epochs {
        return Err(PipelineError::Interrupted);
    }
    if let Some(last) = log.last() {
        locked(progress).note(&format!(
            "{}: loss {:.3}, training accuracy {:.1}% after {} steps",
            key.name(),
            last.loss,
            100.0 * last.accuracy,
            last.step
        ));
    }
    let meta = FileMeta {
        fingerprint: unit.fingerprint.clone(),
        recipe: job.recipe.name.clone(),
        quarantined: Vec::new(),
        extra: BTreeMap::new(),
    };
    let path = format!("{}/train_log.parquet", unit.fingerprint);
    job.prompts
        .store()
        .put(&path, Bytes::from(write_train_log(&log, &meta)?))?;
    Ok(PromptSet {
        fingerprint: unit.fingerprint.clone(),
        classes: plan.classes.clone(),
        text: trained.text,
        state: Some(trained.state),
        probe: None,
    })
}

fn log_row(epoch: &EpochLog) -> TrainLogRow {
    TrainLogRow {
        epoch: epoch.epoch as u64,
        step: epoch.step as u64,
        loss: epoch.loss,
        accuracy: epoch.accuracy,
        lr: epoch.lr,
    }
}

fn checkpoint_path(unit: &Unit) -> String {
    format!("{}/checkpoint.safetensors", unit.fingerprint)
}

fn write_checkpoint(
    job: &Job,
    unit: &Unit,
    state: &PromptState,
    log: &[TrainLogRow],
) -> Result<()> {
    let checkpoint = Checkpoint {
        state: state.clone(),
        log: log.to_vec(),
    };
    let bytes = Bytes::from(checkpoint.to_bytes()?);
    Ok(job.prompts.store().put(&checkpoint_path(unit), bytes)?)
}

fn read_checkpoint(job: &Job, unit: &Unit) -> Result<(Option<PromptState>, Vec<TrainLogRow>)> {
    let path = checkpoint_path(unit);
    let store = job.prompts.store();
    let Some(bytes) = store.get(&path)? else {
        return Ok((None, Vec::new()));
    };
    let Checkpoint { state, log } = Checkpoint::from_bytes(&bytes, &store.display(&path))?;
    Ok((Some(state), log))
}

fn read(job: &Job, unit: &Unit) -> Result<PromptSet> {
    let path = part_path(unit);
    let store = job.prompts.store();
    let bytes = store.get(&path)?.ok_or_else(|| {
        PipelineError::Inconsistent(format!("{}: committed but missing", store.display(&path)))
    })?;
    PromptSet::from_bytes(&bytes, &store.display(&path))
}
