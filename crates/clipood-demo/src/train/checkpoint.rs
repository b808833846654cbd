//! Checkpoints of a training run: model, optimizer and progress, replaced together by renaming a folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::record::{BinFileRecorder, FullPrecisionSettings, Record, Recorder};
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

/// One line of the loss curve.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CurvePoint {
    /// Optimizer steps taken.
    pub step: usize,
    /// Mean loss since the previous line.
    pub loss: f32,
    /// Fraction of images whose nearest caption in the batch is correct, mean since the previous line.
    pub accuracy: f32,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Logit scale (the factor on cosines) after the last step.
    pub scale: f32,
}

/// The progress of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Optimizer steps taken.
    pub step: usize,
    /// The options that determine the result; a checkpoint of other options is rejected.
    pub options: String,
    /// The loss curve so far.
    pub curve: Vec<CurvePoint>,
}

/// The folder with the last checkpoint of a run.
#[derive(Debug, Clone)]
pub(super) struct CheckpointFolder {
    folder: PathBuf,
}

type Recorded = BinFileRecorder<FullPrecisionSettings>;

impl CheckpointFolder {
    /// Checkpoints below `work`.
    pub fn new(work: &Path) -> Self {
        Self {
            folder: work.join("checkpoint"),
        }
    }

    /// The progress of the last checkpoint, if there is one.
    ///
    /// # Errors
    /// The file cannot be read or parsed.
    pub fn progress(&self) -> Result<Option<Progress>> {
        let path = self.folder.join("progress.json");
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(
                serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?,
            )),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| path.display().to_string()),
        }
    }

    /// Reads one record of the last checkpoint.
    ///
    /// # Errors
    /// The file cannot be read or does not hold this record.
    pub fn load<B: Backend, R: Record<B>>(&self, name: &str, device: &B::Device) -> Result<R> {
        let path = self.folder.join(name);
        Recorded::new()
            .load(path.clone(), device)
            .with_context(|| path.display().to_string())
    }

    /// Replaces the last checkpoint. A crash before the renames keeps the previous one; between them it is left under `.old`.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save<B: Backend, M: Record<B>, O: Record<B>>(
        &self,
        model: M,
        optimizer: O,
        progress: &Progress,
    ) -> Result<()> {
        let fresh = self.folder.with_extension("new");
        let old = self.folder.with_extension("old");
        let _ = std::fs::remove_dir_all(&fresh);
        std::fs::create_dir_all(&fresh).with_context(|| fresh.display().to_string())?;
        Recorded::new().record(model, fresh.join("model"))?;
        Recorded::new().record(optimizer, fresh.join("optimizer"))?;
        std::fs::write(fresh.join("progress.json"), serde_json::to_vec(progress)?)?;
        let _ = std::fs::remove_dir_all(&old);
        if self.folder.exists() {
            std::fs::rename(&self.folder, &old)?;
        }
        std::fs::rename(&fresh, &self.folder).with_context(|| self.folder.display().to_string())?;
        let _ = std::fs::remove_dir_all(&old);
        Ok(())
    }
}
