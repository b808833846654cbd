//! [`Checkpoints`]: a training that goes on after an interruption.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clipood_clip::contrastive::Tuner;
use clipood_clip::model::{Devices, Model};
use clipood_clip::safetensors_file::{ArrayFile, ArrayFileError, NamedArray, to_bytes};
use clipood_core::files::read_file;
use clipood_core::{FingerprintBuilder, shown};

use super::folder::write_synced;
use super::pairs::PairSet;
use super::train::{CurvePoint, FineTuning};
use crate::error::{PipelineError, Result};
use crate::progress::tell;

/// Most bytes of a checkpoint that is read: three times the parameters of every published CLIP are fewer.
const LONGEST: u64 = 1 << 36;
/// Key of the metadata that names the training.
const TRAINING: &str = "training";
/// Array of the loss curve, `[steps, 5]`: epoch, loss, accuracy, learning rate, logit scale.
const CURVE: &str = "curve";

/// Where a training keeps its state, one file of arrays that is replaced as a whole.
#[derive(Debug)]
pub struct Checkpoints {
    path: PathBuf,
    every: Duration,
    last: Instant,
}

impl Checkpoints {
    /// In the file `path`, written after an epoch if the last one is at least `every` ago.
    pub fn new(path: PathBuf, every: Duration) -> Self {
        Self {
            path,
            every,
            last: Instant::now(),
        }
    }

    /// Sets `tuner` to where the training called `training` has been interrupted, and returns the steps until then. Nothing
    /// happens where there is no checkpoint, or one of another training, which `note` is told about.
    ///
    /// # Errors
    /// A file that cannot be read, or is damaged.
    pub(super) fn resume(
        &self,
        training: &str,
        tuner: &mut Tuner,
        note: impl FnOnce(&str),
    ) -> Result<Vec<CurvePoint>> {
        let bytes = match read_file(&self.path, LONGEST) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(|error| self.failed("cannot read", error))?,
        };
        let damaged = |reason: String| {
            PipelineError::Inconsistent(format!(
                "{}: {reason}; remove it to start anew",
                shown(&self.path)
            ))
        };
        let problem = |error: ArrayFileError| damaged(error.to_string());
        let file = ArrayFile::read(&bytes).map_err(problem)?;
        if file.entry(TRAINING).map_err(problem)? != training {
            note(&format!(
                "note: {} is from a training with other settings, model or pairs; this one starts anew and will replace it",
                shown(&self.path)
            ));
            return Ok(Vec::new());
        }
        tuner
            .restore(&file)
            .map_err(|error| damaged(error.to_string()))?;
        let rows = file.f64(CURVE).map_err(problem)?;
        let points = rows.as_chunks::<5>().0.iter().zip(1..);
        let point = |(row, step): (&[f64; 5], usize)| CurvePoint {
            step,
            epoch: row[0] as usize,
            loss: row[1] as f32,
            accuracy: row[2],
            lr: row[3],
            scale: row[4] as f32,
        };
        Ok(points.map(point).collect())
    }

    /// Keeps the state after an epoch, if it is time. A file that cannot be written is noted: the training is worth more.
    ///
    /// # Errors
    /// The device fails.
    pub(super) fn keep(
        &mut self,
        training: &str,
        tuner: &Tuner,
        curve: &[CurvePoint],
    ) -> Result<()> {
        if self.last.elapsed() < self.every {
            return Ok(());
        }
        let rows = curve.iter().flat_map(|point| {
            let (loss, scale) = (f64::from(point.loss), f64::from(point.scale));
            [point.epoch as f64, loss, point.accuracy, point.lr, scale]
        });
        let rows: Vec<f64> = rows.collect();
        let mut arrays = tuner.arrays()?;
        arrays.push(NamedArray::f64(CURVE, vec![curve.len(), 5], &rows));
        let bytes = to_bytes(&arrays, [(TRAINING, training.to_owned())])
            .map_err(|error| PipelineError::Inconsistent(error.to_string()))?;
        // A whole file in the place of the former one, or the former one.
        let staged = self.path.with_extension("writing");
        let written = write_synced(&staged, &bytes).and_then(|()| fs::rename(&staged, &self.path));
        if let Err(error) = written {
            let _ = fs::remove_file(&staged);
            let path = shown(&self.path);
            tell(&format!("note: no checkpoint is kept: {path}: {error}"));
        }
        self.last = Instant::now();
        Ok(())
    }

    /// Removes the file; the training is finished.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn remove(self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("cannot remove", error))
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, action: &'static str, source: io::Error) -> PipelineError {
        PipelineError::File {
            path: shown(&self.path),
            action,
            source,
        }
    }
}

/// Name of a training: of everything that its steps depend on but the contents of the images.
///
/// # Errors
/// None: every value is text or bytes.
pub(super) fn name_of(
    model: &Model,
    devices: &Devices,
    set: &PairSet,
    options: &FineTuning,
) -> Result<String> {
    let mut name = FingerprintBuilder::new("finetune")
        .field("clipood", env!("CARGO_PKG_VERSION"))
        .field("model", &model.hash)
        .field("backend", devices.backend())
        .field("options", &format!("{options:?}"));
    for image in &set.images {
        name = name.bytes("image", format!("{image:?}").as_bytes());
    }
    for caption in &set.captions {
        name = name.bytes("caption", caption.as_bytes());
    }
    let pairs = set.pairs.iter().flat_map(|(image, caption)| {
        let numbers = [*image, *caption];
        numbers.map(u32::to_le_bytes)
    });
    let pairs: Vec<u8> = pairs.flatten().collect();
    Ok(name.bytes("pairs", &pairs).finish()?.to_string())
}
