//! Against a plain f64 implementation, on features whose lengths differ widely.

use crate::{DetectorSpec, FitInputs, FittedDetector, Matrix, ScoreInputs, fit, score_all};
use clipood_core::SplitMix64;

const DIM: usize = 6;
const CLASSES: usize = 4;
const SHOTS: usize = 80;
const IMAGES: usize = 30;

/// Features around one center per class, with lengths that differ by three orders of magnitude.
fn features(rng: &mut SplitMix64, rows: usize) -> Vec<f32> {
    let mut out = Vec::new();
    for row in 0..rows {
        let length = 30f64.powf(2.0 * rng.unit() - 1.0);
        for d in 0..DIM {
            let center = if d == row % CLASSES { 1.0 } else { 0.3 };
            out.push((length * (center + 0.5 * (rng.unit() - 0.5))) as f32);
        }
    }
    out
}

fn labels() -> Vec<u32> {
    (0..SHOTS as u32).map(|i| i % CLASSES as u32).collect()
}

fn wide(rows: &[f32], normalize: bool) -> Vec<Vec<f64>> {
    rows.chunks_exact(DIM)
        .map(|row| {
            let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            let divisor = if normalize { length } else { 1.0 };
            row.iter().map(|x| x / divisor).collect()
        })
        .collect()
}

fn mean<'a>(rows: impl Iterator<Item = &'a Vec<f64>> + Clone) -> Vec<f64> {
    let n = rows.clone().count() as f64;
    (0..DIM)
        .map(|d| rows.clone().map(|row| row[d]).sum::<f64>() / n)
        .collect()
}

