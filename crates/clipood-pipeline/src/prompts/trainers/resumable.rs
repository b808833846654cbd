//! Trainings in epochs: resumed from the last checkpoint, interruptible after every step, with a log in the store.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clipood_clip::ClipError;
use clipood_clip::model::TrainedPrompt;
use clipood_clip::prompt::{EpochLog, PromptState};

use super::work::Work;
use crate::error::{PipelineError, Result};
use crate::prompts::checkpoint::{read_checkpoint, write_checkpoint};
use crate::tables::{FileMeta, TrainLogRow, write_train_log};

/// Time between two checkpoints of a training.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// Called after every step with the state, and at the end of an epoch with its log; false stops the training.
pub type After<'a> = dyn FnMut(Option<&EpochLog>, &PromptState) -> bool + 'a;

/// Runs `train` from the last checkpoint of the unit, if there is one, to the last of `epochs`, and writes its log.
///
/// # Errors
/// An interruption (after writing a checkpoint), those of `train`, a store that cannot be written.
pub fn train_resumably(
    work: &Work<'_>,
    epochs: usize,
    train: impl FnOnce(
        Option<PromptState>,
        &mut After<'_>,
    ) -> std::result::Result<TrainedPrompt, ClipError>,
) -> Result<TrainedPrompt> {
    let (store, unit) = (work.store, work.unit);
    let (resume, mut log) = read_checkpoint(store, unit, |text| work.note(text))?;
    if let Some(state) = &resume {
        work.note(&format!("going on after step {}", state.step));
        work.add(state.epoch as u64);
    }
    let mut saved = Instant::now();
    let mut saved_step = resume.as_ref().map_or(0, |state| state.step);
    let mut failure = None;
    let mut after = |epoch: Option<&EpochLog>, state: &PromptState| {
        if let Some(epoch) = epoch {
            log.push(log_row(epoch));
            work.add(1);
        }
        work.step();
        let stop = work.interrupt.is_set();
        let steps = state.step - saved_step >= work.checkpoint_steps;
        if stop || steps || (epoch.is_some() && saved.elapsed() >= CHECKPOINT_EVERY) {
            (saved, saved_step) = (Instant::now(), state.step);
            if let Err(error) = write_checkpoint(store, unit, state, &log) {
                failure = Some(error);
                return false;
            }
        }
        !stop
    };
    let trained = train(resume, &mut after)?;
    if let Some(error) = failure {
        return Err(error);
    }
    if trained.state.epoch < epochs {
        return Err(PipelineError::Interrupted);
    }
    if let Some(last) = log.last() {
        work.note(&format!(
            "loss {:.3}, training accuracy {:.1}% after {} steps",
            last.loss,
            100.0 * last.accuracy,
            last.step
        ));
    }
    let meta = FileMeta {
        fingerprint: unit.fingerprint.clone(),
        recipe: work.recipe.to_string(),
        ..FileMeta::default()
    };
    let path = format!("{}/train_log.parquet", unit.fingerprint);
    store.put(&path, Bytes::from(write_train_log(&log, &meta)?))?;
    Ok(trained)
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
