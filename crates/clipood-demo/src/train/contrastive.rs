//! CLIP's symmetric contrastive loss, with identical captions counted as positives of each other.

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// The loss and the logits it was computed from.
#[derive(Debug, Clone)]
pub(super) struct Contrast<B: Backend> {
    /// Mean of the image-to-text and text-to-image cross entropies, `[1]`.
    pub loss: Tensor<B, 1>,
    /// `scale * cosine`, `[images, captions]`.
    pub logits: Tensor<B, 2>,
}

/// `image` and `text` are normalised features `[batch, D]`, `scale` `[1]` is the factor on cosines. If all captions differ,
/// this is the loss of Radford et al. 2021, figure 3; a caption that occurs n times has n targets of 1 / n.
pub(super) fn contrastive_loss<B: Backend>(
    image: Tensor<B, 2>,
    text: Tensor<B, 2>,
    scale: Tensor<B, 1>,
    captions: &[String],
) -> Contrast<B> {
    let n = captions.len();
    let device = image.device();
    let mut targets = vec![0f32; n * n];
    for (i, row) in targets.chunks_exact_mut(n).enumerate() {
        let same = captions.iter().filter(|c| **c == captions[i]).count();
        for (target, caption) in row.iter_mut().zip(captions) {
            if *caption == captions[i] {
                *target = 1.0 / same as f32;
            }
        }
    }
    // Rows of equal captions are equal, so the matrix is symmetric and serves both directions.
    let targets = Tensor::<B, 2>::from_data(TensorData::new(targets, [n, n]), &device);
    let logits = image.matmul(text.transpose()) * scale.reshape([1, 1]);
    let by_image = (log_softmax(logits.clone(), 1) * targets.clone()).sum();
    let by_text = (log_softmax(logits.clone(), 0) * targets).sum();
    Contrast {
        loss: (by_image + by_text) * (-0.5 / n as f64),
        logits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

    fn features(values: [f32; 4]) -> Tensor<Flex, 2> {
        Tensor::from_data(
            TensorData::new(values.to_vec(), [2, 2]),
            &Default::default(),
        )
    }

    fn loss(captions: [&str; 2]) -> f32 {
        let same = features([1.0, 0.0, 0.0, 1.0]);
        let scale = Tensor::from_floats([2.0], &Default::default());
        let captions = captions.map(String::from);
        contrastive_loss(same.clone(), same, scale, &captions)
            .loss
            .into_scalar()
    }

    #[test]
    fn equals_cross_entropy_by_hand() {
        // Logits [[2, 0], [0, 2]]: -ln(e^2 / (e^2 + 1)) each way.
        let expected = (1.0f32 + (-2.0f32).exp()).ln();
        assert!((loss(["a star", "a fish"]) - expected).abs() < 1e-6);
    }

    #[test]
    fn equal_captions_share_the_target() {
        // Both pictures have the same caption: half of the target mass belongs to each column.
        let expected = 0.5 * (1.0f32 + (-2.0f32).exp()).ln() + 0.5 * (1.0f32 + 2.0f32.exp()).ln();
        assert!((loss(["a star", "a star"]) - expected).abs() < 1e-6);
    }
}
