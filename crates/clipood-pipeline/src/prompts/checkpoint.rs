//! The checkpoint of a training: a safetensors file, so that every number is read back bit for bit.

use bytes::Bytes;
use clipood_clip::prompt::{PartialEpoch, PromptState};
use clipood_clip::safetensors_file::{ArrayFile, ArrayFileError, NamedArray, to_bytes};
use clipood_store::{Seal, Store, Unit, blank_seal, check_seal, stamp};

use crate::error::{PipelineError, Result};
use crate::tables::{SEAL, TrainLogRow};

/// State of a training, and the log of its epochs.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The state that the training resumes from.
    pub state: PromptState,
    /// One row per finished epoch.
    pub log: Vec<TrainLogRow>,
}

/// Numbers of a log row: epoch, step, loss, accuracy and learning rate. Epochs and steps are exact in float64.
const COLUMNS: usize = 5;

impl Checkpoint {
    /// The checkpoint as safetensors: `context` and `momentum` (float32), `log` `[epochs, 5]` and `partial_loss` `[1]`
    /// (float64); the counts are metadata.
    ///
    /// # Errors
    /// The serializer refused.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let fail = |e: String| PipelineError::Inconsistent(format!("checkpoint: {e}"));
        let state = &self.state;
        let counts = [
            ("epoch", state.epoch),
            ("step", state.step),
            ("partial_steps", state.partial.steps),
            ("partial_right", state.partial.right),
        ];
        let metadata = counts
            .iter()
            .map(|(name, count)| (format!("clipood.{name}"), count.to_string()))
            .chain([(SEAL.to_string(), blank_seal())]);
        let mut log = Vec::with_capacity(self.log.len() * COLUMNS);
        for row in &self.log {
            log.extend([
                row.epoch as f64,
                row.step as f64,
                row.loss,
                row.accuracy,
                row.lr,
            ]);
        }
        let rows = vec![self.log.len(), COLUMNS];
        let arrays = [
            NamedArray::f32("context", vec![state.context.len()], &state.context),
            NamedArray::f32("momentum", vec![state.momentum.len()], &state.momentum),
            NamedArray::f64("log", rows, &log),
            NamedArray::f64("partial_loss", vec![1], &[state.partial.loss]),
        ];
        let mut bytes = to_bytes(&arrays, metadata).map_err(|e| fail(e.to_string()))?;
        stamp(&mut bytes);
        Ok(bytes)
    }

    /// Reads what [`Checkpoint::to_bytes`] wrote; `path` names it in errors.
    ///
    /// # Errors
    /// The file is damaged or of another kind.
    pub fn from_bytes(bytes: &[u8], path: &str) -> Result<Self> {
        let fail = |e: String| PipelineError::Inconsistent(format!("{path}: {e}"));
        let broken = |e: ArrayFileError| fail(e.to_string());
        let file = ArrayFile::read(bytes).map_err(broken)?;
        let count = |name: &str| file.count(&format!("clipood.{name}")).map_err(broken);
        let single = |name: &str| file.f32(name).map_err(broken);
        let double = |name: &str| file.f64(name).map_err(broken);
        let (context, momentum) = (single("context")?, single("momentum")?);
        if momentum.len() != context.len() {
            return Err(fail(format!(
                "a momentum of {} values, expected {}, as the context has",
                momentum.len(),
                context.len()
            )));
        }
        let log = double("log")?
            .as_chunks::<COLUMNS>()
            .0
            .iter()
            .map(|[epoch, step, loss, accuracy, lr]| TrainLogRow {
                epoch: *epoch as u64,
                step: *step as u64,
                loss: *loss,
                accuracy: *accuracy,
                lr: *lr,
            })
            .collect();
        let loss = double("partial_loss")?.first().copied();
        Ok(Self {
            state: PromptState {
                context,
                momentum,
                epoch: count("epoch")?,
                step: count("step")?,
                partial: PartialEpoch {
                    steps: count("partial_steps")?,
                    loss: loss.ok_or_else(|| fail("`partial_loss` is empty".to_string()))?,
                    right: count("partial_right")?,
                },
            },
            log,
        })
    }
}

