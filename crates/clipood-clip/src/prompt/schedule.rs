//! Learning rates by epoch and by step.

use serde::{Deserialize, Serialize};

/// Learning rate of `epoch` (from 0) of `epochs`, Dassl's cosine schedule with one constant warm-up epoch: `warmup` in the first,
/// then `base * (1 + cos(pi (e - 1) / epochs)) / 2`. The cosine counts from epoch 1 but spans all epochs, as the reference's
/// scheduler does, so it does not reach 0.
pub fn learning_rate(epoch: usize, epochs: usize, base: f64, warmup: f64) -> f64 {
    if epoch == 0 {
        return warmup;
    }
    let angle = std::f64::consts::PI * (epoch - 1) as f64 / epochs as f64;
    base * 0.5 * (1.0 + angle.cos())
}

/// A learning rate that falls from `base` to 0 along a cosine in `fall` ticks, rises again in as many, and so on. Every step and
/// every end of an epoch is a tick: NegPrompt's code advances PyTorch's `CosineAnnealingLR` at both.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CosineWaves {
    /// The largest rate, that of the first step.
    pub base: f64,
    /// Ticks from the largest rate to 0, at least 1.
    pub fall: usize,
}

impl CosineWaves {
    /// The rate after `step` steps and `epoch` whole epochs.
    pub fn rate(&self, epoch: usize, step: usize) -> f64 {
        // A whole wave is two falls; the remainder keeps the angle small, and so exact.
        let ticks = (epoch + step) % (2 * self.fall.max(1));
        let angle = std::f64::consts::PI * ticks as f64 / self.fall.max(1) as f64;
        self.base * 0.5 * (1.0 + angle.cos())
    }
}

/// The schedule of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Schedule {
    /// [`learning_rate`].
    Warmup {
        /// Rate at the start of the cosine.
        base: f64,
        /// Rate of the first epoch.
        warmup: f64,
    },
    /// [`CosineWaves`].
    Waves(CosineWaves),
}

impl Schedule {
    /// The rate of the step after `step` steps, in `epoch` of `epochs`.
    pub fn rate(&self, (epoch, epochs): (usize, usize), step: usize) -> f64 {
        match *self {
            Self::Warmup { base, warmup } => learning_rate(epoch, epochs, base, warmup),
            Self::Waves(waves) => waves.rate(epoch, step),
        }
    }
}
