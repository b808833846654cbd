//! The lines of the OOD table for one prompt set: every detector with its given parameters, with a chosen parameter,
//! and fused.
//!
//! A line is a score of the ID images and of each OOD set under one rule. The selection tells which images the rule has
//! used to choose: `fixed` none, `validation` images that are not tested, `oracle` and `oracle-shared` the tested
//! images themselves. What is chosen maximises AUROC - FPR95, with `oracle-shared` its mean over the OOD sets.

use std::borrow::Cow;

use clipood_ood::metrics::{OodMetrics, Selection, average, ood_metrics, select_best};
use clipood_ood::{DualPatternScaling, Scaling, best_beta, beta_grid, fuse_dual_pattern};

use super::scores::{DatasetScores, Scored};
use crate::columns::{Candidates, ColumnPurpose, DUAL_BASE, DUAL_NEG_MIN_KL};
use crate::error::{PipelineError, Result};
use crate::experiment::Experiment;
use crate::metrics::DUAL_PATTERN;

/// Scores of the ID images and of one OOD set under one rule. The fused ID score depends on the OOD set.
pub struct LinePair<'a> {
    /// Scores of the ID images.
    pub id: Cow<'a, [f32]>,
    /// Scores of the OOD images.
    pub ood: Cow<'a, [f32]>,
    /// What was chosen, as `t=0.5`.
    pub hyperparameters: Option<String>,
}

/// One rule on every OOD set.
pub struct Line<'a> {
    /// Detector, as the tables name it.
    pub detector: String,
    /// Which images the rule has used to choose.
    pub selection: Selection,
    /// Scaling of a fused score.
    pub scaling: Option<Scaling>,
    /// By OOD set.
    pub pairs: Vec<LinePair<'a>>,
}

/// All lines of a prompt set.
///
/// # Errors
/// Scores that are not finite, a divergence without a range.
pub fn lines<'a>(
    experiment: &Experiment,
    test: &'a Scored,
    validation: Option<&'a Scored>,
) -> Result<Vec<Line<'a>>> {
    let mut all = Vec::new();
    let listed = experiment.columns.iter();
    for column in listed.filter(|column| column.purpose == ColumnPurpose::Listed) {
        if let Some(pairs) = pairs_of(test, &column.name, None) {
            all.push(Line {
                detector: column.name.clone(),
                selection: Selection::Fixed,
                scaling: None,
                pairs,
            });
        }
    }
    for candidates in &experiment.selections {
        all.extend(selected(candidates, test, validation)?);
    }
    if test.id.column(DUAL_BASE).is_some() {
        all.extend(fused(
            experiment.recipe.dual_pattern.beta,
            test,
            validation,
        )?);
    }
    Ok(all)
}

/// The scores of a column for every pair.
fn pairs_of<'a>(
    scored: &'a Scored,
    column: &str,
    chosen: Option<&str>,
) -> Option<Vec<LinePair<'a>>> {
    let id = scored.id.column(column)?;
    scored
        .ood
        .iter()
        .map(|ood| {
            Some(LinePair {
                id: Cow::Borrowed(id),
                ood: Cow::Borrowed(ood.column(column)?),
                hyperparameters: chosen.map(String::from),
            })
        })
        .collect()
}

/// The metrics of a column for every pair.
fn figures(scored: &Scored, column: &str) -> Result<Vec<OodMetrics>> {
    let pairs = pairs_of(scored, column, None).unwrap_or_default();
    let figures = pairs
        .iter()
        .map(|pair| Ok(ood_metrics(&pair.id, &pair.ood)?));
    figures.collect()
}

/// Index of the candidate with the best average.
fn best_on_average(scored: &Scored, candidates: &Candidates) -> Result<usize> {
    let mut averages = Vec::new();
    for (_, column) in &candidates.values {
        let figures = figures(scored, column)?;
        averages.push(average(&figures).ok_or_else(|| {
            PipelineError::Inconsistent(format!("column `score_{column}` has no OOD set"))
        })?);
    }
    Ok(select_best(&averages)?)
}

/// The lines of one chosen parameter: on validation data if there are any, and the two oracles.
fn selected<'a>(
    candidates: &Candidates,
    test: &'a Scored,
    validation: Option<&'a Scored>,
) -> Result<Vec<Line<'a>>> {
    let first = candidates.values.first();
    if first.is_none_or(|(_, column)| test.id.column(column).is_none()) {
        return Ok(Vec::new());
    }
    let shared = |place: usize, selection| -> Option<Line<'a>> {
        let (label, column) = &candidates.values[place];
        Some(Line {
            detector: candidates.detector.clone(),
            selection,
            scaling: None,
            pairs: pairs_of(test, column, Some(label))?,
        })
    };
    let mut all = Vec::new();
    if let Some(validation) = validation {
        let place = best_on_average(validation, candidates)?;
        all.extend(shared(place, Selection::Validation));
    }
    let mut pairs = Vec::new();
    for (set, ood) in test.ood.iter().enumerate() {
        let by_candidate = candidates
            .values
            .iter()
            .map(|(_, column)| Ok(figures(test, column)?.swap_remove(set)))
            .collect::<Result<Vec<_>>>()?;
        let (label, column) = &candidates.values[select_best(&by_candidate)?];
        if let (Some(id), Some(ood)) = (test.id.column(column), ood.column(column)) {
            pairs.push(LinePair {
                id: Cow::Borrowed(id),
                ood: Cow::Borrowed(ood),
                hyperparameters: Some(label.clone()),
            });
        }
    }
    all.push(Line {
        detector: candidates.detector.clone(),
        selection: Selection::Oracle,
        scaling: None,
        pairs,
    });
    all.extend(shared(
        best_on_average(test, candidates)?,
        Selection::OracleShared,
    ));
    Ok(all)
}

