//! Compares the result of a unit with the part that another worker published first.
//!
//! Units are deterministic up to rounding, so the published part is kept. If the rows differ by more than rounding, one
//! of the two machines computes wrong values, and the user is warned.

use bytes::Bytes;
use clipood_clip::model::Dtype;
use clipood_store::CommitOutcome;

use crate::error::Result;
use crate::job::Job;
use crate::tables::{GlobalFeatures, ScoreValues, read_global, read_score_values};

/// Warns if another worker's features in `path` are not `ours`. Local features come from the same pass and are not
/// compared.
///
/// # Errors
/// A published part that cannot be read.
pub fn compare_features(
    job: &Job,
    path: &str,
    ours: &GlobalFeatures,
    outcome: &CommitOutcome,
) -> Result<()> {
    if let CommitOutcome::LostRace { published, .. } = outcome {
        let theirs = read_global(published.clone(), path)?;
        warn(job, path, features_differ(ours, &theirs, tolerance(job)));
    }
    Ok(())
}

/// Warns if another worker's scores in `path` are not those in `ours`, a part as bytes.
///
/// # Errors
/// A part that cannot be read.
pub fn compare_scores(job: &Job, path: &str, ours: Bytes, outcome: &CommitOutcome) -> Result<()> {
    if let CommitOutcome::LostRace { published, .. } = outcome {
        let ours = read_score_values(ours, path)?;
        let theirs = read_score_values(published.clone(), path)?;
        warn(job, path, scores_differ(&ours, &theirs, tolerance(job)));
    }
    Ok(())
}

/// Largest difference that is taken for rounding, relative to the length of a feature or the largest score of a column.
fn tolerance(job: &Job) -> f32 {
    match job.worker.devices.dtype {
        Dtype::F32 => 1e-3,
        _ => 3e-2,
    }
}

fn warn(job: &Job, path: &str, difference: Option<String>) {
    if let Some(difference) = difference {
        job.worker.reporting.say(&format!(
            "warning: {path}: the part of another worker was first and is kept, but differs from ours: {difference}"
        ));
    }
}

fn features_differ(
    ours: &GlobalFeatures,
    theirs: &GlobalFeatures,
    tolerance: f32,
) -> Option<String> {
    if (&ours.keys, &ours.views, ours.dim) != (&theirs.keys, &theirs.views, theirs.dim) {
        return Some("other images, views or width".to_string());
    }
    let width = ours.dim.max(1);
    let rows = ours
        .values
        .chunks_exact(width)
        .zip(theirs.values.chunks_exact(width));
    let off = rows.map(|(a, b)| {
        let apart: f32 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
        let length: f32 = b.iter().map(|b| b * b).sum();
        (apart / length.max(f32::MIN_POSITIVE)).sqrt()
    });
    let (row, worst) = worst(off)?;
    beyond(worst, tolerance).then(|| {
        format!(
            "{} is off by {worst:.1e} of its length, allowed {tolerance:.0e}",
            ours.keys[row]
        )
    })
}

fn scores_differ(ours: &ScoreValues, theirs: &ScoreValues, tolerance: f32) -> Option<String> {
    if ours.labels != theirs.labels {
        return Some("other images".to_string());
    }
    let names = |values: &ScoreValues| -> Vec<(String, bool)> {
        let columns = values.detectors.iter();
        columns
            .map(|d| (d.detector.clone(), d.values.is_some()))
            .collect()
    };
    if names(ours) != names(theirs) {
        return Some("other columns".to_string());
    }
    for (a, b) in ours.detectors.iter().zip(&theirs.detectors) {
        let (Some(own), Some(other)) = (&a.values, &b.values) else {
            continue;
        };
        let scale = other
            .iter()
            .fold(f32::MIN_POSITIVE, |scale, b| scale.max(b.abs()));
        let off = own.iter().zip(other).map(|(a, b)| (a - b).abs() / scale);
        if let Some((row, worst)) = worst(off)
            && beyond(worst, tolerance)
        {
            return Some(format!(
                "row {row} of `score_{}` is off by {worst:.1e} of the column's largest score, allowed {tolerance:.0e}",
                a.detector
            ));
        }
    }
    None
}

/// Index and size of the largest of `values`; NaN counts as larger than every number.
fn worst(values: impl Iterator<Item = f32>) -> Option<(usize, f32)> {
    values.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b))
}

/// NaN is.
fn beyond(value: f32, limit: f32) -> bool {
    value.is_nan() || value > limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::DetectorScores;

    fn features(values: &[f32]) -> GlobalFeatures {
        GlobalFeatures {
            keys: vec!["a".into(), "b".into()],
            views: vec![-1, -1],
            content_hashes: vec![String::new(), String::new()],
            dim: 2,
            values: values.to_vec(),
        }
    }

    fn scores(values: &[f32]) -> ScoreValues {
        ScoreValues {
            labels: vec![None; values.len()],
            preds: vec![0; values.len()],
            probs: vec![0.5; values.len()],
            detectors: vec![DetectorScores {
                detector: "mcm".into(),
                values: Some(values.to_vec()),
            }],
        }
    }

    #[test]
    fn rounding_is_no_difference_and_more_is_named() {
        let ours = features(&[3.0, 4.0, 0.3, 0.4]);
        assert_eq!(
            features_differ(&ours, &features(&[3.001, 4.0, 0.3, 0.4]), 1e-3),
            None
        );
        let other = features_differ(&ours, &features(&[3.0, 4.0, 0.3, 0.41]), 1e-3).unwrap();
        assert!(other.starts_with("b is off by 2.0e-2"), "{other}");
        let nan = features_differ(&ours, &features(&[3.0, f32::NAN, 0.3, 0.4]), 1e-3).unwrap();
        assert!(nan.starts_with("a is off"), "{nan}");
        let mut fewer = features(&[3.0, 4.0]);
        fewer.keys.pop();
        assert!(features_differ(&ours, &fewer, 1e-3).is_some());
    }

    #[test]
    fn scores_are_compared_column_by_column() {
        let ours = scores(&[0.1, 0.2]);
        assert_eq!(scores_differ(&ours, &scores(&[0.1, 0.20001]), 1e-3), None);
        let other = scores_differ(&ours, &scores(&[0.1, 0.21]), 1e-3).unwrap();
        assert!(other.starts_with("row 1 of `score_mcm`"), "{other}");
        assert!(scores_differ(&ours, &scores(&[0.1]), 1e-3).is_some());
        let mut without = scores(&[0.1, 0.2]);
        without.detectors[0].values = None;
        assert_eq!(
            scores_differ(&ours, &without, 1e-3).unwrap(),
            "other columns"
        );
    }
}
