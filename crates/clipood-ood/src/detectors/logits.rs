//! Scores of the largest logit and of all logits together: MSP, max logit, max cosine, energy.
//!
//! MSP: Hendrycks and Gimpel, ICLR 2017, `max softmax(s)`. Max logit: Hendrycks et al., ICML 2022, `max s`. Energy: Liu et
//! al., NeurIPS 2020, `logsumexp(s)`; MCM's code takes it of the cosines. Logits `s = 100 c`.
//!
//! Fitted on nothing. Cost an image: the shared cosines and `classes` exponentials.
//!
//! MSP of CLIP is 1 in f32 for most images. The f64 value is `1 / (1 + r)`, `r` the sum of the other exponentials over the
//! largest, so it is rounded once; `space=log_odds` reports `-ln r`, which orders images the same way without ties.

use crate::detectors::LOGIT_SCALE;
use crate::kind::{EnergyOn, Space};
use crate::score::Block;

/// `max softmax(s)` or its log-odds.
pub(super) fn msp(block: &Block<'_>, space: Space) -> Vec<f32> {
    block
        .softmax(LOGIT_SCALE)
        .iter()
        .map(|s| match space {
            Space::Probability => s.probability() as f32,
            Space::LogOdds => -s.others.ln() as f32,
        })
        .collect()
}

/// `max s`.
pub(super) fn max_logit(block: &Block<'_>) -> Vec<f32> {
    let maxima = block.maxima();
    maxima
        .map(|max| (LOGIT_SCALE * f64::from(max)) as f32)
        .collect()
}

/// `max c`.
pub(super) fn max_cosine(block: &Block<'_>) -> Vec<f32> {
    block.maxima().collect()
}

/// `logsumexp(s)` or `logsumexp(c)`.
pub(super) fn energy(block: &Block<'_>, on: EnergyOn) -> Vec<f32> {
    let scale = match on {
        EnergyOn::Logits => LOGIT_SCALE,
        EnergyOn::Cosine => 1.0,
    };
    block.log_sums(scale).map(|sum| sum as f32).collect()
}