fn path_of(unit: &Unit) -> String {
    format!("{}/checkpoint.safetensors", unit.fingerprint)
}

/// Writes the checkpoint of a training into the store of prompts.
///
/// # Errors
/// A store that cannot be written.
pub fn write_checkpoint(
    store: &Store,
    unit: &Unit,
    state: &PromptState,
    log: &[TrainLogRow],
) -> Result<()> {
    let checkpoint = Checkpoint {
        state: state.clone(),
        log: log.to_vec(),
    };
    let bytes = Bytes::from(checkpoint.to_bytes()?);
    Ok(store.put(&path_of(unit), bytes)?)
}

/// The state and log that a training resumes from; `None` if it has not begun.
///
/// A damaged checkpoint is moved to `checkpoint.safetensors.damaged` and reported to `note`; the training then begins
/// again, with the same result.
///
/// # Errors
/// A checkpoint that cannot be read; a store that cannot be written.
pub fn read_checkpoint(
    store: &Store,
    unit: &Unit,
    note: impl Fn(&str),
) -> Result<(Option<PromptState>, Vec<TrainLogRow>)> {
    let path = path_of(unit);
    let Some(bytes) = store.get(&path)? else {
        return Ok((None, Vec::new()));
    };
    if let Seal::Broken { expected, found } = check_seal(&bytes) {
        let kept = format!("{path}.damaged");
        store.put(&kept, bytes)?;
        store.delete(&path)?;
        let (path, kept) = (store.display(&path), store.display(&kept));
        note(&format!(
            "{path} is damaged: expected blake3 {expected}, found {found}; moved to {kept}, the training begins again"
        ));
        return Ok((None, Vec::new()));
    }
    let Checkpoint { state, log } = Checkpoint::from_bytes(&bytes, &store.display(&path))?;
    Ok((Some(state), log))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back_with_its_bits() {
        let row = |epoch: u64| TrainLogRow {
            epoch,
            step: 7 * epoch + 7,
            loss: 1.0 / 3.0 + epoch as f64 * 0.1,
            accuracy: 2.0 / 3.0,
            lr: 1e-5,
        };
        for epochs in [0, 2] {
            let checkpoint = Checkpoint {
                state: PromptState {
                    context: vec![0.1, -1.0 / 3.0, f32::MIN_POSITIVE, 1e-45, -0.0],
                    momentum: vec![16_777_216.0, 1e-30, 0.3, 1.0, f32::MAX],
                    epoch: epochs as usize,
                    step: 17,
                    partial: PartialEpoch {
                        steps: 3,
                        loss: 0.1 + 0.2,
                        right: 5,
                    },
                },
                log: (0..epochs).map(row).collect(),
            };
            let bytes = checkpoint.to_bytes().unwrap();
            let back = Checkpoint::from_bytes(&bytes, "here").unwrap();
            assert_eq!(back, checkpoint);
            assert!(
                back.state.context[4].is_sign_negative(),
                "equality does not see it"
            );
            for length in [0, 4, bytes.len() / 2, bytes.len() - 1] {
                let cut = Checkpoint::from_bytes(&bytes[..length], "here").unwrap_err();
                assert!(cut.to_string().starts_with("here: "), "{cut}");
            }
        }
    }

    #[test]
    fn a_momentum_of_another_size_is_refused() {
        let checkpoint = Checkpoint {
            state: PromptState {
                context: vec![0.5; 4],
                momentum: vec![0.5; 3],
                ..PromptState::default()
            },
            log: Vec::new(),
        };
        let bytes = checkpoint.to_bytes().unwrap();
        let error = Checkpoint::from_bytes(&bytes, "here")
            .unwrap_err()
            .to_string();
        assert!(error.contains("momentum of 3 values"), "{error}");
    }
}
