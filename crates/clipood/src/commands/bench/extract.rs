//! `clipood bench extract`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clipood_clip::model::{Device, Devices, Model};
use clipood_core::SplitMix64;
use clipood_data::Source;
use clipood_pipeline::{
    BatchSink, Clock, EVAL_VIEW, EncodeEvent, Engine, PipelineError, Unreadable, decode_files,
};
use serde_json::{Value, json};

use super::super::args::{MOST_IMAGES, count};
use super::super::images::images_below;
use super::models::{image_operations, model};
use super::{Common, agrees, exit, median, relative_difference, report, smallest_cosine};

/// Images whose features are compared with the CPU's.
const COMPARED: usize = 4;
/// Passes of each worker before the measurement, and smallest number of measured passes.
const FIRST_PASSES: usize = 2;

/// Options of `clipood bench extract`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// Images per pass, several separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "32", value_parser = count::<MOST_IMAGES>)]
    batches: Vec<usize>,
    /// Seconds of each measurement, 0.01 to 600.
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// Compute patch features as well.
    #[arg(long)]
    local: bool,
    /// Folder of image files to decode repeatedly, instead of images in memory.
    #[arg(long, value_name = "FOLDER")]
    images: Option<PathBuf>,
    /// Also write the model (open_clip folder), images (`pixels.u8`, `[n, side, side, 3]`) and their features from the
    /// CPU (`features.f32`, `[n, D]`), for other programs to compare with.
    #[arg(long, value_name = "FOLDER")]
    export: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.trim().parse() {
        Ok(number) if (0.01..=600.0).contains(&number) => Ok(number),
        _ => Err("expected a number from 0.01 to 600".to_owned()),
    }
}

/// Measures every number format and batch size.
pub fn run(args: &Args) -> Result<ExitCode> {
    let formats = args.common.devices()?;
    let model = model(&args.common.model)?;
    let files = match &args.images {
        Some(folder) => files_in(folder)?,
        None => Vec::new(),
    };
    let side = model.config.image.size;
    let few = random_bytes(COMPARED * 3 * side * side);
    let expected = model
        .image_encoder(Device::Cpu)?
        .encode_bytes(few.clone(), args.local)?;
    if let Some(folder) = &args.export {
        export(folder, &model, &few, &expected.global)?;
    }
    let mut all_done = true;
    for devices in &formats {
        all_done &= report("agreement", &args.common.model, devices, || {
            let encoder = model.image_encoder_as(devices.first(), devices.dtype)?;
            let found = encoder.encode_bytes(few.clone(), args.local)?;
            let width = model.config.embed_dim;
            let mut off = relative_difference(&found.global, &expected.global);
            let mut cosine = smallest_cosine(&found.global, &expected.global, width);
            if args.local {
                off = off.max(relative_difference(&found.local, &expected.local));
                cosine = cosine.min(smallest_cosine(&found.local, &expected.local, width));
            }
            let values = json!({ "relative_difference": off, "smallest_cosine": cosine });
            match agrees(devices.dtype, off, cosine) {
                true => Ok(values),
                false => Err(anyhow!("features differ from the CPU's: {values}")),
            }
        })?;
        for batch in &args.batches {
            all_done &= report("extract", &args.common.model, devices, || {
                let measure = Measure {
                    local: args.local,
                    seconds: args.seconds,
                    batch: (*batch).max(1),
                };
                measure.run(&model, devices, &files)
            })?;
        }
    }
    Ok(exit(all_done))
}

/// Bytes from a fixed seed.
fn random_bytes(n: usize) -> Vec<u8> {
    let mut rng = SplitMix64::keyed(1, "bench pixels", 0);
    let mut bytes = Vec::with_capacity(n + 8);
    while bytes.len() < n {
        bytes.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    bytes.truncate(n);
    bytes
}

/// The images of a folder and those below it.
fn files_in(folder: &Path) -> Result<Vec<Source>> {
    let files: Vec<Source> = images_below(folder)?
        .into_iter()
        .map(|image| Source::found(&image.path))
        .collect();
    if files.is_empty() {
        bail!("{} holds no image", folder.display());
    }
    Ok(files)
}

fn export(folder: &Path, model: &Model, pixels: &[u8], features: &[f32]) -> Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    };
    let values: Vec<u8> = features.iter().flat_map(|v| v.to_le_bytes()).collect();
    write(
        "open_clip_config.json",
        model.config.to_open_clip().as_bytes(),
    )?;
    write("open_clip_model.safetensors", &model.to_safetensors()?)?;
    write("pixels.u8", pixels)?;
    write("features.f32", &values)
}

/// What was measured.
struct Passes {
    /// Passes of each worker before the measurement.
    first: usize,
    workers: usize,
    /// When the first passes were done.
    start: Option<Instant>,
    /// When the last measured pass was done.
    end: Option<Instant>,
    /// Duration of each measured pass.
    seconds: Vec<f64>,
    images: usize,
}

