//! Choosing negative labels from a word list.
//!
//! Jiang et al., "Negative Label Guided OOD Detection with Pretrained Vision-Language Models", ICLR 2024: a word is as near
//! to the classes as the 0.95 quantile of its cosines to their texts, and the 15% farthest words are kept, nouns and
//! adjectives apart (call once for each, with the same class texts). Cost: `candidates * classes * dim` multiplications, in parallel.

use crate::bank::Bank;
use crate::error::OodError;
use crate::fit_inputs::{FitInputs, Prepared, class_means};
use crate::matrix::Matrix;
use rayon::prelude::*;

/// Candidates whose cosines are taken together.
const BLOCK: usize = 256;

/// Rows of `candidates` (text features `[words, dim]`) to use as negative labels for the classes `text` `[classes, dim]`, the
/// farthest first: the share `keep` (0.15 in the paper, rounded down, ties by row) with the lowest `quantile` (0.95) of
/// cosines to the classes, interpolated linearly between order statistics.
///
/// # Errors
/// [`OodError::Mismatch`] and [`OodError::ZeroRow`] for arrays that do not fit, [`OodError::Metric`] for no classes, or
/// `quantile` or `keep` outside [0, 1].
pub fn mine_negative_labels(
    text: &Matrix<'_>,
    candidates: &Matrix<'_>,
    quantile: f64,
    keep: f64,
) -> Result<Vec<u32>, OodError> {
    let share = |x: f64| (0.0..=1.0).contains(&x);
    if text.rows() == 0 || !share(quantile) || !share(keep) {
        return Err(OodError::Metric {
            name: "negative labels".to_owned(),
            problem: format!(
                "need classes, and shares in [0, 1], found {} classes, quantile {quantile}, keep {keep}",
                text.rows()
            ),
        });
    }
    candidates.expect_cols(text.cols(), text.name())?;
    let classes = Bank::new(text.normalized()?, text.cols());
    let words = candidates.normalized()?;
    let nearness: Vec<f64> = words
        .par_chunks(BLOCK * text.cols())
        .flat_map_iter(|block| {
            let mut cosines = Vec::new();
            classes.multiply(block, &mut Vec::new(), &mut cosines);
            cosines
                .chunks_exact_mut(classes.rows())
                .map(|row| interpolated(row, quantile))
                .collect::<Vec<f64>>()
        })
        .collect();
    let mut order: Vec<u32> = (0..candidates.rows() as u32).collect();
    order.sort_by(|&a, &b| nearness[a as usize].total_cmp(&nearness[b as usize]));
    order.truncate((candidates.rows() as f64 * keep) as usize);
    Ok(order)
}

