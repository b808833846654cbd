//! Warnings about the scores of a run.

use clipood_ood::metrics::LOW_RESOLUTION;

use super::headline::{detectors, is_average};
use super::table::percent;
use crate::metrics::Metrics;

/// A warning for each detector with many equal scores, about the worst of its rows.
pub fn warnings(metrics: &Metrics) -> Vec<String> {
    let warning = |detector: &&str| {
        let own = metrics.ood.iter().filter(|row| row.detector == **detector);
        // An average has no images of its own.
        let coarse = own.filter(|row| {
            row.score_resolution < LOW_RESOLUTION && row.n_id > 0 && !is_average(&row.ood_dataset)
        });
        let worst = coarse
            .clone()
            .min_by(|a, b| a.score_resolution.total_cmp(&b.score_resolution))?;
        let others = match coarse.count() - 1 {
            0 => String::new(),
            others => format!(
                ", and below {}% in {others} more rows",
                100.0 * LOW_RESOLUTION
            ),
        };
        Some(format!(
            "{detector} of {} on {}: {}% of the scores are distinct{others}; ties count as half",
            worst.prompt,
            worst.ood_dataset,
            percent(worst.score_resolution)
        ))
    };
    detectors(&metrics.ood).iter().filter_map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::AVERAGE;
    use crate::tables::OodRow;

    #[test]
    fn coarse_scores_are_named_once_for_each_detector() {
        let row = |detector: &str, set: &str, score_resolution: f64| OodRow {
            prompt: "zero-shot".into(),
            detector: detector.into(),
            ood_dataset: set.into(),
            n_id: 10,
            score_resolution,
            ..OodRow::default()
        };
        let metrics = Metrics {
            ood: vec![
                row("mcm", "a & b", 1.0),
                row("msp", "a & b", 0.009),
                row("msp", "c", 0.899),
                // An average has no images of its own.
                row("msp", AVERAGE, 0.001),
            ],
            ..Metrics::default()
        };
        let warning = "msp of zero-shot on a & b: 0.90% of the scores are distinct, and below 90% in 1 more rows; ties count as half";
        assert_eq!(warnings(&metrics), [warning]);
    }
}
