//! Maximum concept matching, global and local.
//!
//! MCM: Ming et al., "Delving into Out-of-Distribution Detection with Vision-Language Representations", NeurIPS 2022:
//! `max_k softmax(c / t)_k` with cosines `c`. L-MCM and GL-MCM: Miyai et al., "GL-MCM: Global and Local Maximum Concept
//! Matching for Zero-Shot Out-of-Distribution Detection", IJCV 2025: the same of each patch, the largest over patches, and
//! `mcm + weight * l_mcm`. The papers use t = 1; the dual-pattern repository multiplies cosines by 10 (t = 0.1) and
//! halves the local term.
//!
//! `gl_mcm:topk=K` takes the mean of the K largest probabilities over all patches and classes as the local term, as R-MCM of
//! Zeng et al., "Local-Prompt: Extensible Local Prompts for Few-Shot Out-of-Distribution Detection", ICLR 2025, but without
//! its negative prompts; K = 1 is GL-MCM.
//!
//! Fitted on nothing. Cost per image: `classes * dim` multiplications, shared by all detectors, and `classes` exponentials;
//! the local score costs that for every patch.

use crate::block::{Block, Patches};
use crate::detector::Detector;
use crate::error::OodError;
use crate::fit_inputs::Prepared;
use crate::info::{DetectorInfo, Needs, ParameterInfo};
use crate::kernels;
use crate::parameters::Values;

const TEMPERATURE: ParameterInfo =
    ParameterInfo::new("t", "1", "softmax temperature on cosines, above 0");

/// `max softmax(c / t)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mcm {
    t: f64,
}

impl Detector for Mcm {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "mcm",
        summary: "maximum concept matching: largest softmax probability of the cosines",
        formula: "max softmax(c / t)",
        paper: "Ming et al., Delving into Out-of-Distribution Detection with Vision-Language Representations, NeurIPS 2022",
        needs: Needs {
            texts: true,
            ..Needs::LOGITS
        },
        cost: "shared class products; one exponential per class",
        trap: "at t = 1 the softmax is almost flat, so f16 features tie; papers and code bases use different t",
        parameters: &[TEMPERATURE],
    };
    const MIN_CLASSES: usize = 2;
    type Fitted = ();

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            t: values.positive("t")?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.t.to_string()]
    }

    fn scale(&self) -> Option<f64> {
        Some(1.0 / self.t)
    }

    fn fit(&self, _: &Prepared<'_>, _: &mut Vec<String>) -> Result<(), OodError> {
        Ok(())
    }

    fn score(&self, (): &(), block: &Block<'_>) -> Vec<f32> {
        let softmaxes = block.softmax().iter();
        softmaxes.map(|s| s.probability() as f32).collect()
    }
}

/// `max over patches of max softmax(c_patch / t)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LMcm {
    t: f64,
}

impl Detector for LMcm {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "l_mcm",
        summary: "MCM of the best patch",
        formula: "max over patches of max softmax(c_patch / t)",
        paper: "Miyai et al., GL-MCM: Global and Local Maximum Concept Matching, IJCV 2025",
        needs: Needs {
            texts: true,
            patches: true,
            ..Needs::LOGITS
        },
        cost: "mcm for every patch",
        trap: "needs patch features, whose definition differs between ViT and ResNet",
        parameters: &[TEMPERATURE],
    };
    const MIN_CLASSES: usize = 2;
    type Fitted = ();

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            t: values.positive("t")?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.t.to_string()]
    }

    fn local_scale(&self) -> Option<f64> {
        Some(1.0 / self.t)
    }

    fn fit(&self, _: &Prepared<'_>, _: &mut Vec<String>) -> Result<(), OodError> {
        Ok(())
    }

    fn score(&self, (): &(), block: &Block<'_>) -> Vec<f32> {
        block.local().iter().map(|&p| p as f32).collect()
    }
}

/// `mcm + weight * local`, `local` the mean of the `topk` largest of `softmax(c_patch / t)` over patches and classes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GlMcm {
    t: f64,
    weight: f64,
    topk: usize,
}

