//! COOkeD: the mean of the softmaxes of several classifiers.
//!
//! Humblot-Renaux et al., "COOkeD: Ensemble-based OOD detection in the era of zero-shot CLIP", ICCV Workshops 2025, as in the
//! authors' demo: the softmaxes of zero-shot CLIP (logits `100 c`), of a linear probe on CLIP features and of a classifier
//! that was trained on the classes are averaged; the score is the largest mean probability, or minus the entropy of the mean.
//! Here the third classifier is the scored prompt set; scored with the probe itself, zero-shot and probe are averaged.
//!
//! Fitted on the other classifiers, which it keeps. Cost per image: one product with the class rows of each, and two
//! exponentials per class and classifier.

use crate::bank::Bank;
use crate::block::{Block, LOGIT_SCALE};
use crate::detector::{Detector, Learned};
use crate::error::OodError;
use crate::fit_inputs::{Classifier, Prepared};
use crate::info::{DetectorInfo, Needs, ParameterInfo};
use crate::kernels;
use crate::parameters::{Values, word};
use serde::{Deserialize, Serialize};

/// What is made of the mean.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Score {
    Msp,
    NegEntropy,
}

const SCORES: [(&str, Score); 2] = [("msp", Score::Msp), ("neg_entropy", Score::NegEntropy)];

/// The parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cooked {
    score: Score,
}

/// One of the other classifiers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Member {
    /// `[classes, dim]`
    rows: Bank,
    /// Factor on the products.
    scale: f64,
    /// One per class.
    biases: Vec<f32>,
}

/// The other classifiers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ensemble {
    members: Vec<Member>,
}

impl Learned for Ensemble {
    fn banks(&self) -> Vec<&Bank> {
        self.members.iter().map(|member| &member.rows).collect()
    }

    fn is_consistent(&self) -> bool {
        let mut members = self.members.iter();
        let classes = members.clone().next().map_or(0, |m| m.biases.len());
        classes > 0 && members.all(|m| m.biases.len() == classes && m.rows.rows() == classes)
    }
}

impl Detector for Cooked {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "cooked",
        summary: "largest mean probability of zero-shot, prompt set and linear probe",
        formula: "max mean(softmax of each classifier), or sum m log m of the mean m with score=neg_entropy",
        paper: "Humblot-Renaux et al., COOkeD: Ensemble-based OOD detection in the era of zero-shot CLIP, ICCVW 2025",
        needs: Needs {
            classifiers: true,
            ..Needs::LOGITS
        },
        cost: "one product with the class rows of each other classifier; two exponentials per class and classifier",
        trap: "the paper's third classifier is a ResNet trained end to end; here it is the prompt set",
        parameters: &[ParameterInfo::new(
            "score",
            "msp",
            "msp, or neg_entropy, which the authors' demo uses",
        )],
    };
    const MIN_CLASSES: usize = 2;
    type Fitted = Ensemble;

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            score: values.choice("score", &SCORES)?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![word(&SCORES, self.score)]
    }

    fn fit(&self, data: &Prepared<'_>, _: &mut Vec<String>) -> Result<Ensemble, OodError> {
        let (dim, classes) = (data.dim(), data.classes());
        let mut members = Vec::new();
        for classifier in data.inputs.classifiers {
            let member = match classifier {
                Classifier::Texts(texts) => {
                    texts.expect_cols(dim, data.inputs.text.name())?;
                    Member {
                        rows: Bank::new(texts.normalized()?, dim),
                        scale: LOGIT_SCALE,
                        biases: vec![0.0; texts.rows()],
                    }
                }
                Classifier::Probe(probe) => Member {
                    rows: Bank::new(probe.weights.clone(), dim).for_raw_features(),
                    scale: 1.0,
                    biases: probe.biases.clone(),
                },
            };
            let found = (member.rows.rows(), member.biases.len());
            if found != (classes, classes) || member.rows.data().len() != classes * dim {
                return Err(data.problem(format!(
                    "another classifier has {} rows and {} biases, expected {classes} of each, of width {dim}",
                    found.0, found.1
                )));
            }
            members.push(member);
        }
        if members.is_empty() {
            return Err(OodError::Missing {
                detector: data.name.to_owned(),
                missing: "other classifiers",
            });
        }
        Ok(Ensemble { members })
    }

    fn score(&self, fitted: &Ensemble, block: &Block<'_>) -> Vec<f32> {
        let mut mean = vec![0.0; block.classes];
        let mut logits = vec![0.0; block.classes];
        let mut exponentials = vec![0.0; block.classes];
        let count = (fitted.members.len() + 1) as f64;
        block
            .cosine_rows()
            .enumerate()
            .map(|(row, own)| {
                mean.fill(0.0);
                add_softmax(own, LOGIT_SCALE, &mut exponentials, &mut mean);
                for (m, member) in fitted.members.iter().enumerate() {
                    let products = block.product(m);
                    let products = &products[row * block.classes..(row + 1) * block.classes];
                    let biased = logits.iter_mut().zip(products).zip(&member.biases);
                    biased.for_each(|((logit, product), bias)| {
                        *logit = (member.scale * f64::from(*product) + f64::from(*bias)) as f32;
                    });
                    add_softmax(&logits, 1.0, &mut exponentials, &mut mean);
                }
                let shares = mean.iter().map(|sum| sum / count);
                (match self.score {
                    Score::Msp => shares.fold(0.0, f64::max),
                    Score::NegEntropy => shares.filter(|p| *p > 0.0).map(|p| p * p.ln()).sum(),
                }) as f32
            })
            .collect()
    }
}

/// Adds `softmax(scale row)` to `mean`.
fn add_softmax(row: &[f32], scale: f64, exponentials: &mut [f64], mean: &mut [f64]) {
    let (_, max) = kernels::argmax(row);
    let sum = kernels::exp_scaled(row, scale, f64::from(max), exponentials);
    mean.iter_mut()
        .zip(exponentials.iter())
        .for_each(|(mean, e)| *mean += e / sum);
}
