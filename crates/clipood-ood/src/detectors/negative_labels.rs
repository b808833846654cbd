//! Softmax mass on the class texts against negative texts: NegLabel, and prompts for the unknown.
//!
//! Jiang et al., "Negative Label Guided OOD Detection with Pretrained Vision-Language Models", ICLR 2024: with
//! `r_g = sum over group g of exp(scale c_neg) / sum over classes of exp(scale c)`, the mean over groups of `1 / (1 + r_g)`.
//! Groups are equal runs of the negative texts, in their order or after one seeded shuffle (the authors' code draws a new
//! permutation for every batch, which makes scores depend on the batch); a remainder is dropped.
//! Unknown prompt: minus the mass on the first `count` negative texts, `- r / (1 + r)`, at scale 100.
//!
//! Fitted on the negative texts, which it keeps. Cost an image: `negatives * dim` multiplications and `negatives`
//! exponentials. `r` is formed in log space, so masses near 0 and 1 keep their digits in f64; `space=log_odds` reports
//! `ln(mass / (1 - mass))` of the in-distribution mass, which keeps the order where f32 would tie.

use super::LOGIT_SCALE;
use super::shots::Prepared;
use crate::bank::Bank;
use crate::error::OodError;
use crate::kernels;
use crate::kind::Space;
use crate::score::Block;
use clipood_core::SplitMix64;
use serde::{Deserialize, Serialize};

/// Unit negative texts and how they are grouped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct NegativeLabels {
    /// `[negatives, dim]`
    negatives: Bank,
    /// Rows of `negatives`, group after group, in runs of `size`.
    order: Vec<u32>,
    size: usize,
    scale: f64,
    /// Whether the score is minus the mass on the negatives rather than the mass on the classes.
    unknown: bool,
    log_odds: bool,
}

impl NegativeLabels {
    pub(super) fn fit_groups(
        data: &Prepared<'_>,
        scale: f64,
        groups: usize,
        shuffle: Option<u64>,
        space: Space,
        notes: &mut Vec<String>,
    ) -> Result<Self, OodError> {
        let negatives = Bank::new(data.negatives()?, data.dim());
        let size = negatives.rows() / groups;
        if size == 0 {
            return Err(data.problem(format!(
                "{groups} groups of {} negative texts would be empty; lower groups",
                negatives.rows()
            )));
        }
        let mut order: Vec<u32> = (0..negatives.rows() as u32).collect();
        if let Some(seed) = shuffle {
            SplitMix64::keyed(seed, "neglabel groups", 0).shuffle(&mut order);
        }
        let dropped = order.len() - size * groups;
        if dropped > 0 {
            notes.push(format!(
                "{dropped} of {} negative texts were dropped to make {groups} equal groups",
                negatives.rows()
            ));
        }
        order.truncate(size * groups);
        Ok(Self {
            negatives,
            order,
            size,
            scale,
            unknown: false,
            log_odds: space == Space::LogOdds,
        })
    }

    pub(super) fn fit_unknown(
        data: &Prepared<'_>,
        count: usize,
        space: Space,
    ) -> Result<Self, OodError> {
        let negatives = Bank::new(data.negatives()?, data.dim());
        if count > negatives.rows() {
            return Err(data.problem(format!(
                "count {count} is above the {} negative texts",
                negatives.rows()
            )));
        }
        Ok(Self {
            negatives,
            order: (0..count as u32).collect(),
            size: count,
            scale: LOGIT_SCALE,
            unknown: true,
            log_odds: space == Space::LogOdds,
        })
    }

    pub(super) fn bank(&self) -> &Bank {
        &self.negatives
    }

    pub(super) fn is_consistent(&self) -> bool {
        let rows = self.negatives.rows();
        self.size > 0
            && !self.order.is_empty()
            && self.order.len().is_multiple_of(self.size)
            && self.order.iter().all(|&i| (i as usize) < rows)
    }

    pub(super) fn score(&self, block: &Block<'_>) -> Vec<f32> {
        let count = self.negatives.rows();
        let mut exponentials = vec![0.0; count];
        block
            .product(0)
            .chunks_exact(count)
            .zip(block.log_sums(self.scale))
            .map(|(cosines, log_sum)| {
                // exp(scale c - log sum over the classes): each group's share relative to the classes.
                kernels::exp_scaled(cosines, self.scale, log_sum / self.scale, &mut exponentials);
                let (mut inside, mut outside) = (0.0, 0.0);
                for group in self.order.chunks_exact(self.size) {
                    let ratio: f64 = group.iter().map(|&i| exponentials[i as usize]).sum();
                    inside += 1.0 / (1.0 + ratio);
                    outside += 1.0 / (1.0 + 1.0 / ratio);
                }
                let groups = (self.order.len() / self.size) as f64;
                (if self.log_odds {
                    inside.max(f64::MIN_POSITIVE).ln() - outside.max(f64::MIN_POSITIVE).ln()
                } else if self.unknown {
                    -outside / groups
                } else {
                    inside / groups
                }) as f32
            })
            .collect()
    }
}
