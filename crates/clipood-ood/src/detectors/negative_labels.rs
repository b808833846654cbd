//! Softmax mass on the class texts against negative texts: NegLabel, and prompts for the unknown.
//!
//! Jiang et al., "Negative Label Guided OOD Detection with Pretrained Vision-Language Models", ICLR 2024: with
//! `r_g = sum over group g of exp(scale c_neg) / sum over classes of exp(scale c)`, the mean over groups of `1 / (1 + r_g)`.
//! Groups are equal runs of the negative texts, in their order or after one seeded shuffle (the authors' code draws a new
//! permutation for every batch, which makes scores depend on the batch); a remainder is dropped.
//! Unknown prompt: minus the mass on the first `count` negative texts, `- r / (1 + r)`, at scale 100.
//!
//! Fitted on the negative texts, which it keeps. Cost per image: `negatives * dim` multiplications and `negatives`
//! exponentials. `r` is formed in log space, so masses near 0 and 1 keep their digits in f64; `space=log_odds` reports
//! `ln(mass / (1 - mass))` of the in-distribution mass, which keeps the order where f32 would tie.

use crate::bank::Bank;
use crate::block::{Block, LOGIT_SCALE};
use crate::detector::{Detector, Learned};
use crate::error::OodError;
use crate::fit_inputs::{FitSizes, Prepared};
use crate::info::{DetectorInfo, Needs, Negatives, ParameterInfo};
use crate::kernels;
use crate::parameters::{Space, Values};
use clipood_core::SplitMix64;
use serde::{Deserialize, Serialize};

/// Unit negative texts and how they are grouped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Groups {
    /// `[negatives, dim]`
    negatives: Bank,
    /// Rows of `negatives`, group after group, in runs of `size`.
    order: Vec<u32>,
    size: usize,
    scale: f64,
    /// Whether the score is minus the mass on the negatives rather than the mass on the classes.
    unknown: bool,
    log_odds: bool,
    /// Factor on the sum over a group.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    weight: f64,
}

fn one() -> f64 {
    1.0
}

fn is_one(weight: &f64) -> bool {
    *weight == 1.0
}

impl Learned for Groups {
    fn banks(&self) -> Vec<&Bank> {
        vec![&self.negatives]
    }

    fn is_consistent(&self) -> bool {
        let rows = self.negatives.rows();
        self.size > 0
            && !self.order.is_empty()
            && self.order.len().is_multiple_of(self.size)
            && self.order.iter().all(|&i| (i as usize) < rows)
    }
}

impl Groups {
    /// With the mean over a group, times the number of classes, in place of its sum.
    pub(crate) fn weighted_by_classes(self, classes: usize) -> Self {
        Self {
            weight: classes as f64 / self.size as f64,
            ..self
        }
    }

