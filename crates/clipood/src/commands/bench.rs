//! `clipood bench`: how fast this machine encodes images and trains prompts, and whether a GPU computes what the CPU
//! does.
//!
//! Every measurement is one line with a JSON object on standard output, so that scripts can compare several programs.

pub(super) mod extract;
mod models;
pub(super) mod prompt;
mod warmup;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clipood_clip::model::{Devices, Dtype};
use clipood_pipeline::{PipelineError, panic_message};
use serde_json::{Value, json};

use super::args::DevicesArg;

/// Options of `clipood bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Images per second of the image tower, from memory or decoded from files.
    Extract(extract::Args),
    /// Seconds of a prompt step.
    Prompt(prompt::Args),
    /// Compile and tune the kernels that a run will need, so that they are found in the cache.
    Warmup(warmup::Args),
}

/// Options of all measurements.
#[derive(clap::Args)]
struct Common {
    /// Model: ViT-B-32, ViT-B-16, ViT-L-14 or RN50 with random parameters, `demo`, or an open_clip folder.
    #[arg(long, default_value = "ViT-B-16")]
    model: String,
    #[command(flatten)]
    devices: DevicesArg,
    /// Number formats, separated by commas: f32, tf32, f16, bf16; on the CPU those that `clipood run` accepts.
    #[arg(long, value_delimiter = ',', default_value = "f32")]
    dtypes: Vec<String>,
}

impl Common {
    /// The devices in each number format.
    fn devices(&self) -> Result<Vec<Devices>, PipelineError> {
        self.dtypes
            .iter()
            .map(|dtype| self.devices.open(dtype))
            .collect()
    }
}

/// Runs the requested measurement.
pub fn run(args: Args) -> Result<ExitCode> {
    match args.what {
        What::Extract(args) => extract::run(&args),
        What::Prompt(args) => prompt::run(&args),
        What::Warmup(args) => warmup::run(&args),
    }
}

/// Prints the result of `measure`, with the model and device that were measured. A failure is printed too and makes the
/// result `false`; later measurements continue.
fn report(
    what: &str,
    model: &str,
    devices: &Devices,
    measure: impl FnOnce() -> Result<Value>,
) -> Result<bool> {
    let found = catch_unwind(AssertUnwindSafe(measure))
        .unwrap_or_else(|panic| Err(anyhow!("panic: {}", panic_message(&*panic))));
    let device = devices.first();
    let mut line = json!({
        "bench": what,
        "model": model,
        "device": device.to_string(),
        "workers": devices.workers.len(),
        "hardware": device.hardware()?,
        "dtype": devices.dtype.name(),
    });
    let done = found.is_ok();
    let fields = found.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
    if let (Some(line), Value::Object(fields)) = (line.as_object_mut(), fields) {
        line.extend(fields);
    }
    super::print(&format!("{line}\n"))?;
    Ok(done)
}

/// 0, or 1 if a measurement failed.
fn exit(all_done: bool) -> ExitCode {
    match all_done {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The median, for an even number of values the larger middle one; 0 without values.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// Largest difference relative to the largest absolute value of `expected`.
fn relative_difference(found: &[f32], expected: &[f32]) -> f64 {
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    let pairs = found.iter().zip(expected);
    // NaN must not pass as a small difference.
    let off = pairs.fold(0f32, |m, (a, b)| match (a - b).abs() {
        d if d.is_nan() => f32::INFINITY,
        d => m.max(d),
    });
    f64::from(off) / f64::from(largest.max(f32::MIN_POSITIVE))
}

/// Smallest cosine between corresponding rows of `width` values.
fn smallest_cosine(found: &[f32], expected: &[f32], width: usize) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    let rows = found
        .chunks_exact(width)
        .zip(expected.chunks_exact(width))
        .map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt());
    rows.fold(1.0, |least, c| match c.is_nan() {
        true => f64::NEG_INFINITY,
        false => c.min(least),
    })
}

/// Limits of the difference from the CPU in f32: relative for f32, cosines for half precision.
fn agrees(dtype: Dtype, difference: f64, cosine: f64) -> bool {
    match dtype {
        Dtype::F32 => difference < 1e-4,
        Dtype::Tf32 => difference < 3e-3,
        Dtype::F16 | Dtype::Bf16 => cosine > 0.999,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_never_agrees() {
        let good = [1.0f32, 2.0, 3.0, 4.0];
        let bad = [1.0f32, f32::NAN, 3.0, 4.0];
        assert_eq!(relative_difference(&good, &good), 0.0);
        assert!((smallest_cosine(&good, &good, 2) - 1.0).abs() < 1e-12);
        let (difference, cosine) = (
            relative_difference(&bad, &good),
            smallest_cosine(&bad, &good, 2),
        );
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            assert!(!agrees(dtype, difference, cosine));
            assert!(agrees(dtype, 0.0, 1.0));
        }
        assert!(relative_difference(&[1.0, 2.004], &[1.0, 2.0]) > 1e-3);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[]), 0.0);
    }
}
