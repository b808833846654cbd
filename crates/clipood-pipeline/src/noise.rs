//! Noise images, which show nothing: what a stream knows of out-of-distribution images before its first one.
//!
//! As in OpenOOD-VLM: three images each of standard normal noise, uniform noise, Poisson noise of mean 5, noise of the gamma
//! distribution of shape 2 and scale 1, and salt and pepper. Those that are not between 0 and 1 are moved and stretched to
//! that range, over the three images together. Here every image is drawn from a fixed seed, and its values are rounded to
//! bytes like those of a picture.

use clipood_core::SplitMix64;

use crate::encode::{Clock, EVAL_VIEW, EncodeEvent, Engine};
use crate::error::Result;
use crate::job::Job;

/// Version of the images, as a field of fingerprints.
pub const VERSION: u32 = 1;

/// Images of each kind.
const EACH: usize = 3;

/// The kinds, in order.
const KINDS: [&str; 5] = ["gaussian", "uniform", "poisson", "gamma", "salt and pepper"];

/// Names of the images, in order.
pub fn names() -> Vec<String> {
    let named = |kind: &str| {
        (1..=EACH)
            .map(move |n| format!("{kind} noise {n}"))
            .collect()
    };
    KINDS
        .iter()
        .flat_map(|kind: &&str| -> Vec<String> { named(kind) })
        .collect()
}

/// The images `[15, side, side, 3]`, RGB, one after the other.
fn pixels(side: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for kind in KINDS {
        let mut rng = SplitMix64::keyed(0, kind, 0);
        let count = EACH * side * side * 3;
        let values: Vec<f64> = (0..count).map(|_| draw(kind, &mut rng)).collect();
        let (low, high) = match kind {
            "uniform" | "salt and pepper" => (0.0, 1.0),
            _ => values.iter().fold((f64::MAX, f64::MIN), |(low, high), &x| {
                (low.min(x), high.max(x))
            }),
        };
        let byte = |x: &f64| (255.0 * (x - low) / (high - low).max(1e-9)).round() as u8;
        all.extend(values.iter().map(byte));
    }
    all
}

fn draw(kind: &str, rng: &mut SplitMix64) -> f64 {
    match kind {
        "gaussian" => rng.normal(),
        "poisson" => {
            // Knuth: uniform numbers are multiplied until the product falls below exp(-mean).
            let (mut count, mut product) = (0.0, rng.unit());
            while product > (-5.0f64).exp() {
                count += 1.0;
                product *= rng.unit();
            }
            count
        }
        // The sum of two exponential variables.
        "gamma" => -((1.0 - rng.unit()) * (1.0 - rng.unit())).ln(),
        "salt and pepper" => rng.unit().round(),
        _ => rng.unit(),
    }
}

/// Features of the noise images `[15, D]`, before normalisation.
///
/// # Errors
/// A device that fails, an interruption.
pub fn noise_features(job: &Job) -> Result<Vec<f32>> {
    let side = job.experiment.model.config.image.size;
    let dim = job.experiment.dim();
    let pixels = pixels(side);
    let count = names().len();
    let engine = Engine {
        model: &job.experiment.model,
        devices: &job.worker.devices,
        local: false,
        full: count,
        reporting: job.worker.reporting,
        interrupt: job.worker.interrupt.clone(),
    };
    let mut features = vec![0.0; count * dim];
    engine.run::<()>(
        &Clock::default(),
        |sink| {
            let mut unit = sink.begin(0);
            for (image, pixels) in pixels.chunks_exact(side * side * 3).enumerate() {
                if !unit.add((image, EVAL_VIEW), pixels) {
                    return Ok(());
                }
            }
            // Without a receiver the engine reports why.
            let _ = unit.end(());
            Ok(())
        },
        |event| {
            if let EncodeEvent::Encoded { rows, global, .. } = event {
                for ((image, _), row) in rows.iter().zip(global.chunks_exact(dim)) {
                    features[image * dim..(image + 1) * dim].copy_from_slice(row);
                }
            }
            Ok(())
        },
    )?;
    Ok(features)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_fixed_and_of_five_kinds() {
        let all = pixels(8);
        assert_eq!(all.len(), 15 * 8 * 8 * 3);
        assert_eq!(all, pixels(8));
        let kinds: Vec<&[u8]> = all.chunks(all.len() / 5).collect();
        let mean =
            |bytes: &[u8]| bytes.iter().map(|&b| f64::from(b)).sum::<f64>() / bytes.len() as f64;
        // Uniform: the middle. Salt and pepper: only the ends. The others reach both ends.
        assert!((mean(kinds[1]) - 127.5).abs() < 12.0);
        assert!(kinds[4].iter().all(|&b| b == 0 || b == 255));
        assert!((mean(kinds[4]) - 127.5).abs() < 20.0);
        for kind in [0, 2, 3] {
            assert!(kinds[kind].contains(&0) && kinds[kind].contains(&255));
        }
        // Poisson noise has as many values as counts, gamma noise leans to the dark.
        let mut counts = kinds[2].to_vec();
        counts.sort_unstable();
        counts.dedup();
        assert!(counts.len() < 20, "{}", counts.len());
        assert!(mean(kinds[3]) < 80.0);
        assert_eq!(names().len(), 15);
    }
}