impl Detector for GlMcm {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "gl_mcm",
        summary: "MCM of the image plus MCM of its best patch",
        formula: "mcm + weight * l_mcm; with topk, l_mcm is the mean of the topk largest softmax(c_patch / t)",
        paper: "Miyai et al., GL-MCM: Global and Local Maximum Concept Matching, IJCV 2025",
        needs: Needs {
            texts: true,
            patches: true,
            ..Needs::LOGITS
        },
        cost: "mcm for the image and for every patch",
        trap: "papers weight the local term with 1 or 0.5, at t = 1 or 0.1: name both",
        parameters: &[
            TEMPERATURE,
            ParameterInfo::new("weight", "1", "weight of the local term, any finite number"),
            ParameterInfo::new(
                "topk",
                "1",
                "largest local probabilities, over patches and classes, to average, at least 1; all if there are fewer",
            ),
        ],
    };
    const MIN_CLASSES: usize = 2;
    type Fitted = ();

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            t: values.positive("t")?,
            weight: values.number("weight", "a finite number", |_| true)?,
            topk: values.count("topk")?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![
            self.t.to_string(),
            self.weight.to_string(),
            self.topk.to_string(),
        ]
    }

    fn scale(&self) -> Option<f64> {
        Some(1.0 / self.t)
    }

    fn local_scale(&self) -> Option<f64> {
        Some(1.0 / self.t)
    }

    fn best_patch_scale(&self) -> Option<f64> {
        (self.topk == 1).then_some(1.0 / self.t)
    }

    fn reduce_patches(&self, patches: &Patches<'_>) -> f64 {
        if self.topk == 1 {
            return patches.best();
        }
        let mut largest = Vec::new();
        let mut found = Vec::new();
        for (cosines, softmax) in patches.rows() {
            // No patch has more than `topk` of the largest, and they are those of its largest cosines.
            kernels::largest(cosines, self.topk.min(cosines.len()), &mut largest);
            let max = largest.first().map_or(0.0, |&(c, _)| f64::from(c));
            found.extend(largest.iter().map(|&(c, _)| {
                ((f64::from(c) - max) * (1.0 / self.t)).exp() * softmax.probability()
            }));
        }
        found.sort_unstable_by(|a, b| b.total_cmp(a));
        found.truncate(self.topk);
        found.iter().sum::<f64>() / found.len() as f64
    }

    fn fit(&self, _: &Prepared<'_>, _: &mut Vec<String>) -> Result<(), OodError> {
        Ok(())
    }

    fn score(&self, (): &(), block: &Block<'_>) -> Vec<f32> {
        let softmaxes = block.softmax().iter().zip(block.local());
        softmaxes
            .map(|(s, l)| (s.probability() + self.weight * l) as f32)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        DetectorSpec, FitInputs, LocalFeatures, Matrix, PatchBest, ScoreInputs, fit, score_all,
    };
    use clipood_core::SplitMix64;

    const DIM: usize = 8;
    const CLASSES: usize = 5;
    const PATCHES: usize = 7;
    const IMAGES: usize = 12;

    fn values(rng: &mut SplitMix64, rows: usize) -> Vec<f32> {
        (0..rows * DIM)
            .map(|_| (2.0 * rng.unit() - 1.0) as f32)
            .collect()
    }

    /// `softmax(c / t)` of one row of features.
    fn softmax(row: &[f32], text: &[f32], t: f64) -> Vec<f64> {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
            products.sum()
        };
        let exponentials: Vec<f64> = text
            .chunks_exact(DIM)
            .map(|class| dot(row, class) / (dot(row, row) * dot(class, class)).sqrt())
            .map(|cosine| (cosine / t).exp())
            .collect();
        let sum: f64 = exponentials.iter().sum();
        exponentials.iter().map(|e| e / sum).collect()
    }

    #[test]
    fn the_local_term_is_the_mean_of_the_largest() {
        let mut rng = SplitMix64::keyed(1, "gl_mcm", 0);
        let (text, images) = (values(&mut rng, CLASSES), values(&mut rng, IMAGES));
        let patches = values(&mut rng, IMAGES * PATCHES);
        let classes = Matrix::new("text", &text, CLASSES, DIM).unwrap();
        let inputs = FitInputs {
            text: classes,
            negative_text: None,
            train: None,
            train_labels: None,
            classifiers: &[],
        };
        let score = |spec: &str| {
            let detector = fit(&spec.parse().unwrap(), &inputs).unwrap();
            let inputs = ScoreInputs {
                global: Matrix::new("images", &images, IMAGES, DIM).unwrap(),
                local: Some(LocalFeatures::new("local", &patches, IMAGES, PATCHES, DIM).unwrap()),
            };
            let mut scores = score_all(&[detector], &classes, &inputs).unwrap();
            scores.columns.remove(0)
        };
        let t = 0.2;
        // More than there are patches, more than there are classes, all there are, and more than that.
        for topk in [1, 2, 3, 6, 9, 34, 35, 36, 1000, usize::MAX] {
            let found = score(&format!("gl_mcm:t={t}:weight=0.7:topk={topk}"));
            for (i, found) in found.iter().enumerate() {
                let global = softmax(&images[i * DIM..(i + 1) * DIM], &text, t);
                let global = global.into_iter().fold(0.0, f64::max);
                let mut local: Vec<f64> = patches[i * PATCHES * DIM..(i + 1) * PATCHES * DIM]
                    .chunks_exact(DIM)
                    .flat_map(|patch| softmax(patch, &text, t))
                    .collect();
                local.sort_by(|a, b| b.total_cmp(a));
                local.truncate(topk);
                let mean = local.iter().sum::<f64>() / local.len() as f64;
                let expected = global + 0.7 * mean;
                assert!(
                    (f64::from(*found) - expected).abs() < 1e-6,
                    "topk {topk}: {found}, expected {expected}"
                );
            }
        }
        let (one, two) = (score("gl_mcm:t=0.2:topk=1"), score("gl_mcm:t=0.2:topk=2"));
        assert_eq!(one, score("gl_mcm:t=0.2"));
        assert_ne!(one, two);
    }

    #[test]
    fn known_probabilities_take_the_place_of_the_patches() {
        let mut rng = SplitMix64::keyed(2, "known patches", 0);
        let (text, images) = (values(&mut rng, CLASSES), values(&mut rng, IMAGES));
        let patches = values(&mut rng, IMAGES * PATCHES);
        let classes = Matrix::new("text", &text, CLASSES, DIM).unwrap();
        let inputs = FitInputs {
            text: classes,
            negative_text: None,
            classifiers: &[],
            train: None,
            train_labels: None,
        };
        let specs = [
            "l_mcm:t=0.2",
            "gl_mcm:t=0.2",
            "gl_mcm:t=0.2:topk=2",
            "l_mcm:t=0.5",
            "mcm",
        ];
        let fitted = specs.map(|spec| fit(&spec.parse().unwrap(), &inputs).unwrap());
        let score = |best: &[PatchBest]| {
            let local = LocalFeatures::new("local", &patches, IMAGES, PATCHES, DIM).unwrap();
            let inputs = ScoreInputs {
                global: Matrix::new("images", &images, IMAGES, DIM).unwrap(),
                local: Some(local.with_best(best).unwrap()),
            };
            score_all(&fitted, &classes, &inputs).unwrap().columns
        };
        let computed = score(&[]);
        let scale = 1.0 / 0.2;
        assert_eq!(fitted[1].best_patch_scale(), Some(scale));
        assert_eq!(fitted[2].best_patch_scale(), None);
        let best = vec![0.25; IMAGES];
        let known = score(&[PatchBest { scale, best }]);
        assert!(known[0].iter().all(|score| *score == 0.25));
        for (with, without) in known[1].iter().zip(&computed[1]) {
            let moved = f64::from(with - without);
            let place = computed[1]
                .iter()
                .position(|other| other == without)
                .unwrap();
            assert!((moved - (0.25 - f64::from(computed[0][place]))).abs() < 1e-6);
        }
        // Another number of patches, another scale and no patches at all.
        assert_eq!(known[2..], computed[2..]);
        let short = [PatchBest {
            scale,
            best: vec![0.5; IMAGES - 1],
        }];
        let local = LocalFeatures::new("local", &patches, IMAGES, PATCHES, DIM).unwrap();
        assert!(local.with_best(&short).is_err());
    }

    #[test]
    fn only_the_global_and_local_score_takes_topk() {
        let spec: DetectorSpec = "gl_mcm:topk=3:weight=0.5:t=0.1".parse().unwrap();
        assert_eq!(spec.to_string(), "gl_mcm:t=0.1:weight=0.5:topk=3");
        assert!("gl_mcm:topk=0".parse::<DetectorSpec>().is_err());
        assert!("l_mcm:topk=2".parse::<DetectorSpec>().is_err());
    }
}
