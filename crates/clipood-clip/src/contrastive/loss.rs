//! CLIP's symmetric contrastive loss, with pairs of the same image or the same caption counted as positives of each other.

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// The loss and the logits it was computed from.
#[derive(Debug, Clone)]
pub struct Contrast<B: Backend> {
    /// Mean of the image-to-text and text-to-image cross entropies, `[1]`.
    pub loss: Tensor<B, 1>,
    /// `scale * cosine`, `[images, captions]`.
    pub logits: Tensor<B, 2>,
}

/// Whether two pairs of a batch belong together: they share the number of their image or of their caption.
fn is_positive(a: (u32, u32), b: (u32, u32)) -> bool {
    a.0 == b.0 || a.1 == b.1
}

/// `image` and `text` are normalised features `[batch, D]`, `scale` `[1]` is the factor on cosines, `pairs` the numbers of
/// image and caption of each row. If all are different, this is the loss of Radford et al. 2021, figure 3; a row with n
/// positives has n targets of 1 / n.
pub fn contrastive_loss<B: Backend>(
    image: Tensor<B, 2>,
    text: Tensor<B, 2>,
    scale: Tensor<B, 1>,
    pairs: &[(u32, u32)],
) -> Contrast<B> {
    let n = pairs.len();
    let device = image.device();
    let mut targets = vec![0f32; n * n];
    for (row, pair) in targets.chunks_exact_mut(n.max(1)).zip(pairs) {
        let positives = pairs.iter().filter(|other| is_positive(*pair, **other));
        let share = 1.0 / positives.count() as f32;
        for (target, other) in row.iter_mut().zip(pairs) {
            if is_positive(*pair, *other) {
                *target = share;
            }
        }
    }
    let targets = Tensor::<B, 2>::from_data(TensorData::new(targets, [n, n]), &device);
    let logits = image.matmul(text.transpose()) * scale.reshape([1, 1]);
    // Being a positive is mutual, so the columns have the targets of the rows. Summed row by row first, so that the sum of a
    // large batch does not depend on how threads divide it.
    let by_image = (log_softmax(logits.clone(), 1) * targets.clone()).sum_dim(1);
    let by_text = (log_softmax(logits.clone(), 0) * targets.transpose()).sum_dim(1);
    Contrast {
        loss: (by_image + by_text).sum() * (-0.5 / n as f64),
        logits,
    }
}

