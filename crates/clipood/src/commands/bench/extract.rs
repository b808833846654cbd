//! `clipood bench extract`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clipood_clip::model::{Device, Devices, ImageEncoder, Model};
use clipood_core::SplitMix64;
use clipood_data::eval_view;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::super::arrays::read_image;
use super::models::{image_operations, model};
use super::{Common, agrees, exit, median, relative_difference, report, smallest_cosine};

/// Images whose features are compared with the CPU's.
const COMPARED: usize = 4;

/// Options of `clipood bench extract`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// Images a pass, several apart by commas.
    #[arg(long, value_delimiter = ',', default_value = "32")]
    batches: Vec<usize>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Patch features, too.
    #[arg(long)]
    local: bool,
    /// Image files to decode over and over instead of images in memory: a folder.
    #[arg(long, value_name = "FOLDER")]
    images: Option<PathBuf>,
    /// Also write the model (open_clip folder), images (`pixels.u8`, `[n, side, side, 3]`) and their features from the CPU
    /// (`features.f32`, `[n, D]`), for other programs to compare with.
    #[arg(long, value_name = "FOLDER")]
    export: Option<PathBuf>,
}

/// Measures every number format and batch.
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
                measure(args, &model, devices, (*batch).max(1), &files)
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

/// Everything in a folder that is a file, in path order.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = vec![folder.to_path_buf()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("cannot read the folder {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    if files.is_empty() {
        bail!("{} holds no file", folder.display());
    }
    files.sort();
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

/// Passes of one worker.
#[derive(Debug, Default)]
struct Passes {
    seconds: Vec<f64>,
    images: usize,
}

fn measure(
    args: &Args,
    model: &Model,
    devices: &Devices,
    batch: usize,
    files: &[PathBuf],
) -> Result<Value> {
    let side = model.config.image.size;
    let pixels = random_bytes(batch * 3 * side * side);
    let workers = devices.workers.len();
    let shared = match devices.first() {
        Device::Cpu => Some(model.image_encoder_as(Device::Cpu, devices.dtype)?),
        Device::Cuda(_) => None,
    };
    let ready = Barrier::new(workers + 1);
    let (send, decoded) = sync_channel::<Vec<u8>>(2 * workers);
    let decoded = Mutex::new(decoded);
    let stop = Mutex::new(None::<Instant>);
    let (passes, elapsed) = std::thread::scope(|scope| {
        let threads: Vec<_> = devices
            .workers
            .iter()
            .map(|device| {
                let (shared, pixels) = (shared.clone(), &pixels);
                let (ready, decoded, stop) = (&ready, &decoded, &stop);
                scope.spawn(move || -> Result<Passes> {
                    // A worker that never came to the meeting would keep the others waiting.
                    let prepared = catch_unwind(AssertUnwindSafe(|| {
                        prepare(model, devices, *device, shared, pixels, args.local)
                    }));
                    ready.wait();
                    // The time is set between the two meetings.
                    ready.wait();
                    let (encoder, pool) =
                        prepared.unwrap_or_else(|_| Err(anyhow!("{device} panicked")))?;
                    let until = locked(stop).context("no time was set")?;
                    let mut passes = Passes::default();
                    while Instant::now() < until || passes.seconds.len() < 2 {
                        let input = match files.is_empty() {
                            true => pixels.clone(),
                            false => match next(decoded) {
                                Some(input) => input,
                                None => break,
                            },
                        };
                        passes.images += input.len() / (3 * side * side);
                        let start = Instant::now();
                        let pass = || encoder.encode_bytes(input, args.local);
                        match &pool {
                            Some(pool) => pool.install(pass)?,
                            None => pass()?,
                        };
                        passes.seconds.push(start.elapsed().as_secs_f64());
                    }
                    Ok(passes)
                })
            })
            .collect();
        ready.wait();
        let start = Instant::now();
        let until = start + Duration::from_secs_f64(args.seconds.clamp(0.01, 600.0));
        if let Ok(mut stop) = stop.lock() {
            *stop = Some(until);
        }
        ready.wait();
        let failure = match files.is_empty() {
            true => None,
            false => decode_until(files, side, batch, until, &send).err(),
        };
        drop(send);
        let passes: Vec<Result<Passes>> = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a worker panicked")))
            })
            .collect();
        let elapsed = start.elapsed().as_secs_f64();
        let passes = passes.into_iter().collect::<Result<Vec<_>>>();
        match failure {
            Some(failure) => (Err(failure), elapsed),
            None => (passes, elapsed),
        }
    });
    let passes = passes?;
    let images: usize = passes.iter().map(|p| p.images).sum();
    let seconds: Vec<f64> = passes.iter().flat_map(|p| p.seconds.clone()).collect();
    let rate = images as f64 / elapsed;
    let operations = image_operations(&model.config);
    Ok(json!({
        "batch": batch,
        "source": if files.is_empty() { "memory" } else { "files" },
        "local": args.local,
        "images_per_s": rate,
        "median_ms": 1e3 * median(&seconds),
        "passes": seconds.len(),
        "tflops": operations.map(|n| n * rate * 1e-12),
        "memory_in_use_mb": devices.first().memory_in_use()?.map(|bytes| bytes / 1_000_000),
    }))
}

/// The image tower of one worker, after passes that compile and tune its kernels.
fn prepare(
    model: &Model,
    devices: &Devices,
    device: Device,
    shared: Option<ImageEncoder>,
    pixels: &[u8],
    local: bool,
) -> Result<(ImageEncoder, Option<rayon::ThreadPool>)> {
    if let Some(encoder) = shared {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
        return Ok((encoder, Some(pool)));
    }
    let encoder = model.image_encoder_as(device, devices.dtype)?;
    for _ in 0..3 {
        encoder.encode_bytes(pixels.to_vec(), local)?;
    }
    Ok((encoder, None))
}

/// Decodes files on all cores, over and over, until the time is up.
fn decode_until(
    files: &[PathBuf],
    side: usize,
    batch: usize,
    until: Instant,
    send: &SyncSender<Vec<u8>>,
) -> Result<()> {
    let side = u32::try_from(side).context("the model's images are too large")?;
    let mut endless = files.iter().cycle();
    while Instant::now() < until {
        let chunk: Vec<&PathBuf> = endless.by_ref().take(batch).collect();
        let views = chunk
            .par_iter()
            .map(|path| Ok(eval_view(&read_image(path)?, side)))
            .collect::<Result<Vec<_>>>()?;
        let mut pixels = views.concat();
        // Not a plain `send`, which would wait for ever after workers that have failed.
        while let Err(error) = send.try_send(pixels) {
            match error {
                TrySendError::Full(back) if Instant::now() < until => pixels = back,
                _ => return Ok(()),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

fn next(decoded: &Mutex<Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    let decoded = decoded.lock().unwrap_or_else(PoisonError::into_inner);
    decoded.recv().ok()
}

fn locked(stop: &Mutex<Option<Instant>>) -> Option<Instant> {
    *stop.lock().unwrap_or_else(PoisonError::into_inner)
}
