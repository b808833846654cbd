//! Maximum concept matching, global and local.
//!
//! MCM: Ming et al., "Delving into Out-of-Distribution Detection with Vision-Language Representations", NeurIPS 2022:
//! `max_k softmax(c / t)_k` with cosines `c`. L-MCM and GL-MCM: Miyai et al., "GL-MCM: Global and Local Maximum Concept
//! Matching for Zero-Shot Out-of-Distribution Detection", IJCV 2025: the same of each patch, the largest over patches, and
//! `mcm + weight * l_mcm`. The papers use t = 1; the dual-pattern repository multiplies cosines by 10 (t = 0.1) and
//! halves the local term.
//!
//! Fitted on nothing. Cost an image: `classes * dim` multiplications, shared by all detectors, and `classes` exponentials;
//! the local score costs that for every patch.

use crate::score::Block;

/// `max softmax(c / t)`.
pub(super) fn mcm(block: &Block<'_>, t: f64) -> Vec<f32> {
    let softmaxes = block.softmax(1.0 / t);
    softmaxes.iter().map(|s| s.probability() as f32).collect()
}

/// `max over patches of max softmax(c_patch / t)`.
pub(super) fn l_mcm(block: &Block<'_>, t: f64) -> Vec<f32> {
    let local = block.local(1.0 / t);
    local.iter().map(|&p| p as f32).collect()
}

/// `mcm + weight * l_mcm`.
pub(super) fn gl_mcm(block: &Block<'_>, t: f64, weight: f64) -> Vec<f32> {
    let softmaxes = block.softmax(1.0 / t);
    let local = block.local(1.0 / t);
    softmaxes
        .iter()
        .zip(local)
        .map(|(s, l)| (s.probability() + weight * l) as f32)
        .collect()
}