/// Both components of the fused score.
struct Halves<'a> {
    base: &'a [f32],
    neg_min_kl: &'a [f32],
}

fn halves(scores: &DatasetScores) -> Result<Halves<'_>> {
    let column = |name: &str| {
        scores.column(name).ok_or_else(|| {
            PipelineError::Inconsistent(format!("{}: column `score_{name}` is empty", scores.name))
        })
    };
    Ok(Halves {
        base: column(DUAL_BASE)?,
        neg_min_kl: column(DUAL_NEG_MIN_KL)?,
    })
}

/// Components for the ID images and for every OOD set.
fn all_halves(scored: &Scored) -> Result<(Halves<'_>, Vec<Halves<'_>>)> {
    let ood = scored.ood.iter().map(halves).collect::<Result<Vec<_>>>()?;
    Ok((halves(&scored.id)?, ood))
}

/// The dual-pattern lines: with beta from the recipe and ranges over the training crops; with both from validation data
/// if there are any; and as in the dual-pattern repository, with ranges over each tested pair and beta chosen on it.
fn fused<'a>(beta: f64, test: &'a Scored, validation: Option<&'a Scored>) -> Result<Vec<Line<'a>>> {
    let (id, ood) = all_halves(test)?;
    let line = |selection, scaling, rules: Vec<(DualPatternScaling, f64)>| -> Result<Line<'a>> {
        let pairs = ood
            .iter()
            .zip(rules)
            .map(|(ood, (ranges, beta))| {
                Ok(LinePair {
                    id: Cow::Owned(fuse_dual_pattern(&ranges, id.base, id.neg_min_kl, beta)?),
                    ood: Cow::Owned(fuse_dual_pattern(&ranges, ood.base, ood.neg_min_kl, beta)?),
                    hyperparameters: Some(format!("beta={beta:.1}")),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Line {
            detector: DUAL_PATTERN.to_string(),
            selection,
            scaling: Some(scaling),
            pairs,
        })
    };
    let train = test.id.train_ranges.as_deref().ok_or_else(|| {
        PipelineError::Inconsistent(format!(
            "{}: no ranges over the training crops",
            test.id.name
        ))
    })?;
    let train: DualPatternScaling = serde_json::from_str(train)
        .map_err(|e| PipelineError::Inconsistent(format!("{}: {e}", test.id.name)))?;
    let same = |ranges, beta| vec![(ranges, beta); ood.len()];
    let mut all = vec![line(
        Selection::Fixed,
        Scaling::Calibrated,
        same(train, beta),
    )?];
    if let Some(validation) = validation {
        let (id, ood) = all_halves(validation)?;
        let over = |half: fn(&Halves<'a>) -> &'a [f32]| -> Vec<f32> {
            let ood = ood.iter().flat_map(|set| half(set).iter().copied());
            half(&id).iter().copied().chain(ood).collect()
        };
        let ranges = DualPatternScaling::calibrated(&over(|h| h.base), &over(|h| h.neg_min_kl))?;
        let pairs: Vec<_> = ood
            .iter()
            .map(|ood| {
                let id = (id.base, id.neg_min_kl);
                (&ranges, id, (ood.base, ood.neg_min_kl))
            })
            .collect();
        let beta = best_beta(&pairs)?;
        all.push(line(
            Selection::Validation,
            Scaling::Calibrated,
            same(ranges, beta),
        )?);
    }
    let ranges = ood
        .iter()
        .map(|ood| {
            Ok(DualPatternScaling::transductive(
                id.base,
                ood.base,
                id.neg_min_kl,
                ood.neg_min_kl,
            )?)
        })
        .collect::<Result<Vec<_>>>()?;
    let pairs: Vec<_> = ranges
        .iter()
        .zip(&ood)
        .map(|(ranges, ood)| {
            let id = (id.base, id.neg_min_kl);
            (ranges, id, (ood.base, ood.neg_min_kl))
        })
        .collect();
    let fixed = ranges.iter().map(|r| (*r, beta)).collect();
    all.push(line(Selection::Fixed, Scaling::Transductive, fixed)?);
    let own = pairs
        .iter()
        .map(|pair| Ok((*pair.0, best_beta(std::slice::from_ref(pair))?)))
        .collect::<Result<Vec<_>>>()?;
    all.push(line(Selection::Oracle, Scaling::Transductive, own)?);
    let beta = best_beta(&pairs)?;
    debug_assert!(beta_grid().any(|b| b == beta));
    let shared = ranges.iter().map(|r| (*r, beta)).collect();
    all.push(line(
        Selection::OracleShared,
        Scaling::Transductive,
        shared,
    )?);
    Ok(all)
}
