//! From image files to classes and scores, in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;

use clipood_clip::config::ClipConfig;
use clipood_clip::model::{Devices, ImageEncoder, Model};
use clipood_data::{DecodeLimits, decode_safely, eval_view, normalise};
use clipood_ood::{DetectorSpec, FitInputs, FittedDetector, LocalFeatures, Matrix, ScoreInputs};
use crossbeam_channel::{Receiver, Sender, bounded};
use rayon::prelude::*;


use crate::error::{PipelineError, Result};
use crate::extract::panic_message;
use crate::features::normalise_rows;

/// Images that go through the image tower at once.
const BATCH: usize = 32;
/// Factor on cosines under the softmax, as in every score table of a run.
const LOGIT_SCALE: f64 = 100.0;

/// The text side with a detector fitted on it.
#[derive(Debug, Clone)]
pub struct Classifier {
    /// Normalised text features, `[classes, D]`.
    text: Vec<f32>,
    dim: usize,
    top: usize,
    detectors: [FittedDetector; 1],
    local: bool,
}

impl Classifier {
    /// A classifier from normalised text features `[classes, dim]` that names the `top` likeliest classes (all of them
    /// if there are fewer) and scores images with a detector that is fitted on texts alone.
    ///
    /// # Errors
    /// No class, features that are not finite, a detector that needs more than texts.
    pub fn new(text: Vec<f32>, dim: usize, top: usize, detector: &DetectorSpec) -> Result<Self> {
        let classes = text.len() / dim.max(1);
        let fitted = {
            let text = Matrix::new("text features", &text, classes, dim)?;
            clipood_ood::fit(
                detector,
                &FitInputs {
                    text,
                    negative_text: None,
                    train: None,
                    train_labels: None,
                },
            )?
        };
        Ok(Self {
            text,
            dim,
            top: top.min(classes),
            detectors: [fitted],
            local: detector.needs().patches,
        })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.text.len() / self.dim
    }

    /// Classes named an image.
    pub fn top(&self) -> usize {
        self.top
    }

    /// Encodes and scores images whose normalised pixels stand one after the other.
    fn classify(&self, encoder: &ImageEncoder, pixels: Vec<f32>) -> Result<Vec<Classified>> {
        let encoded = encoder.encode(pixels, self.local)?;
        let rows = encoded.global.len() / self.dim;
        let text = Matrix::new("text features", &self.text, self.classes(), self.dim)?;
        let local = match self.local {
            true => Some(LocalFeatures::new(
                "patch features",
                &encoded.local,
                rows,
                encoded.local.len() / (rows * self.dim),
                self.dim,
            )?),
            false => None,
        };
        let inputs = ScoreInputs {
            global: Matrix::new("image features", &encoded.global, rows, self.dim)?,
            local,
        };
        let scores = clipood_ood::score_all(&self.detectors, &text, &inputs)?;
        let mut unit = encoded.global.clone();
        normalise_rows(&mut unit, self.dim);
        let images = unit.chunks_exact(self.dim).zip(&scores.columns[0]);
        Ok(images
            .map(|(image, score)| Classified {
                top: self.likeliest(image),
                score: *score,
            })
            .collect())
    }

    /// The likeliest classes of a unit feature with their probabilities, the first of equals first.
    fn likeliest(&self, image: &[f32]) -> Vec<(u32, f32)> {
        let texts = self.text.chunks_exact(self.dim);
        let mut cosines: Vec<(u32, f64)> = (0u32..)
            .zip(texts)
            .map(|(class, text)| {
                let products = image.iter().zip(text).map(|(x, y)| x * y);
                (class, f64::from(products.sum::<f32>()))
            })
            .collect();
        cosines.sort_by(|a, b| b.1.total_cmp(&a.1));
        let largest = cosines.first().map_or(0.0, |first| first.1);
        let weight = |cosine: f64| (LOGIT_SCALE * (cosine - largest)).exp();
        let sum: f64 = cosines.iter().map(|(_, cosine)| weight(*cosine)).sum();
        cosines.truncate(self.top);
        let likeliest = cosines.into_iter();
        likeliest
            .map(|(class, cosine)| (class, (weight(cosine) / sum) as f32))
            .collect()
    }
}

/// An image that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Classified {
    /// The likeliest classes with `softmax(100 c)`, likeliest first.
    pub top: Vec<(u32, f32)>,
    /// The detector's score: higher is more in-distribution.
    pub score: f32,
}

/// Why an image could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// One word of few, as in the quarantine table.
    pub kind: String,
    /// The error.
    pub message: String,
}

/// What became of a file.
pub type Outcome = std::result::Result<Classified, Unreadable>;

/// Images on their way to a worker.
struct Batch {
    sequence: usize,
    /// By file, `None` for those whose pixels stand in `pixels`.
    unreadable: Vec<Option<Unreadable>>,
    pixels: Vec<f32>,
}