fn less(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// `sum x x^T / n`.
fn covariance(residuals: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n = residuals.len() as f64;
    let cell = |i: usize, j: usize| residuals.iter().map(|x| x[i] * x[j]).sum::<f64>() / n;
    (0..DIM)
        .map(|i| (0..DIM).map(|j| cell(i, j)).collect())
        .collect()
}

/// `x^T A^-1 x` by Gaussian elimination.
fn distance(matrix: &[Vec<f64>], x: &[f64]) -> f64 {
    let mut rows: Vec<Vec<f64>> = matrix
        .iter()
        .zip(x)
        .map(|(row, x)| [row.as_slice(), &[*x]].concat())
        .collect();
    for i in 0..DIM {
        let pivot = (i..DIM)
            .max_by(|&a, &b| rows[a][i].abs().total_cmp(&rows[b][i].abs()))
            .unwrap();
        rows.swap(i, pivot);
        for r in i + 1..DIM {
            let factor = rows[r][i] / rows[i][i];
            let upper = rows[i].clone();
            for (x, above) in rows[r].iter_mut().zip(upper) {
                *x -= factor * above;
            }
        }
    }
    let mut y = vec![0.0; DIM];
    for i in (0..DIM).rev() {
        let known: f64 = (i + 1..DIM).map(|j| rows[i][j] * y[j]).sum();
        y[i] = (rows[i][DIM] - known) / rows[i][i];
    }
    x.iter().zip(&y).map(|(x, y)| x * y).sum()
}

/// `- min_k d_k(f)` and `- (min_k d_k(f) - d_0(f))` of each image.
fn oracle(train: &[f32], images: &[f32], normalize: bool) -> [Vec<f64>; 2] {
    let (train, images) = (wide(train, normalize), wide(images, normalize));
    let means: Vec<Vec<f64>> = (0..CLASSES)
        .map(|k| mean(train.iter().skip(k).step_by(CLASSES)))
        .collect();
    let all = mean(train.iter());
    let residuals: Vec<Vec<f64>> = train
        .iter()
        .enumerate()
        .map(|(i, row)| less(row, &means[i % CLASSES]))
        .collect();
    let tied = covariance(&residuals);
    let background: Vec<Vec<f64>> = train.iter().map(|row| less(row, &all)).collect();
    let background = covariance(&background);
    let class: Vec<f64> = images
        .iter()
        .map(|f| {
            let distances = means.iter().map(|mean| distance(&tied, &less(f, mean)));
            -distances.fold(f64::INFINITY, f64::min)
        })
        .collect();
    let relative = images
        .iter()
        .zip(&class)
        .map(|(f, class)| class + distance(&background, &less(f, &all)))
        .collect();
    [class, relative]
}

#[test]
fn raw_and_normalised_distances_match_plain_sums() {
    let mut rng = SplitMix64::keyed(1, "mahalanobis", 0);
    let (train, images) = (features(&mut rng, SHOTS), features(&mut rng, IMAGES));
    let text = features(&mut rng, CLASSES);
    let (labels, text) = (labels(), Matrix::new("text", &text, CLASSES, DIM).unwrap());
    let inputs = FitInputs {
        text,
        negative_text: None,
        train: Some(Matrix::new("train", &train, SHOTS, DIM).unwrap()),
        train_labels: Some(&labels),
        classifiers: &[],
    };
    let global = Matrix::new("images", &images, IMAGES, DIM).unwrap();
    let score = |detectors: &[FittedDetector]| {
        let inputs = ScoreInputs {
            global,
            local: None,
        };
        score_all(detectors, &text, &inputs).unwrap().columns
    };
    let specs = [
        ("mahalanobis", 0, true),
        ("relative_mahalanobis", 1, true),
        ("mahalanobis:normalize=false", 0, false),
        ("relative_mahalanobis:normalize=false", 1, false),
    ];
    let detectors: Vec<FittedDetector> = specs
        .iter()
        .map(|(spec, ..)| fit(&spec.parse().unwrap(), &inputs).unwrap())
        .collect();
    let together = score(&detectors);
    for (i, (spec, which, normalize)) in specs.into_iter().enumerate() {
        assert!(detectors[i].notes().is_empty());
        let expected = &oracle(&train, &images, normalize)[which];
        let largest = expected.iter().fold(0.0f64, |a, x| a.max(x.abs()));
        for (found, expected) in together[i].iter().zip(expected) {
            let error = (f64::from(*found) - expected).abs() / largest;
            assert!(error < 1e-5, "{spec}: {found}, expected {expected}");
        }
        let json = serde_json::to_string(&detectors[i]).unwrap();
        assert_eq!(json.contains("\"raw\":true"), !normalize);
        assert_eq!(json.contains("raw"), !normalize);
        let restored: FittedDetector = serde_json::from_str(&json).unwrap();
        assert_eq!(score(&[restored])[0], together[i]);
        // What was learned on raw features is no model of normalised ones, nor the other way round.
        let other = match normalize {
            true => json.replace(spec, &format!("{spec}:normalize=false")),
            false => json.replace(":normalize=false", ""),
        };
        let wrong: FittedDetector = serde_json::from_str(&other).unwrap();
        assert!(wrong.check().is_err(), "{other}");
    }
    assert_ne!(together[0], together[2]);
    assert_ne!(together[1], together[3]);
    let written: DetectorSpec = "mahalanobis:normalize=true".parse().unwrap();
    assert_eq!(written.to_string(), "mahalanobis");
}

#[test]
fn equal_raw_shots_have_no_covariance() {
    let fail = |value: f32| {
        let train = [value, 2.0 * value].repeat(3);
        let inputs = FitInputs {
            text: Matrix::new("text", &[1.0, 0.0], 1, 2).unwrap(),
            negative_text: None,
            train: Some(Matrix::new("train", &train, 3, 2).unwrap()),
            train_labels: Some(&[0, 0, 0]),
            classifiers: &[],
        };
        let spec = "mahalanobis:normalize=false".parse().unwrap();
        fit(&spec, &inputs).unwrap_err().to_string()
    };
    for value in [0.0, 1e-20, 0.3, 1e20] {
        assert!(fail(value).contains("two different shots"), "{value}");
    }
}