impl Passes {
    fn new(workers: usize) -> Self {
        Self {
            first: FIRST_PASSES * workers,
            workers,
            start: None,
            end: None,
            seconds: Vec::new(),
            images: 0,
        }
    }

    /// Counts a pass; returns whether `least` has elapsed and every worker has done its passes.
    fn add(&mut self, images: usize, busy: Duration, least: Duration) -> bool {
        let now = Instant::now();
        if self.first > 0 {
            self.first -= 1;
            self.start = (self.first == 0).then_some(now);
            return false;
        }
        self.seconds.push(busy.as_secs_f64());
        self.images += images;
        self.end = Some(now);
        let passes = self.seconds.len();
        // Workers of equal speed finish at the same time: ending between their passes would leave some of them out.
        passes.is_multiple_of(self.workers)
            && passes >= FIRST_PASSES * self.workers
            && self.elapsed() >= least
    }

    fn elapsed(&self) -> Duration {
        match (self.start, self.end) {
            (Some(start), Some(end)) => end - start,
            _ => Duration::ZERO,
        }
    }
}

/// Views per second of the image tower on all `devices`, from memory, without decoding.
pub(in super::super) fn views_per_second(
    model: &Model,
    devices: &Devices,
    local: bool,
    seconds: f64,
) -> Result<f64> {
    let batch = match devices.batch {
        Some(batch) => batch,
        None => devices.first().batch_for(&model.config)?,
    };
    let measure = Measure {
        local,
        seconds,
        batch,
    };
    let found = measure.run(model, devices, &[])?;
    found["images_per_s"]
        .as_f64()
        .context("no image was encoded")
}

/// One measurement.
struct Measure {
    /// Compute patch features as well.
    local: bool,
    /// Shortest duration.
    seconds: f64,
    /// Images per pass.
    batch: usize,
}

impl Measure {
    fn run(&self, model: &Model, devices: &Devices, files: &[Source]) -> Result<Value> {
        let batch = self.batch;
        let side = model.config.image.size;
        let image = random_bytes(3 * side * side);
        compile(model, devices, &image.repeat(batch), self.local)?;
        let engine = Engine {
            local: self.local,
            full: batch,
            ..Engine::for_files(model, devices)
        };
        let least = Duration::from_secs_f64(self.seconds);
        let mut passes = Passes::new(devices.workers.len().max(1));
        let mut unreadable = None;
        let mut done = false;
        let side = u32::try_from(side).context("the model's images are too large")?;
        let ran = engine.run(
            &Clock::default(),
            |sink| match files.is_empty() {
                true => send_for_ever(sink, &image),
                false => decode_files(sink, files.iter().cycle(), side, || true),
            },
            |event| {
                match event {
                    EncodeEvent::Encoded { rows, busy, .. } => {
                        done |= passes.add(rows.len(), busy, least);
                    }
                    EncodeEvent::End { end, .. } => unreadable = end.into_iter().next(),
                }
                match done || unreadable.is_some() {
                    // The sources are endless.
                    true => Err(PipelineError::Interrupted),
                    false => Ok(()),
                }
            },
        );
        if let Some((file, reason)) = unreadable {
            let path = &files[file % files.len()];
            bail!("cannot read {path} ({}): {}", reason.kind, reason.message);
        }
        match ran {
            Err(PipelineError::Interrupted) if done => {}
            other => other?,
        }
        let rate = passes.images as f64 / passes.elapsed().as_secs_f64();
        let operations = image_operations(&model.config);
        Ok(json!({
            "batch": batch,
            "source": if files.is_empty() { "memory" } else { "files" },
            "local": self.local,
            "images_per_s": rate,
            "median_ms": 1e3 * median(&passes.seconds),
            "passes": passes.seconds.len(),
            "tflops": operations.map(|n| n * rate * 1e-12),
            "memory_in_use_mb": devices.first().memory_in_use()?.map(|bytes| bytes / 1_000_000),
        }))
    }
}

/// Passes that compile and tune the kernels of every GPU.
fn compile(model: &Model, devices: &Devices, pixels: &[u8], local: bool) -> Result<()> {
    for device in devices.distinct() {
        if device == Device::Cpu {
            continue;
        }
        let encoder = model.image_encoder_as(device, devices.dtype)?;
        for _ in 0..3 {
            encoder.encode_bytes(pixels.to_vec(), local)?;
        }
    }
    Ok(())
}

/// The numbers of the files of a batch that could not be read.
type Unread = Vec<(usize, Unreadable)>;

/// Sends the same image repeatedly, until there is no receiver any more.
fn send_for_ever(sink: &BatchSink<'_, Unread>, image: &[u8]) -> Result<(), PipelineError> {
    let mut unit = sink.begin(0);
    let mut number = 0;
    while unit.add((number, EVAL_VIEW), image) {
        number += 1;
    }
    Ok(())
}
