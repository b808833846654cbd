//! Device workers: one thread each, all pulling from one bounded queue.
//!
//! A GPU that fails gives its batch back and takes no more work; the others go on, and only when none is left the run
//! ends. A failure on the CPU ends the run at once: it would come back.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clipood_clip::model::{Device, EncodedImages, ImageEncoder, LaunchedImages};
use clipood_data::normalise;
use crossbeam_channel::{Receiver, Sender};

use super::flow::News;
use super::simulated::pretend;
use crate::devices::{drops_out, gives_up, guarded, on_devices};
use crate::error::{PipelineError, Result};
use crate::job::Job;

/// What panics of workers are reported under.
const STAGE: &str = "encode";

/// Views of one batch, all of one unit.
pub(super) struct Batch {
    pub unit: usize,
    pub sequence: usize,
    /// Image of the unit, and view.
    pub rows: Vec<(usize, i16)>,
    /// `[rows, side, side, 3]`.
    pub pixels: Vec<u8>,
}

/// Batches to encode: those that come from decoding, and those that a failed device gave back.
struct Queue {
    decoded: Receiver<Batch>,
    returned: Mutex<Vec<Batch>>,
}

/// Where the time of an extraction went, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Decoding waited for room in the queue.
    pub decoding_waited: AtomicU64,
    /// Workers waited for a batch, all together.
    pub workers_waited: AtomicU64,
    /// Batches that decoding has handed over, or waits to, and that no worker has taken.
    pub queued: AtomicUsize,
}

impl Clock {
    /// Which step holds the others back; nothing for an extraction too short to tell.
    pub fn line(&self, elapsed: Duration, workers: usize) -> Option<String> {
        let seconds = elapsed.as_secs_f64();
        if seconds < 2.0 {
            return None;
        }
        let share = |waited: &AtomicU64| waited.load(Ordering::Relaxed) as f64 * 1e-9 / seconds;
        let decoding = share(&self.decoding_waited);
        let devices = share(&self.workers_waited) / workers.max(1) as f64;
        let binds = match devices > decoding {
            true => "decoding",
            false => "the image tower",
        };
        Some(format!(
            "{binds} sets the pace: decoding waited {:.0}% of the time, devices {:.0}%",
            100.0 * decoding,
            100.0 * devices
        ))
    }
}

/// Runs `wait` and adds its time to `total`.
pub(super) fn timed<T>(total: &AtomicU64, wait: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = wait();
    total.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
    value
}

impl Queue {
    fn returned(&self) -> MutexGuard<'_, Vec<Batch>> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, clock: &Clock) -> Option<Batch> {
        if let Some(batch) = self.returned().pop() {
            return Some(batch);
        }
        match timed(&clock.workers_waited, || self.decoded.recv()) {
            Ok(batch) => {
                clock.queued.fetch_sub(1, Ordering::Relaxed);
                Some(batch)
            }
            Err(_) => self.returned().pop(),
        }
    }

    /// The next batch, if there is one without waiting.
    fn ready(&self, clock: &Clock) -> Option<Batch> {
        if let Some(batch) = self.returned().pop() {
            return Some(batch);
        }
        let batch = self.decoded.try_recv().ok()?;
        clock.queued.fetch_sub(1, Ordering::Relaxed);
        Some(batch)
    }
}

/// Encodes every batch of `decoded` on the job's workers; `full` is the number of views of a full batch.
pub(super) fn encode_batches(
    job: &Job,
    local: bool,
    full: usize,
    decoded: Receiver<Batch>,
    news: &Sender<News>,
    clock: &Clock,
) -> Result<()> {
    let queue = Queue {
        decoded,
        returned: Mutex::default(),
    };
    // The processor's workers share one copy of the parameters.
    let shared = match job.worker.devices.workers.contains(&Device::Cpu) {
        true => Some(job.experiment.model.image_encoder_as(Device::Cpu, job.worker.devices.dtype)?),
        false => None,
    };
    let left_over = || !queue.returned().is_empty();
    on_devices(STAGE, job.worker.devices.workers.clone(), left_over, |device| {
        let worker = Worker::new(job, device, shared.clone(), full)?;
        worker.run(local, &queue, news, clock)
    })
}

/// The image tower on one device, in its own thread.
struct Worker<'a> {
    job: &'a Job,
    device: Device,
    encoder: ImageEncoder,
    full: usize,
    /// On the CPU a share of one core, which beats splitting every product over all cores.
    pool: Option<rayon::ThreadPool>,
    /// When a simulated device was done with its last batch.
    busy: Cell<Option<Instant>>,
}

impl<'a> Worker<'a> {
    fn new(
        job: &'a Job,
        device: Device,
        shared: Option<ImageEncoder>,
        full: usize,
    ) -> Result<Self> {
        let (encoder, pool) = match (device, shared) {
            (Device::Cpu, Some(encoder)) => {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(1)
                    .build()
                    .map_err(|e| {
                        PipelineError::Usage(format!("cannot start a worker thread: {e}"))
                    })?;
                (encoder, Some(pool))
            }
            _ => {
                let dtype = job.worker.devices.dtype;
                let made = guarded(STAGE, || Ok(job.experiment.model.image_encoder_as(device, dtype)?));
                (
                    made.inspect_err(|error| drops_out(job, device, error))?,
                    None,
                )
            }
        };
        Ok(Self {
            job,
            device,
            encoder,
            full,
            pool,
            busy: Cell::new(None),
        })
    }

