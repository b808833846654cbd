//! From features to classes and scores.

use clipood_ood::{DetectorSpec, FitInputs, FittedDetector, LocalFeatures, Matrix, ScoreInputs};
use rayon::prelude::*;

use crate::error::Result;
use crate::features::normalise_rows;

/// Factor on cosines before the softmax, as in every score table of a run.
const LOGIT_SCALE: f64 = 100.0;

/// Text features with a detector fitted on them.
#[derive(Debug, Clone)]
pub struct Classifier {
    /// Normalised text features, `[classes, D]`.
    text: Vec<f32>,
    dim: usize,
    top: usize,
    detectors: [FittedDetector; 1],
    local: bool,
}

impl Classifier {
    /// A classifier from normalised text features `[classes, dim]` that returns the `top` most likely classes (all of
    /// them if there are fewer) and scores images with a detector that is fitted on texts alone: those of the classes, and
    /// normalised features `negative` `[negatives, dim]` of texts of no class where it uses them.
    ///
    /// # Errors
    /// No class, features that are not finite, a detector that needs more than these texts.
    pub fn new(
        text: Vec<f32>,
        negative: Option<&[f32]>,
        dim: usize,
        top: usize,
        detector: &DetectorSpec,
    ) -> Result<Self> {
        let classes = text.len() / dim.max(1);
        let fitted = {
            let text = Matrix::new("text features", &text, classes, dim)?;
            let negative_text = match negative {
                Some(rows) => {
                    let count = rows.len() / dim.max(1);
                    Some(Matrix::new("negative text features", rows, count, dim)?)
                }
                None => None,
            };
            clipood_ood::fit(
                detector,
                &FitInputs {
                    text,
                    negative_text,
                    train: None,
                    train_labels: None,
                    classifiers: &[],
                },
            )?
        };
        Ok(Self {
            text,
            dim,
            top: top.min(classes),
            detectors: [fitted],
            local: detector.needs().patches,
        })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.text.len() / self.dim
    }

    /// Number of classes that are returned for each image.
    pub fn top(&self) -> usize {
        self.top
    }

    /// Whether the detector scores patches, so that [`Classifier::classify`] needs their features.
    pub fn uses_patches(&self) -> bool {
        self.local
    }

    /// Classifies and scores images by their features before normalisation: `global` is `[images, D]`, `local` is
    /// `[images, positions, D]`, and is ignored if the detector scores no patches.
    ///
    /// # Errors
    /// Features of other sizes, or that are not finite.
    pub fn classify(&self, global: &[f32], local: &[f32]) -> Result<Vec<Classified>> {
        let rows = global.len() / self.dim;
        if rows == 0 {
            return Ok(Vec::new());
        }
        let text = Matrix::new("text features", &self.text, self.classes(), self.dim)?;
        let patches = match self.local {
            true => Some(LocalFeatures::new(
                "patch features",
                local,
                rows,
                local.len() / (rows * self.dim),
                self.dim,
            )?),
            false => None,
        };
        let inputs = ScoreInputs {
            global: Matrix::new("image features", global, rows, self.dim)?,
            local: patches,
        };
        let scores = clipood_ood::score_all(&self.detectors, &text, &inputs)?;
        let mut unit = global.to_vec();
        normalise_rows(&mut unit, self.dim);
        // On all cores, because the caller may be a single thread that serves many devices.
        Ok(unit
            .par_chunks_exact(self.dim)
            .zip(&scores.columns[0])
            .map(|(image, score)| Classified {
                top: self.likeliest(image),
                score: *score,
            })
            .collect())
    }

    /// The most likely classes of a normalised feature with their probabilities; of equal ones the first comes first.
    fn likeliest(&self, image: &[f32]) -> Vec<(u32, f32)> {
        let texts = self.text.chunks_exact(self.dim);
        let mut cosines: Vec<(u32, f64)> = (0u32..)
            .zip(texts)
            .map(|(class, text)| {
                let products = image.iter().zip(text).map(|(x, y)| x * y);
                (class, f64::from(products.sum::<f32>()))
            })
            .collect();
        cosines.sort_by(|a, b| b.1.total_cmp(&a.1));
        let largest = cosines.first().map_or(0.0, |first| first.1);
        let weight = |cosine: f64| (LOGIT_SCALE * (cosine - largest)).exp();
        let sum: f64 = cosines.iter().map(|(_, cosine)| weight(*cosine)).sum();
        cosines.truncate(self.top);
        let likeliest = cosines.into_iter();
        likeliest
            .map(|(class, cosine)| (class, (weight(cosine) / sum) as f32))
            .collect()
    }
}

/// An image that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Classified {
    /// The most likely classes with `softmax(100 c)`, in descending order.
    pub top: Vec<(u32, f32)>,
    /// The detector's score: higher is more in-distribution.
    pub score: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_classified_alone_as_among_others() {
        let (classes, dim) = (5, 7);
        let values = |n: usize, step: f32| -> Vec<f32> {
            (0..n).map(|i| (i as f32 * step).sin() + 0.1).collect()
        };
        let mut text = values(classes * dim, 0.7);
        normalise_rows(&mut text, dim);
        let detector: DetectorSpec = "mcm".parse().unwrap();
        let classifier = Classifier::new(text, None, dim, 3, &detector).unwrap();
        assert!(!classifier.uses_patches());
        let images = values(40 * dim, 1.3);
        let together = classifier.classify(&images, &[]).unwrap();
        assert_eq!(together.len(), 40);
        for (image, found) in images.chunks_exact(dim).zip(&together) {
            let alone = &classifier.classify(image, &[]).unwrap()[0];
            let classes = |found: &Classified| -> Vec<u32> {
                found.top.iter().map(|(class, _)| *class).collect()
            };
            assert_eq!(classes(alone), classes(found));
            // A product of one row may be summed in another order than one of several.
            assert!((alone.score - found.score).abs() < 1e-6);
            assert_eq!(found.top.len(), 3);
            assert!(found.top[0].1 >= found.top[1].1);
        }
        assert_eq!(classifier.classify(&[], &[]).unwrap(), []);
    }
}
