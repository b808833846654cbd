//! Times the image tower: `cargo run --release -p clipood-clip --example encode_speed MODEL PIXELS FEATURES [--bf16] [--json]`.
//!
//! MODEL is an open_clip folder, PIXELS a file of normalised images (little-endian float32, `[batch, 3, size, size]`);
//! FEATURES is written once. Then every line on standard input asks for one run over the batch, whose seconds are
//! printed, so that a script can let several programs take turns (`make bench-peers`). At the end of the input the
//! median and, on Linux, the peak memory of the process are printed. With `--bf16` products are in bf16, where CPU and
//! model allow it.

use std::error::Error;
use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

use clipood_clip::checkpoint::OpenOptions;
use clipood_clip::model::{Device, Dtype, Model};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut flag = |name: &str| {
        let given = arguments.len();
        arguments.retain(|argument| argument != name);
        arguments.len() < given
    };
    let (json, bf16) = (flag("--json"), flag("--bf16"));
    let [model, pixels, features] = arguments.as_slice() else {
        return Err("usage: encode_speed MODEL PIXELS FEATURES [--bf16] [--json]".into());
    };
    let model = Model::open(Path::new(model), &OpenOptions::default())?;
    let dtype = if bf16 { Dtype::Bf16 } else { Dtype::F32 };
    let encoder = model.image_encoder_as(Device::Cpu, dtype)?;
    let pixels: Vec<f32> = std::fs::read(pixels)?
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    let encoded = encoder.encode(pixels.clone(), false)?;
    let bytes: Vec<u8> = encoded
        .global
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    std::fs::write(features, bytes)?;
    let images = encoded.global.len() / model.config.embed_dim;
    println!("ready");
    let mut seconds = Vec::new();
    for line in std::io::stdin().lock().lines() {
        line?;
        let pixels = pixels.clone();
        let start = Instant::now();
        encoder.encode(pixels, false)?;
        seconds.push(start.elapsed().as_secs_f64());
        println!("{}", seconds[seconds.len() - 1]);
    }
    seconds.sort_by(f64::total_cmp);
    let Some(median) = seconds.get(seconds.len() / 2) else {
        return Ok(());
    };
    let (rounds, speed) = (seconds.len(), images as f64 / median);
    let memory = peak_mebibytes();
    if json {
        let line = serde_json::json!({
            "batch": images,
            "dtype": dtype.name(),
            "rounds": rounds,
            "images_per_second": speed,
            "peak_memory_mib": memory,
        });
        println!("{line}");
    } else {
        println!("median of {rounds}: {speed:.2} images/s");
        if let Some(memory) = memory {
            println!("peak memory: {memory} MiB");
        }
    }
    Ok(())
}

/// The most memory this process has held; `None` where `/proc` does not say.
fn peak_mebibytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes / 1024)
}
