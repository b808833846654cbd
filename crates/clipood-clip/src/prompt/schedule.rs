//! Dassl's cosine schedule with one constant warm-up epoch.

/// Learning rate of `epoch` (from 0) of `epochs`: `warmup` in the first, then `base * (1 + cos(pi (e - 1) / epochs)) / 2`.
/// The cosine counts from epoch 1 but spans all epochs, as the reference's scheduler does, so it does not reach 0.
pub fn learning_rate(epoch: usize, epochs: usize, base: f64, warmup: f64) -> f64 {
    if epoch == 0 {
        return warmup;
    }
    let angle = std::f64::consts::PI * (epoch - 1) as f64 / epochs as f64;
    base * 0.5 * (1.0 + angle.cos())
}