    pub(crate) fn score(&self, block: &Block<'_>) -> Vec<f32> {
        let count = self.negatives.rows();
        let mut exponentials = vec![0.0; count];
        block
            .product(0)
            .chunks_exact(count)
            .zip(block.log_sums())
            .map(|(cosines, log_sum)| {
                // exp(scale c - log sum over the classes): each group's share relative to the classes.
                kernels::exp_scaled(cosines, self.scale, log_sum / self.scale, &mut exponentials);
                let (mut inside, mut outside) = (0.0, 0.0);
                for group in self.order.chunks_exact(self.size) {
                    let sum: f64 = group.iter().map(|&i| exponentials[i as usize]).sum();
                    let ratio = self.weight * sum;
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

/// Mean over groups of the mass on the classes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NegLabel {
    /// Factor on cosines, above 0.
    scale: f64,
    /// Number of equal groups, at least 1.
    groups: usize,
    /// Seed of a shuffle before grouping; consecutive groups without.
    shuffle: Option<u64>,
    space: Space,
}

impl Detector for NegLabel {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "neglabel",
        summary: "softmax mass on the class texts against negative texts",
        formula: "mean over groups of sum_id exp(scale c) / (sum_id exp(scale c) + sum_group exp(scale c))",
        paper: "Jiang et al., Negative Label Guided OOD Detection with Pretrained Vision-Language Models, ICLR 2024",
        needs: Needs {
            texts: true,
            negatives: Some(Negatives::Mined),
            ..Needs::LOGITS
        },
        cost: "one product with the negative texts; one exponential for each",
        trap: "the number of groups and the word list change results; papers that pick groups per test set select on it",
        parameters: &[
            ParameterInfo::new("scale", "100", "factor on cosines, above 0"),
            ParameterInfo::new(
                "groups",
                "1",
                "equal groups of negative texts, at least 1; a remainder is dropped",
            ),
            ParameterInfo::new(
                "shuffle",
                "none",
                "none: consecutive groups; a number: the seed of a shuffle before grouping",
            ),
            Space::INFO,
        ],
    };
    const MIN_CLASSES: usize = 1;
    type Fitted = Groups;

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            scale: values.positive("scale")?,
            groups: values.count("groups")?,
            shuffle: match values.text("shuffle")? {
                "none" => None,
                seed => Some(seed.parse().map_err(|_| {
                    format!("shuffle must be none or a seed (a whole number), found {seed:?}")
                })?),
            },
            space: Space::read(values)?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![
            self.scale.to_string(),
            self.groups.to_string(),
            self.shuffle
                .map_or("none".to_owned(), |seed| seed.to_string()),
            self.space.word(),
        ]
    }

    fn scale(&self) -> Option<f64> {
        Some(self.scale)
    }

    fn fit(&self, data: &Prepared<'_>, notes: &mut Vec<String>) -> Result<Groups, OodError> {
        let negatives = Bank::new(data.negatives()?, data.dim());
        let size = negatives.rows() / self.groups;
        if size == 0 {
            return Err(data.problem(format!(
                "{} groups of {} negative texts would be empty; lower groups",
                self.groups,
                negatives.rows()
            )));
        }
        let mut order: Vec<u32> = (0..negatives.rows() as u32).collect();
        if let Some(seed) = self.shuffle {
            SplitMix64::keyed(seed, "neglabel groups", 0).shuffle(&mut order);
        }
        let dropped = order.len() - size * self.groups;
        if dropped > 0 {
            notes.push(format!(
                "{dropped} of {} negative texts were dropped to make {} equal groups",
                negatives.rows(),
                self.groups
            ));
        }
        order.truncate(size * self.groups);
        Ok(Groups {
            negatives,
            order,
            size,
            scale: self.scale,
            unknown: false,
            log_odds: self.space == Space::LogOdds,
            weight: 1.0,
        })
    }

    fn agrees(&self, fitted: &Groups) -> bool {
        !fitted.unknown && fitted.scale == self.scale
    }

    fn score(&self, fitted: &Groups, block: &Block<'_>) -> Vec<f32> {
        fitted.score(block)
    }
}

/// Minus the mass on the first negative texts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct UnknownPrompt {
    /// Negative texts that count, at least 1.
    count: usize,
    space: Space,
}

impl UnknownPrompt {
    /// Why this many texts are not enough.
    fn too_few(&self, texts: usize) -> Option<String> {
        (self.count > texts)
            .then(|| format!("count {} is above the {texts} negative texts", self.count))
    }
}

impl Detector for UnknownPrompt {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "unknown_prompt",
        summary: "softmax mass on prompts for the unknown",
        formula: "- sum over the first count negative texts of softmax([s, s_negative])",
        paper: "after Nie et al., Out-of-Distribution Detection with Negative Prompts, ICLR 2024",
        needs: Needs {
            texts: true,
            negatives: Some(Negatives::Unknown),
            ..Needs::LOGITS
        },
        cost: "one product with `count` texts",
        trap: "hand-written texts, not the learned negative prompts of the paper",
        parameters: &[
            ParameterInfo::new("count", "1", "negative texts that count, at least 1"),
            Space::INFO,
        ],
    };
    const MIN_CLASSES: usize = 1;
    type Fitted = Groups;

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            count: values.count("count")?,
            space: Space::read(values)?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.count.to_string(), self.space.word()]
    }

    fn scale(&self) -> Option<f64> {
        Some(LOGIT_SCALE)
    }

    fn refuses(&self, sizes: &FitSizes) -> Option<String> {
        self.too_few(sizes.unknown_texts?)
    }

    fn fit(&self, data: &Prepared<'_>, _: &mut Vec<String>) -> Result<Groups, OodError> {
        let negatives = Bank::new(data.negatives()?, data.dim());
        if let Some(problem) = self.too_few(negatives.rows()) {
            return Err(data.problem(problem));
        }
        Ok(Groups {
            negatives,
            order: (0..self.count as u32).collect(),
            size: self.count,
            scale: LOGIT_SCALE,
            unknown: true,
            log_odds: self.space == Space::LogOdds,
            weight: 1.0,
        })
    }

    fn agrees(&self, fitted: &Groups) -> bool {
        fitted.unknown && fitted.scale == LOGIT_SCALE
    }

    fn score(&self, fitted: &Groups, block: &Block<'_>) -> Vec<f32> {
        fitted.score(block)
    }
}
