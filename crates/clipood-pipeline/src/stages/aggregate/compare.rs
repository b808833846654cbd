//! The summary over seeds and the paired comparison with zero-shot.

use clipood_ood::metrics::{
    BootstrapOptions, Interval, PairedDifference, Resamples, ScorePair, mean_std, ood_metrics,
};

use super::lines::Line;
use crate::error::Result;
use crate::metrics::AVERAGE;
use crate::prompts::key::PromptKey;
use crate::tables::{AccuracyRow, OodRow, PairedRow, SummaryRow};

/// Mean and standard deviation over seeds of every line of the OOD table, in the order of its first rows.
pub fn summarise(ood: &[OodRow], accuracy: &[AccuracyRow]) -> Vec<SummaryRow> {
    let same = |row: &OodRow, s: &SummaryRow| {
        row.method == s.method
            && row.shots == s.shots
            && row.ood_dataset == s.ood_dataset
            && row.detector == s.detector
            && row.selection == s.selection
            && row.scaling == s.scaling
    };
    let mut groups: Vec<(SummaryRow, Vec<&OodRow>)> = Vec::new();
    for row in ood {
        match groups.iter_mut().find(|(s, _)| same(row, s)) {
            Some((_, rows)) => rows.push(row),
            None => {
                let summary = SummaryRow {
                    method: row.method.clone(),
                    shots: row.shots,
                    id_dataset: row.id_dataset.clone(),
                    ood_dataset: row.ood_dataset.clone(),
                    detector: row.detector.clone(),
                    selection: row.selection.clone(),
                    scaling: row.scaling.clone(),
                    ..SummaryRow::default()
                };
                groups.push((summary, vec![row]));
            }
        }
    }
    groups
        .into_iter()
        .map(|(mut s, rows)| {
            s.seeds = rows.len() as u32;
            let over = |figure: &dyn Fn(&OodRow) -> f64, mean: &mut f64, std: &mut Option<f64>| {
                let values: Vec<f64> = rows.iter().map(|row| figure(row)).collect();
                if let Some(found) = mean_std(&values) {
                    (*mean, *std) = (found.mean, found.std);
                }
            };
            over(&|r| r.auroc, &mut s.auroc, &mut s.auroc_std);
            over(&|r| r.fpr95, &mut s.fpr95, &mut s.fpr95_std);
            over(
                &|r| r.fpr95_openood,
                &mut s.fpr95_openood,
                &mut s.fpr95_openood_std,
            );
            over(&|r| r.aupr_in, &mut s.aupr_in, &mut s.aupr_in_std);
            over(&|r| r.aupr_out, &mut s.aupr_out, &mut s.aupr_out_std);
            let top1 = |r: &OodRow| {
                let own = accuracy.iter().find(|a| a.prompt == r.prompt);
                own.map_or(f64::NAN, |a| a.top1)
            };
            over(&top1, &mut s.top1, &mut s.top1_std);
            s
        })
        .collect()
}

/// The baseline's scores of a line on which trained prompt sets may be compared.
pub struct Baseline {
    /// Name of the prompt set.
    pub prompt: String,
    /// Detector of the line.
    pub detector: String,
    /// ID and OOD scores, by OOD set.
    pub pairs: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Baseline {
    /// Copies a line of the prompt set called `prompt`.
    pub fn keep(prompt: String, line: &Line<'_>) -> Self {
        let pairs = line.pairs.iter();
        Self {
            prompt,
            detector: line.detector.clone(),
            pairs: pairs
                .map(|pair| (pair.id.to_vec(), pair.ood.to_vec()))
                .collect(),
        }
    }
}

/// Compares a trained prompt set with the baseline on each OOD set, and on their average. The images of both are the
/// same, in the same order, because the quarantine does not depend on prompt sets.
///
/// # Errors
/// Scores that are NaN.
pub fn compare(
    key: &PromptKey,
    id_dataset: &str,
    sets: &[String],
    line: &Line<'_>,
    baseline: &Baseline,
    options: &BootstrapOptions,
) -> Result<Vec<PairedRow>> {
    let row = |set: &str, (auroc, fpr95): (f64, f64), difference: &PairedDifference| {
        let Interval { lo, hi } = difference.auroc;
        PairedRow {
            prompt: key.name(),
            method: key.method.to_string(),
            shots: key.shots.map(|s| s as u32),
            seed: key.seed,
            baseline: baseline.prompt.clone(),
            id_dataset: id_dataset.to_string(),
            ood_dataset: set.to_string(),
            detector: baseline.detector.clone(),
            auroc_diff: auroc,
            auroc_diff_lo: lo,
            auroc_diff_hi: hi,
            auroc_larger: difference.auroc_larger,
            fpr95_diff: fpr95,
            fpr95_diff_lo: difference.fpr95.lo,
            fpr95_diff_hi: difference.fpr95.hi,
            fpr95_smaller: difference.fpr95_smaller,
        }
    };
    let (mut rows, mut drawn) = (Vec::new(), Vec::new());
    for ((set, pair), (base_id, base_ood)) in sets.iter().zip(&line.pairs).zip(&baseline.pairs) {
        let own = ood_metrics(&pair.id, &pair.ood)?;
        let base = ood_metrics(base_id, base_ood)?;
        let own_scores = ScorePair {
            id: &pair.id,
            ood: &pair.ood,
        };
        let base_scores = ScorePair {
            id: base_id,
            ood: base_ood,
        };
        let resamples = Resamples::draw(&[own_scores, base_scores], options)?;
        let differences = (own.auroc - base.auroc, own.fpr95 - base.fpr95);
        rows.push(row(set, differences, &resamples.difference(0, 1)));
        drawn.push(resamples);
    }
    let mean = |figure: fn(&PairedRow) -> f64| {
        rows.iter().map(figure).sum::<f64>() / rows.len().max(1) as f64
    };
    let means = (mean(|r| r.auroc_diff), mean(|r| r.fpr95_diff));
    if let Some(average) = Resamples::average(&drawn.iter().collect::<Vec<_>>()) {
        rows.push(row(AVERAGE, means, &average.difference(0, 1)));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_takes_mean_and_deviation_over_seeds_only() {
        let row = |seed: u64, set: &str, auroc: f64| OodRow {
            prompt: format!("coop-{seed}"),
            method: "coop".into(),
            shots: Some(1),
            seed: Some(seed),
            ood_dataset: set.into(),
            detector: "mcm".into(),
            auroc,
            ..OodRow::default()
        };
        let rows = [
            row(1, "a", 0.7),
            row(1, "b", 0.1),
            row(2, "a", 0.8),
            row(3, "a", 0.9),
        ];
        let accuracy: Vec<AccuracyRow> = [0.5, 0.6, 0.7]
            .iter()
            .zip(1..)
            .map(|(top1, seed)| AccuracyRow {
                prompt: format!("coop-{seed}"),
                top1: *top1,
                ..AccuracyRow::default()
            })
            .collect();
        let summary = summarise(&rows, &accuracy);
        assert_eq!(summary.len(), 2);
        assert_eq!(summary[0].seeds, 3);
        assert!((summary[0].auroc - 0.8).abs() < 1e-12);
        assert!((summary[0].auroc_std.unwrap() - 0.1).abs() < 1e-12);
        assert!((summary[0].top1 - 0.6).abs() < 1e-12);
        assert_eq!((summary[1].seeds, summary[1].auroc_std), (1, None));
    }
}
