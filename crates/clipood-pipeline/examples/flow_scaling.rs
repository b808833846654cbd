//! Images per second of 1, 2, 4 and 8 simulated devices that are fed from memory, and their share of linear scaling:
//! `cargo run --release -p clipood-pipeline --example flow_scaling [RATE]`.
//!
//! RATE is that of one device in images per second (400). The model is not run: what is timed is the flow around it.

use std::error::Error;
use std::time::Instant;

use clipood_clip::model::{Devices, Model};
use clipood_pipeline::{
    Clock, EVAL_VIEW, EncodeEvent, Engine, Interrupt, PipelineError, Reporting, open_model,
};

/// Images of a batch.
const BATCH: usize = 32;
/// Batches of each worker.
const BATCHES: usize = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let rate: u32 = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 400,
    };
    let model = open_model("demo")?;
    println!("workers  images/s  of linear");
    let mut single = 0.0;
    for workers in [1, 2, 4, 8] {
        let devices: Devices = vec![format!("sim:{rate}"); workers].join(",").parse()?;
        let mut rates = Vec::new();
        for _ in 0..3 {
            let seconds = encode_grey(&model, &devices, workers * BATCHES)?;
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

/// Seconds for `batches` batches of grey images, without decoding and writing.
fn encode_grey(model: &Model, devices: &Devices, batches: usize) -> Result<f64, PipelineError> {
    let engine = Engine {
        model,
        devices,
        local: false,
        full: BATCH,
        reporting: Reporting::Silent,
        interrupt: Interrupt::default(),
    };
    let grey = vec![128; 3 * model.config.image.size * model.config.image.size];
    let mut encoded = 0;
    let start = Instant::now();
    engine.run(
        &Clock::default(),
        |sink| {
            let mut unit = sink.begin(0);
            for image in 0..batches * BATCH {
                if !unit.add((image, EVAL_VIEW), &grey) {
                    return Ok(());
                }
            }
            let _ = unit.end(());
            Ok(())
        },
        |event| {
            if let EncodeEvent::Encoded { rows, .. } = event {
                encoded += rows.len();
            }
            Ok(())
        },
    )?;
    if encoded != batches * BATCH {
        let message = format!("{encoded} of {} images were encoded", batches * BATCH);
        return Err(PipelineError::Inconsistent(message));
    }
    Ok(start.elapsed().as_secs_f64())
}
