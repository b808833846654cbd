//! Which pairs form a batch, and the learning rate of each step.

use std::f64::consts::PI;

use clipood_core::SplitMix64;

/// Learning rate of `step` (from 0) of `steps`: rises linearly over the first `warmup` steps, then falls along half a cosine
/// to 0, as `cosine_lr` of open_clip (`src/open_clip_train/scheduler.py`).
pub fn learning_rate(step: usize, steps: usize, peak: f64, warmup: usize) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let done = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
    peak * 0.5 * (1.0 + (PI * done.min(1.0)).cos())
}

/// The batches of an epoch (from 0): the numbers 0 to `pairs`, shuffled by `seed` and epoch. A last short batch is dropped
/// unless it is the only one.
pub fn batches(pairs: usize, batch: usize, seed: u64, epoch: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..pairs).collect();
    SplitMix64::keyed(seed, "contrastive epoch", epoch as u64).shuffle(&mut order);
    let batch = batch.clamp(1, pairs.max(1));
    order.chunks_exact(batch).map(<[usize]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_to_the_peak_and_fall_along_a_cosine() {
        let rates: Vec<f64> = (0..6).map(|step| learning_rate(step, 6, 2.0, 2)).collect();
        let half = 0.5f64.sqrt();
        let expected = [1.0, 2.0, 2.0, 1.0 + half, 1.0, 1.0 - half];
        for (found, expected) in rates.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{rates:?}");
        }
        assert_eq!(learning_rate(0, 4, 1.0, 0), 1.0);
        // A warm-up that is longer than the training never reaches the peak.
        assert_eq!(learning_rate(3, 4, 1.0, 8), 0.5);
        assert!(learning_rate(8, 4, 1.0, 8).is_finite());
    }

    #[test]
    fn every_epoch_is_another_order_of_all_pairs() {
        let all = |epoch: usize| {
            let mut numbers = batches(10, 3, 1, epoch).concat();
            assert_eq!(numbers.len(), 9);
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), 9);
            batches(10, 3, 1, epoch)
        };
        assert_eq!(all(0), all(0));
        assert_ne!(all(0), all(1));
        assert_ne!(batches(10, 3, 1, 0), batches(10, 3, 2, 0));
        // Fewer pairs than a batch are one batch.
        assert_eq!(batches(4, 64, 1, 0).concat().len(), 4);
        assert!(batches(0, 64, 1, 0).is_empty());
    }
}
