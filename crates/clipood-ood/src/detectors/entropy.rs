//! Entropies of the softmax over `s = 100 c`: negative entropy and GEN.
//!
//! GEN: Liu et al., "GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection", CVPR 2023, as in OpenOOD:
//! `- sum over the m largest of p^gamma (1 - p)^gamma`, gamma 0.1, m 100.
//!
//! Fitted on nothing. Cost an image: the shared cosines and exponentials; GEN adds a selection and `m` powers.
//!
//! Where one class takes nearly everything, `1 - p` cancels to nothing: it is summed from the other classes instead, and
//! logarithms of p are differences of logits.

use crate::detectors::LOGIT_SCALE;
use crate::kernels;
use crate::score::Block;

/// `sum p log p`: with `x = s - max s` and `Z = sum exp(x)`, `sum x exp(x) / Z - ln Z`.
pub(super) fn neg_entropy(block: &Block<'_>) -> Vec<f32> {
    block
        .softmax(LOGIT_SCALE)
        .iter()
        .map(|s| (s.weighted / (1.0 + s.others) - s.others.ln_1p()) as f32)
        .collect()
}

/// `- sum over the m largest of p^gamma (1 - p)^gamma`.
pub(super) fn generalized(block: &Block<'_>, gamma: f64, m: usize) -> Vec<f32> {
    let mut largest = Vec::new();
    block
        .softmax(LOGIT_SCALE)
        .iter()
        .zip(block.cosine_rows())
        .map(|(s, cosines)| {
            kernels::largest(cosines, m, &mut largest);
            let max = largest.first().map_or(0.0, |&(c, _)| f64::from(c));
            let z = 1.0 + s.others;
            let log_z = s.others.ln_1p();
            let sum: f64 = largest
                .iter()
                .enumerate()
                .map(|(rank, &(c, _))| {
                    let x = LOGIT_SCALE * (f64::from(c) - max);
                    // The largest is 1 / z, and what is left of it is exactly the others.
                    let log_rest = if rank == 0 {
                        s.others.ln() - log_z
                    } else {
                        (-x.exp() / z).ln_1p()
                    };
                    (gamma * (x - log_z + log_rest)).exp()
                })
                .sum();
            -sum as f32
        })
        .collect()
}
