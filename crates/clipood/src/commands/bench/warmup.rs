//! `clipood bench warmup`.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clipood_clip::device::kernel_cache;
use clipood_clip::model::Model;
use serde_json::json;

use super::super::args::{MOST_IMAGES, count};
use super::models::model;
use super::{Common, exit, report};

/// Options of `clipood bench warmup`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// Images per pass, several separated by commas (default: the batch size of a run).
    #[arg(long, value_delimiter = ',', value_parser = count::<MOST_IMAGES>)]
    batches: Option<Vec<usize>>,
    /// Compute patch features as well.
    #[arg(long)]
    local: bool,
}

/// One pass of each batch size in each number format on every device.
pub fn run(args: &Args) -> Result<ExitCode> {
    let formats = args.common.devices()?;
    let model = model(&args.common.model)?;
    let mut all_done = true;
    for devices in &formats {
        all_done &= report("warmup", &args.common.model, devices, || {
            let start = Instant::now();
            let batches = match &args.batches {
                Some(batches) => batches.clone(),
                None => vec![devices.first().batch_for(&model.config)?],
            };
            for device in devices.distinct() {
                let encoder = model.image_encoder_as(device, devices.dtype)?;
                for batch in &batches {
                    encoder.encode_bytes(black(&model, (*batch).max(1)), args.local)?;
                }
            }
            Ok(json!({
                "batches": batches,
                "seconds": start.elapsed().as_secs_f64(),
                "cache": kernel_cache().map(|folder| folder.display().to_string()),
            }))
        })?;
    }
    Ok(exit(all_done))
}

/// Black images.
fn black(model: &Model, images: usize) -> Vec<u8> {
    let side = model.config.image.size;
    vec![0; images * 3 * side * side]
}