    /// Encodes what the queue has. The next batch, if it is there, is uploaded before the last one is waited for.
    fn run(&self, local: bool, queue: &Queue, news: &Sender<News>, clock: &Clock) -> Result<()> {
        let mut in_hand: Option<(Batch, LaunchedImages)> = None;
        loop {
            self.job.worker.interrupt.check()?;
            let next = match in_hand {
                Some(_) => queue.ready(clock),
                None => queue.next(clock),
            };
            let mut launched = None;
            if let Some(batch) = next {
                match guarded(STAGE, || self.launch(&batch, local)) {
                    Ok(images) => launched = Some((batch, images)),
                    Err(error) => {
                        let open = in_hand.into_iter().map(|(batch, _)| batch);
                        return Err(self.give_back(queue, open.chain([batch]), error));
                    }
                }
            } else if in_hand.is_none() {
                return Ok(());
            }
            let Some((batch, images)) = std::mem::replace(&mut in_hand, launched) else {
                continue;
            };
            let features = match guarded(STAGE, || self.wait(images, batch.rows.len())) {
                Ok(features) => features,
                Err(error) => {
                    let open = in_hand.into_iter().map(|(batch, _)| batch);
                    return Err(self.give_back(queue, open.chain([batch]), error));
                }
            };
            let encoded = News::Encoded {
                unit: batch.unit,
                sequence: batch.sequence,
                rows: batch.rows,
                global: features.global,
                local: features.local,
            };
            if news.send(encoded).is_err() {
                return Ok(());
            }
        }
    }

    /// Leaves the batches in hand to the other devices.
    fn give_back(
        &self,
        queue: &Queue,
        batches: impl Iterator<Item = Batch>,
        error: PipelineError,
    ) -> PipelineError {
        queue.returned().extend(batches);
        if !gives_up(self.device, &error) {
            drops_out(self.job, self.device, &error);
        }
        error
    }

    fn launch(&self, batch: &Batch, local: bool) -> Result<LaunchedImages> {
        let span = tracing::trace_span!("encode", device = %self.device, views = batch.rows.len());
        let _span = span.entered();
        if let Some(rate) = self.job.worker.devices.simulated {
            return Ok(pretend(&self.job.experiment.model.config, batch, local, rate, &self.busy).into());
        }
        let config = &self.job.experiment.model.config;
        let image = 3 * config.image.size * config.image.size;
        if let Some(pool) = &self.pool {
            let pixels: Vec<f32> = batch
                .pixels
                .chunks_exact(image)
                .flat_map(|pixels| normalise(pixels, config.mean, config.std))
                .collect();
            let encoder = &self.encoder;
            return Ok(pool.install(|| encoder.encode(pixels, local))?.into());
        }
        // A short batch is filled up to a power of two: kernels are tuned for each size that comes along.
        let rows = batch.rows.len();
        let padded = rows.next_power_of_two().min(self.full.max(rows));
        let mut pixels = Vec::with_capacity(padded * image);
        pixels.extend_from_slice(&batch.pixels);
        pixels.resize(padded * image, 0);
        Ok(self.encoder.launch_bytes(pixels, local)?)
    }

    /// The features of a launched batch of `rows` views, without those that filled it up.
    fn wait(&self, images: LaunchedImages, rows: usize) -> Result<EncodedImages> {
        let config = &self.job.experiment.model.config;
        let mut features = images.wait()?;
        features.global.truncate(rows * config.embed_dim);
        let patches = rows * config.image.positions() * config.embed_dim;
        features.local.truncate(patches);
        Ok(features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_that_others_wait_for_sets_the_pace() {
        let clock = Clock::default();
        clock.workers_waited.store(8_000_000_000, Ordering::Relaxed);
        clock
            .decoding_waited
            .store(1_000_000_000, Ordering::Relaxed);
        let ten = Duration::from_secs(10);
        // Two workers waited 4 s each.
        assert_eq!(
            clock.line(ten, 2).as_deref(),
            Some("decoding sets the pace: decoding waited 10% of the time, devices 40%")
        );
        clock
            .decoding_waited
            .store(6_000_000_000, Ordering::Relaxed);
        let line = clock.line(ten, 2).unwrap_or_default();
        assert!(line.starts_with("the image tower"), "{line}");
        assert_eq!(clock.line(Duration::from_secs(1), 2), None);
    }

    #[test]
    fn batches_that_come_back_are_taken_again() {
        let (send, decoded) = crossbeam_channel::bounded(2);
        let queue = Queue {
            decoded,
            returned: Mutex::default(),
        };
        let batch = |sequence| Batch {
            unit: 0,
            sequence,
            rows: Vec::new(),
            pixels: Vec::new(),
        };
        let clock = Clock::default();
        assert!(send.send(batch(1)).is_ok());
        clock.queued.store(1, Ordering::Relaxed);
        queue.returned().push(batch(2));
        drop(send);
        let order: Vec<usize> = std::iter::from_fn(|| queue.next(&clock))
            .map(|batch| batch.sequence)
            .collect();
        assert_eq!(order, [2, 1]);
        assert_eq!(clock.queued.into_inner(), 0);
    }

    #[test]
    fn a_panic_is_an_error() {
        let made: Result<()> = guarded(STAGE, || panic!("out of memory"));
        assert!(made.is_err_and(|e| e.to_string().contains("out of memory")));
    }
}
