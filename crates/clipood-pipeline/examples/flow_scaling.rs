//! Images a second of 1, 2, 4 and 8 simulated devices that are fed from memory, and their share of linear scaling:
//! `cargo run --release -p clipood-pipeline --example flow_scaling [RATE]`, from the root of the repository.
//!
//! RATE is that of one device in images a second (400). The model is not run: what is timed is the flow around it.

use std::error::Error;

use clipood_core::Recipe;
use clipood_pipeline::{Interrupt, Job, JobOptions, Reporting, encode_from_memory};

/// Images of a batch.
const BATCH: usize = 32;
/// Batches of each worker.
const BATCHES: usize = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let rate: u32 = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 400,
    };
    let folder = tempfile::tempdir()?;
    let inside = |name: &str| folder.path().join(name).display().to_string();
    let text = std::fs::read_to_string("pipelines/demo.toml")?;
    let mut job = Job::open(JobOptions {
        recipe: Recipe::parse(&text, "pipelines/demo.toml")?,
        manifests: "manifests/datasets".into(),
        data: "data".into(),
        store: inside("store"),
        run: Some(inside("run")),
        device: format!("sim:{rate}").parse()?,
        reporting: Reporting::Silent,
        interrupt: Interrupt::default(),
    })?;
    println!("workers  images/s  of linear");
    let mut single = 0.0;
    for workers in [1, 2, 4, 8] {
        job.worker.devices = vec![format!("sim:{rate}"); workers].join(",").parse()?;
        let mut rates = Vec::new();
        for _ in 0..3 {
            let seconds = encode_from_memory(&job, workers * BATCHES, BATCH)?;
            rates.push((workers * BATCHES * BATCH) as f64 / seconds);
        }
        rates.sort_by(f64::total_cmp);
        let median = rates[1];
        if workers == 1 {
            single = median;
        }
        let share = median / (single * workers as f64);
        println!("{workers:>7} {median:>9.1} {:>9.1}%", 100.0 * share);
    }
    Ok(())
}
