//! Times the figures of 10^7 scores, a merge of sorted parts, and 1,000 bootstrap resamples of a benchmark's size.
//!
//! `cargo run --release -p clipood-ood --example metrics_speed [SCORES]`

use clipood_ood::OodError;
use clipood_ood::metrics::{BootstrapOptions, ScorePair, bootstrap, merge_sorted, ood_metrics};
use std::time::Instant;

/// Uniform-ish scores in [shift, shift + 1).
fn scores(n: usize, seed: u64, shift: f32) -> Vec<f32> {
    (0..n as u64)
        .map(|i| {
            let z = (i ^ seed << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            (z >> 40) as f32 / (1u64 << 24) as f32 + shift
        })
        .collect()
}

/// The scores as parts, each sorted highest first, in chunks.
fn sorted_parts(scores: &[f32]) -> Vec<std::vec::IntoIter<Result<Vec<f64>, OodError>>> {
    scores
        .chunks(1 << 20)
        .map(|part| {
            let mut part: Vec<f64> = part.iter().map(|&x| f64::from(x)).collect();
            part.sort_unstable_by(|a, b| b.total_cmp(a));
            let chunks: Vec<_> = part.chunks(1 << 13).map(|c| Ok(c.to_vec())).collect();
            chunks.into_iter()
        })
        .collect()
}

fn main() -> Result<(), OodError> {
    let argument = std::env::args().nth(1).and_then(|n| n.parse().ok());
    let n: usize = argument.unwrap_or(10_000_000);
    let (id, ood) = (scores(n / 2, 1, 0.25), scores(n - n / 2, 2, 0.0));

    let start = Instant::now();
    let figures = ood_metrics(&id, &ood)?;
    println!(
        "{n} f32 scores, every figure: {:.3} s (AUROC {:.6}, FPR95 {:.6}, {} ties)",
        start.elapsed().as_secs_f64(),
        figures.auroc,
        figures.fpr95,
        figures.ties
    );

    let wide = |list: &[f32]| -> Vec<f64> { list.iter().map(|&x| f64::from(x).sqrt()).collect() };
    let (wide_id, wide_ood) = (wide(&id), wide(&ood));
    let start = Instant::now();
    let figures64 = ood_metrics(&wide_id, &wide_ood)?;
    println!(
        "{n} f64 scores, every figure: {:.3} s (AUROC {:.6})",
        start.elapsed().as_secs_f64(),
        figures64.auroc
    );

    let (id_parts, ood_parts) = (sorted_parts(&id), sorted_parts(&ood));
    let start = Instant::now();
    let merged = merge_sorted(id.len() as u64, ood.len() as u64, id_parts, ood_parts)?;
    println!(
        "{n} scores in sorted parts, merged: {:.3} s (same figures: {})",
        start.elapsed().as_secs_f64(),
        merged == figures
    );

    let (id, ood) = (scores(50_000, 3, 0.25), scores(35_640, 4, 0.0));
    let pairs = vec![ScorePair { id: &id, ood: &ood }; 10];
    let start = Instant::now();
    let intervals = bootstrap(&pairs, &BootstrapOptions::default())?;
    println!(
        "1,000 resamples of {} images, 10 detectors: {:.3} s (AUROC {:.4} to {:.4})",
        id.len() + ood.len(),
        start.elapsed().as_secs_f64(),
        intervals[0].auroc.lo,
        intervals[0].auroc.hi
    );
    Ok(())
}