/// Rows of `candidates` (text features `[words, dim]`) that are farther from the shots of every class than the class text is,
/// each with its distance, the farthest first: inter-modal negative labels (InterNeg, Xu et al., CVPR 2026; TINS).
///
/// `p_c` is the normalised mean of the unit shots of class c, and `base_c` the cosine of its text to it; a word w is kept if
/// `w . p_c < base_c` for all classes with shots, and words are ranked by `mean_c (base_c - w . p_c)`, ties by row. `text` is
/// `[classes, dim]`, `shots` `[n, dim]` with a class of `text` for each.
///
/// # Errors
/// [`OodError::Mismatch`], [`OodError::Label`] and [`OodError::ZeroRow`] for arrays that do not fit, and for
/// no shots.
pub fn mine_inter_modal_labels(
    text: &Matrix<'_>,
    shots: &Matrix<'_>,
    labels: &[u32],
    candidates: &Matrix<'_>,
) -> Result<Vec<(u32, f64)>, OodError> {
    let dim = text.cols();
    shots.expect_cols(dim, text.name())?;
    candidates.expect_cols(dim, text.name())?;
    let inputs = FitInputs {
        text: *text,
        negative_text: None,
        train: Some(*shots),
        train_labels: Some(labels),
        classifiers: &[],
    };
    let data = Prepared {
        name: "inter-modal labels",
        inputs: &inputs,
    };
    let (unit, labels) = data.labelled()?;
    let rows = unit.chunks_exact(dim);
    let rows = rows.map(|row| row.iter().map(|&x| f64::from(x)));
    let means = class_means(rows, dim, labels, text.rows());
    let texts = text.normalized()?;
    let (mut prototypes, mut bases) = (Vec::new(), Vec::new());
    for (class, row) in means.row_of.iter().enumerate() {
        let Some(row) = *row else { continue };
        let mean = &means.means[row * dim..(row + 1) * dim];
        let length = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
        let unit: Vec<f32> = mean
            .iter()
            .map(|x| (x / length.max(1e-30)) as f32)
            .collect();
        let text = &texts[class * dim..(class + 1) * dim];
        let base: f64 = unit
            .iter()
            .zip(text)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum();
        prototypes.extend(unit);
        bases.push(base);
    }
    let prototypes = Bank::new(prototypes, dim);
    let words = candidates.normalized()?;
    let distances: Vec<Option<f64>> = words
        .par_chunks(BLOCK * dim)
        .flat_map_iter(|block| {
            let mut cosines = Vec::new();
            prototypes.multiply(block, &mut Vec::new(), &mut cosines);
            let rows = cosines.chunks_exact(bases.len());
            let distance = |row: &[f32]| -> Option<f64> {
                let mut sum = 0.0;
                for (cosine, base) in row.iter().zip(&bases) {
                    let difference = base - f64::from(*cosine);
                    if difference <= 0.0 {
                        return None;
                    }
                    sum += difference;
                }
                Some(sum / bases.len() as f64)
            };
            rows.map(distance).collect::<Vec<_>>()
        })
        .collect();
    let kept = (0u32..).zip(distances);
    let mut kept: Vec<(u32, f64)> = kept.filter_map(|(row, d)| Some((row, d?))).collect();
    kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    Ok(kept)
}

/// A quantile by linear interpolation between order statistics; reorders `values`, of which there is at least one.
fn interpolated(values: &mut [f32], quantile: f64) -> f64 {
    let at = quantile * (values.len() - 1) as f64;
    let (_, below, above) = values.select_nth_unstable_by(at as usize, f32::total_cmp);
    let below = f64::from(*below);
    let next = above.iter().copied().reduce(f32::min);
    next.map_or(below, |next| below + at.fract() * (f64::from(next) - below))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_farthest_words_are_kept() {
        let text = Matrix::new("text", &[1.0, 0.0, 0.8, 0.6], 2, 2).unwrap();
        let words = [1.0, 0.1, -1.0, 0.0, 0.0, 1.0, -0.6, 0.8];
        let words = Matrix::new("words", &words, 4, 2).unwrap();
        let found = |keep| mine_negative_labels(&text, &words, 0.95, keep).unwrap();
        assert_eq!(found(1.0), [1, 3, 2, 0]);
        assert_eq!(found(0.74), [1, 3]);
        assert!(found(0.0).is_empty());
        assert!(mine_negative_labels(&text, &words, 1.5, 0.5).is_err());
        assert!(mine_negative_labels(&text, &words, 0.5, f64::NAN).is_err());
    }

    proptest! {
        #[test]
        fn quantile_interpolates_the_sorted_values(
            values in prop::collection::vec(-1.0f32..1.0, 1..40),
            quantile in 0.0..=1.0f64,
        ) {
            let mut sorted: Vec<f64> = values.iter().map(|&x| f64::from(x)).collect();
            sorted.sort_by(f64::total_cmp);
            let at = quantile * (sorted.len() - 1) as f64;
            let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
            let expected = low + at.fract() * (high - low);
            prop_assert!((interpolated(&mut values.clone(), quantile) - expected).abs() < 1e-12);
        }
    }
}
