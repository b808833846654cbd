//! Times the static detectors on negative labels and one stream of each test-time detector over random features of a
//! benchmark's size, and prints the largest resident memory after each.
//!
//! `cargo run --release -p clipood-ood --example stream_speed [ID OOD CLASSES DIM WORDS]`

use clipood_ood::{
    Classifier, DetectorSpec, FitInputs, Matrix, OodError, ScoreInputs, Stream, StreamInputs, fit,
    score_all, score_stream, stream_order,
};
use std::time::Instant;

/// Rows around the directions of `centres`, or anywhere without them, with a mean direction as CLIP's features have.
fn features(rows: usize, dim: usize, seed: u64, centres: &[f32]) -> Vec<f32> {
    let count = centres.len() / dim;
    (0..(rows * dim) as u64)
        .map(|i| {
            let z = (i ^ seed << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let own = (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            let (row, column) = (i as usize / dim, i as usize % dim);
            let near = match count {
                0 => (column % 7) as f32 * 0.2,
                _ => centres[(row * 31 % count) * dim + column],
            };
            own + near
        })
        .collect()
}

/// Processor seconds of all threads so far; 0 where the system does not tell.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    // User and system time, in hundredths of a second on Linux.
    let ticks: u64 = fields.skip(11).take(2).flat_map(|n| n.parse::<u64>()).sum();
    ticks as f64 / 100.0
}

/// Largest resident memory so far, in MiB; 0 where the system does not tell.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn main() -> Result<(), OodError> {
    let given: Vec<usize> = std::env::args().skip(1).flat_map(|a| a.parse()).collect();
    let size = |i: usize, default: usize| given.get(i).copied().unwrap_or(default);
    let (id, ood) = (size(0, 50_000), size(1, 10_000));
    let (classes, dim, words) = (size(2, 1000), size(3, 512), size(4, 10_000));

    let text = features(classes, dim, 1, &[]);
    let negative = features(words, dim, 2, &[]);
    let mut images = features(id, dim, 3, &text);
    images.extend(features(ood, dim, 4, &negative));
    let noise = features(15, dim, 5, &[]);
    let text = Matrix::new("text", &text, classes, dim)?;
    let negative = Matrix::new("words", &negative, words, dim)?;
    let images = Matrix::new("images", &images, id + ood, dim)?;
    println!(
        "{id} + {ood} images, {classes} classes, {words} words, {dim} dimensions; peak {} MiB with the features",
        peak()
    );

    let classifiers = [Classifier::Texts(text)];
    let inputs = FitInputs {
        text,
        negative_text: Some(negative),
        train: None,
        train_labels: None,
        classifiers: &classifiers,
    };
    let specs = DetectorSpec::parse_list(
        "neglabel:groups=5,inter_modal:groups=5:shuffle=1,tins,eoe,cooked",
    )?;
    let fitted = specs.iter().map(|spec| fit(spec, &inputs));
    let detectors = fitted.collect::<Result<Vec<_>, _>>()?;
    let inputs = ScoreInputs {
        global: images,
        local: None,
    };
    for detectors in [&detectors[..1], &detectors[..]] {
        let (start, before) = (Instant::now(), processor());
        score_all(detectors, &text, &inputs)?;
        println!(
            "static, {} in one pass: {:.1} s ({:.1} s of processors)",
            detectors.len(),
            start.elapsed().as_secs_f64(),
            processor() - before
        );
    }

    let inputs = StreamInputs {
        text,
        negative_text: Some(negative),
        noise: Some(Matrix::new("noise", &noise, 15, dim)?),
    };
    for spec in DetectorSpec::parse_list("oodd,adaneg,adaneg:beta=5,tanl")? {
        let (start, before) = (Instant::now(), processor());
        let mut stream = Stream::start(&spec, &inputs)?;
        let order = stream_order(0, images.rows());
        let half = order.len() / 2;
        let mut seen = 0;
        let mut at_half = 0;
        let scores: Result<_, OodError> = score_stream(&mut stream, &images, &order, |images| {
            seen += images;
            if seen >= half && at_half == 0 {
                at_half = peak();
            }
            Ok(())
        });
        let mean = |scores: &[f32]| {
            scores.iter().map(|&s| f64::from(s)).sum::<f64>() / scores.len().max(1) as f64
        };
        let scores = scores?;
        println!(
            "stream {spec}: {:.1} s ({:.1} s of processors), peak {at_half} MiB after half, {} MiB at the end (mean of ID {:.3}, of OOD {:.3})",
            start.elapsed().as_secs_f64(),
            processor() - before,
            peak(),
            mean(&scores[..id]),
            mean(&scores[id..])
        );
    }
    Ok(())
}
