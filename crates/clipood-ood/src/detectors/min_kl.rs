//! Divergence from the nearest class pattern: the visual half of dual-pattern matching.
//!
//! After Zhang et al., "Vision-Language Dual-Pattern Matching for Out-of-Distribution Detection", ECCV 2024, in the form
//! of the dual-pattern repository: `- min_k KL(m_k || q)`, `q = softmax(c / t)` `[classes]`, `m_k` the mean of q over the
//! shots of class k, t = 0.1. (The paper's own code takes KL(q || m_k) at t = 1.)
//!
//! Fitted on the shots, their labels and the class texts. `KL(m || q) = sum m log m - m . log q`, and
//! `m . log q = (m T) . f / t - logsumexp(c / t)` since m sums to 1: the patterns are folded into the texts `T` once, `[K, dim]`,
//! so an image costs `K * dim` multiplications instead of `K * classes`. Classes without shots have no pattern.

use crate::bank::Bank;
use crate::block::Block;
use crate::detector::{Detector, Learned};
use crate::error::OodError;
use crate::fit_inputs::{Prepared, class_means};
use crate::info::{DetectorInfo, Needs, ParameterInfo};
use crate::kernels;
use crate::linalg;
use crate::parameters::Values;
use serde::{Deserialize, Serialize};

/// `- min_k KL(m_k || softmax(c / t))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct DpmNegMinKl {
    t: f64,
}

/// Class patterns, folded into the texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Patterns {
    /// `m T`, `[present, dim]`.
    patterns: Bank,
    /// `sum m log m` of each pattern.
    neg_entropies: Vec<f64>,
    t: f64,
}

impl Learned for Patterns {
    fn banks(&self) -> Vec<&Bank> {
        vec![&self.patterns]
    }

    fn is_consistent(&self) -> bool {
        !self.neg_entropies.is_empty() && self.neg_entropies.len() == self.patterns.rows()
    }
}

impl Detector for DpmNegMinKl {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "dpm_neg_min_kl",
        summary: "divergence from the nearest class pattern of softmax outputs",
        formula: "- min_k KL(m_k || softmax(c / t)), m_k the class means of softmax(c / t) over the shots",
        paper: "Zhang et al., Vision-Language Dual-Pattern Matching for Out-of-Distribution Detection, ECCV 2024",
        needs: Needs {
            texts: true,
            shots: true,
            labels: true,
            ..Needs::LOGITS
        },
        cost: "one product of classes x classes",
        trap: "fused with a scaling over the tested pair it is transductive, with beta per test set an oracle",
        parameters: &[ParameterInfo::new(
            "t",
            "0.1",
            "softmax temperature on cosines, above 0",
        )],
    };
    const MIN_CLASSES: usize = 2;
    type Fitted = Patterns;

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            t: values.positive("t")?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.t.to_string()]
    }

    fn scale(&self) -> Option<f64> {
        Some(1.0 / self.t)
    }

    fn fit(&self, data: &Prepared<'_>, notes: &mut Vec<String>) -> Result<Patterns, OodError> {
        let (shots, labels) = data.labelled()?;
        let (dim, classes) = (data.dim(), data.classes());
        let text = Bank::new(data.text()?, dim);
        let (mut cosines, mut scratch) = (Vec::new(), Vec::new());
        // Chunks bound the memory by the classes, not by the shots.
        let rows = shots.chunks(256 * dim).flat_map(|chunk| {
            text.multiply(chunk, &mut scratch, &mut cosines);
            let softmax = |row: &[f32]| {
                let max = f64::from(kernels::argmax(row).1);
                let mut q = vec![0.0; classes];
                let sum = kernels::exp_scaled(row, 1.0 / self.t, max, &mut q);
                q.iter_mut().for_each(|x| *x /= sum);
                q
            };
            let rows: Vec<Vec<f64>> = cosines.chunks_exact(classes).map(softmax).collect();
            rows
        });
        let means = class_means(rows, classes, labels, classes);
        data.note_absent(means.present, notes);
        let neg_entropies = means
            .means
            .chunks_exact(classes)
            .map(|m| {
                m.iter()
                    .map(|&p| if p > 0.0 { p * p.ln() } else { 0.0 })
                    .sum()
            })
            .collect();
        let mut folded = vec![0.0; means.present * dim];
        let text: Vec<f64> = text.data().iter().map(|&x| f64::from(x)).collect();
        let transposed: Vec<f64> = (0..classes)
            .flat_map(|j| means.means.iter().skip(j).step_by(classes).copied())
            .collect();
        linalg::accumulate_transposed(&transposed, &text, classes, &mut folded);
        Ok(Patterns {
            patterns: Bank::new(folded.into_iter().map(|x| x as f32).collect(), dim),
            neg_entropies,
            t: self.t,
        })
    }

    fn agrees(&self, fitted: &Patterns) -> bool {
        fitted.t == self.t
    }

    fn score(&self, fitted: &Patterns, block: &Block<'_>) -> Vec<f32> {
        block
            .product(0)
            .chunks_exact(fitted.neg_entropies.len())
            .zip(block.log_sums())
            .map(|(products, log_sum)| {
                let nearest = products
                    .iter()
                    .zip(&fitted.neg_entropies)
                    .map(|(&p, entropy)| entropy - f64::from(p) / self.t)
                    .fold(f64::INFINITY, f64::min);
                -(nearest + log_sum) as f32
            })
            .collect()
    }
}