/// Reads every file and hands its outcome to `each`, in the order of `files`. An image that cannot be read stops nothing.
///
/// # Errors
/// The first error of `each`; an encoder that fails; a panic of a worker.
pub fn classify_files(
    model: &Model,
    devices: &Devices,
    files: &[PathBuf],
    classifier: &Classifier,
    each: impl FnMut(usize, Outcome) -> Result<()>,
) -> Result<()> {
    let mut encoders = BTreeMap::new();
    for device in devices.distinct() {
        encoders.insert(device, model.image_encoder_as(device, devices.dtype)?);
    }
    let workers = devices.workers.len().max(1);
    let (send_batch, batches) = bounded::<Batch>(workers);
    let (send_done, done) = bounded::<(usize, Vec<Outcome>)>(2 * workers);
    std::thread::scope(|scope| {
        let decoder = scope.spawn(move || read_batches(&model.config, files, &send_batch));
        let threads: Vec<_> = devices
            .workers
            .iter()
            .map(|device| {
                let (encoder, batches, send_done) =
                    (encoders[device].clone(), batches.clone(), send_done.clone());
                scope.spawn(move || classify_batches(&encoder, classifier, &batches, &send_done))
            })
            .collect();
        // Only the threads hold senders and receivers now, so that the end of one step ends the next.
        drop((send_done, batches));
        let handed = hand_over(done, each);
        let read = join("decode", decoder);
        let classified: Result<Vec<()>> = threads.into_iter().map(|d| join("encode", d)).collect();
        // The first cause counts: an error of the receiver ends the others.
        handed.and(classified.map(|_| ())).and(read)
    })
}

fn join(stage: &'static str, handle: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    handle.join().unwrap_or_else(|panic| {
        Err(PipelineError::Panicked {
            stage,
            message: panic_message(&*panic),
        })
    })
}

/// Decodes images in parallel and sends them in batches.
fn read_batches(config: &ClipConfig, files: &[PathBuf], batches: &Sender<Batch>) -> Result<()> {
    for (sequence, chunk) in files.chunks(BATCH).enumerate() {
        let decoded: Vec<_> = chunk
            .par_iter()
            .map(|path| pixels_of(path, config))
            .collect();
        let mut batch = Batch {
            sequence,
            unreadable: Vec::with_capacity(chunk.len()),
            pixels: Vec::new(),
        };
        for image in decoded {
            match image {
                Ok(pixels) => {
                    batch.pixels.extend(pixels);
                    batch.unreadable.push(None);
                }
                Err(reason) => batch.unreadable.push(Some(reason)),
            }
        }
        // Nobody listens any more: the receiver's error is the one to show.
        if batches.send(batch).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Normalised pixels of the evaluation view. Never panics: a panic of a decoder becomes the image's reason.
fn pixels_of(path: &Path, config: &ClipConfig) -> std::result::Result<Vec<f32>, Unreadable> {
    let unreadable = |kind: &str, message: String| Unreadable {
        kind: kind.to_string(),
        message,
    };
    let bytes = std::fs::read(path).map_err(|e| unreadable("unreadable", e.to_string()))?;
    decode_safely(&bytes, &DecodeLimits::default(), |image| {
        let view = eval_view(image, config.image.size as u32);
        normalise(&view, config.mean, config.std)
    })
    .map_err(|error| unreadable(error.kind(), error.to_string()))
}

/// One worker: on the CPU a thread with its own share of the cores.
fn classify_batches(
    encoder: &ImageEncoder,
    classifier: &Classifier,
    batches: &Receiver<Batch>,
    done: &Sender<(usize, Vec<Outcome>)>,
) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .map_err(|e| PipelineError::Usage(format!("cannot start a worker thread: {e}")))?;
    for batch in batches {
        let classified = match batch.pixels.is_empty() {
            true => Vec::new(),
            false => pool.install(|| classifier.classify(encoder, batch.pixels))?,
        };
        let mut classified = classified.into_iter();
        let outcomes = batch.unreadable.into_iter().map(|reason| match reason {
            Some(reason) => Err(reason),
            None => classified.next().ok_or_else(|| Unreadable {
                kind: "encoder".to_string(),
                message: "the encoder returned fewer images than it was given".to_string(),
            }),
        });
        if done.send((batch.sequence, outcomes.collect())).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Puts the batches back into order.
fn hand_over(
    done: Receiver<(usize, Vec<Outcome>)>,
    mut each: impl FnMut(usize, Outcome) -> Result<()>,
) -> Result<()> {
    let mut waiting = BTreeMap::new();
    let (mut next, mut file) = (0, 0);
    for (sequence, outcomes) in done {
        waiting.insert(sequence, outcomes);
        while let Some(outcomes) = waiting.remove(&next) {
            next += 1;
            for outcome in outcomes {
                each(file, outcome)?;
                file += 1;
            }
        }
    }
    Ok(())
}