/// Number of rows of `logits` `[batch, batch]` whose largest value, the first of several, is at a positive.
pub fn count_right(logits: &[f32], pairs: &[(u32, u32)]) -> usize {
    let rows = logits.chunks_exact(pairs.len().max(1)).zip(pairs);
    rows.filter(|(row, pair)| {
        let best = (0..row.len()).reduce(|a, b| if row[b] > row[a] { b } else { a });
        best.is_some_and(|best| is_positive(**pair, pairs[best]))
    })
    .count()
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use clipood_core::SplitMix64;

    use super::*;
    use crate::encoder::normalise;
    use crate::weights::tensor_to_vec;

    fn features(values: [f32; 4]) -> Tensor<Flex, 2> {
        Tensor::from_data(
            TensorData::new(values.to_vec(), [2, 2]),
            &Default::default(),
        )
    }

    fn loss(pairs: [(u32, u32); 2]) -> f32 {
        let same = features([1.0, 0.0, 0.0, 1.0]);
        let scale = Tensor::from_floats([2.0], &Default::default());
        contrastive_loss(same.clone(), same, scale, &pairs)
            .loss
            .into_scalar()
    }

    #[test]
    fn equals_cross_entropy_by_hand() {
        // Logits [[2, 0], [0, 2]]: -ln(e^2 / (e^2 + 1)) each way.
        let expected = (1.0f32 + (-2.0f32).exp()).ln();
        assert!((loss([(0, 0), (1, 1)]) - expected).abs() < 1e-6);
    }

    #[test]
    fn equal_captions_and_equal_images_share_the_target() {
        // Half of the target mass belongs to each column.
        let expected = 0.5 * (1.0f32 + (-2.0f32).exp()).ln() + 0.5 * (1.0f32 + 2.0f32.exp()).ln();
        assert!((loss([(0, 0), (1, 0)]) - expected).abs() < 1e-6);
        assert!((loss([(0, 0), (0, 1)]) - expected).abs() < 1e-6);
    }

    /// The loss in float64, by its definition: for every row and every column the cross entropy against its positives.
    fn plain(image: &[f64], text: &[f64], log_scale: f64, pairs: &[(u32, u32)]) -> f64 {
        let n = pairs.len();
        let dim = image.len() / n;
        let unit = |x: &[f64]| -> Vec<f64> {
            x.chunks_exact(dim)
                .flat_map(|row| {
                    let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
                    row.iter().map(move |v| v / norm)
                })
                .collect()
        };
        let (image, text) = (unit(image), unit(text));
        let logit = |i: usize, j: usize| {
            let cosine: f64 = (0..dim)
                .map(|k| image[i * dim + k] * text[j * dim + k])
                .sum();
            log_scale.exp() * cosine
        };
        let mut sum = 0.0;
        for i in 0..n {
            let positives: Vec<usize> = (0..n)
                .filter(|j| pairs[i].0 == pairs[*j].0 || pairs[i].1 == pairs[*j].1)
                .collect();
            let row: f64 = (0..n).map(|j| logit(i, j).exp()).sum();
            let column: f64 = (0..n).map(|j| logit(j, i).exp()).sum();
            for j in &positives {
                let share = 1.0 / positives.len() as f64;
                sum -= share * (logit(i, *j) - row.ln());
                sum -= share * (logit(*j, i) - column.ln());
            }
        }
        sum / (2 * n) as f64
    }

    #[test]
    fn loss_and_gradients_are_those_of_float64() {
        type B = Autodiff<Flex>;
        let (n, dim) = (6, 5);
        // The third pair has the image of the first, the last the caption of the second.
        let pairs = [(0, 0), (1, 1), (0, 2), (3, 3), (4, 4), (5, 1)];
        let mut rng = SplitMix64::keyed(3, "pairs", 0);
        let mut drawn = || -> Vec<f64> { (0..n * dim).map(|_| rng.normal()).collect() };
        let (image, text, log_scale) = (drawn(), drawn(), 1.3f64);
        let tensor = |values: &[f64]| {
            let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
            Tensor::<B, 2>::from_data(TensorData::new(values, [n, dim]), &Default::default())
                .require_grad()
        };
        let (x, y) = (tensor(&image), tensor(&text));
        let s = Tensor::<B, 1>::from_floats([log_scale as f32], &Default::default()).require_grad();
        let found = contrastive_loss(
            normalise(x.clone()),
            normalise(y.clone()),
            s.clone().exp(),
            &pairs,
        );
        let expected = plain(&image, &text, log_scale, &pairs);
        let loss: f32 = found.loss.clone().into_scalar();
        assert!(
            (f64::from(loss) - expected).abs() < 1e-5,
            "{loss} {expected}"
        );
        let grads = found.loss.backward();
        let step = 1e-5;
        let slope = |at: &dyn Fn(f64) -> f64| (at(step) - at(-step)) / (2.0 * step);
        let moved = |values: &[f64], i: usize, by: f64| {
            let mut values = values.to_vec();
            values[i] += by;
            values
        };
        let of_image = tensor_to_vec(x.grad(&grads).unwrap());
        let of_text = tensor_to_vec(y.grad(&grads).unwrap());
        for i in 0..n * dim {
            let expected = slope(&|by| plain(&moved(&image, i, by), &text, log_scale, &pairs));
            assert!(
                (f64::from(of_image[i]) - expected).abs() < 1e-5,
                "image {i}"
            );
            let expected = slope(&|by| plain(&image, &moved(&text, i, by), log_scale, &pairs));
            assert!((f64::from(of_text[i]) - expected).abs() < 1e-5, "text {i}");
        }
        let of_scale = tensor_to_vec(s.grad(&grads).unwrap())[0];
        let expected = slope(&|by| plain(&image, &text, log_scale + by, &pairs));
        assert!((f64::from(of_scale) - expected).abs() < 1e-5);
    }

    #[test]
    fn a_row_is_right_if_its_largest_logit_is_a_positive() {
        let pairs = [(0, 0), (1, 1), (2, 0)];
        // Right; wrong; right by the caption of the first; of equal values the first counts.
        let logits = [3.0, 1.0, 2.0, 2.0, 1.0, 0.0, 5.0, 1.0, 0.0];
        assert_eq!(count_right(&logits, &pairs), 2);
        assert_eq!(count_right(&[1.0; 9], &pairs), 2);
        assert_eq!(count_right(&[], &[]), 0);
    }
}
