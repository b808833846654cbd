//! Which patches LoCoOp extracts, and the numbers behind a heat map.

use clipood_core::LocoopSection;
use rayon::prelude::*;

use crate::error::{PipelineError, Result};
use crate::feature_checks::check_rows;
use crate::features::normalise_rows;

/// Factor on cosines before the softmax, as in every score table of a run.
const LOGIT_SCALE: f64 = 100.0;

/// The range of no value.
const NO_RANGE: (f32, f32) = (f32::INFINITY, f32::NEG_INFINITY);

/// Cosines of every patch of one image with every class.
#[derive(Debug, Clone, PartialEq)]
pub struct PatchCosines {
    classes: usize,
    /// `[patches, classes]`, -1 to 1.
    values: Vec<f32>,
}

/// The similarity of every patch to one class.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    /// Number of the class.
    pub class: usize,
    /// Cosines `[patches]`, row by row.
    pub cosines: Vec<f32>,
}

impl HeatMap {
    /// Smallest and largest cosine.
    pub fn range(&self) -> (f32, f32) {
        self.cosines.iter().fold(NO_RANGE, |(least, most), cosine| {
            (least.min(*cosine), most.max(*cosine))
        })
    }
}

/// What the patches of one image show.
#[derive(Debug, Clone, PartialEq)]
pub struct Regions {
    /// Rows, and columns, of the grid of patches.
    pub grid: usize,
    /// Number of the class that the image is of.
    pub label: usize,
    /// LoCoOp's K.
    pub top_k: usize,
    /// Rank of the label among the classes of each patch, 1 for the most similar one: one more than the number of classes that
    /// are more similar. `[patches]`, row by row.
    pub ranks: Vec<usize>,
    /// Maps of some classes.
    pub maps: Vec<HeatMap>,
}

impl PatchCosines {
    /// Compares patch features `local` `[patches, dim]` with class texts `text` `[classes, dim]`, neither of which need have unit
    /// length; `name` names the image in errors.
    ///
    /// # Errors
    /// No patch or no class, features of another width, features that are not finite or all zero.
    pub fn new(local: &[f32], text: &[f32], dim: usize, name: &str) -> Result<Self> {
        if local.is_empty() {
            return Err(PipelineError::Usage(format!(
                "{name}: the image tower gives no patch features, which regions are made of"
            )));
        }
        for (what, values) in [("patches", local), ("class texts", text)] {
            if dim == 0 || values.is_empty() || values.len() % dim != 0 {
                return Err(PipelineError::Inconsistent(format!(
                    "{name}: found {} values of features of {what}, expected whole rows of {dim}",
                    values.len()
                )));
            }
        }
        check_rows(local, dim, |patch| format!("{name}: patch {}", patch + 1))?;
        check_rows(text, dim, |class| format!("{name}: text of class {class}"))?;
        let unit = |values: &[f32]| {
            let mut values = values.to_vec();
            normalise_rows(&mut values, dim);
            values
        };
        let (local, text) = (unit(local), unit(text));
        // Classes with equal texts must have equal cosines, so each is summed in the same order.
        let values = local
            .par_chunks_exact(dim)
            .flat_map_iter(|patch| {
                text.chunks_exact(dim)
                    .map(move |class| dot(patch, class) as f32)
            })
            .collect();
        Ok(Self {
            classes: text.len() / dim,
            values,
        })
    }

    /// Number of patches.
    pub fn patches(&self) -> usize {
        self.values.len() / self.classes
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The rank of a class among the classes of each patch, `[patches]`; see [`Regions::ranks`].
    pub fn ranks(&self, class: usize) -> Vec<usize> {
        let rows = self.values.chunks_exact(self.classes);
        rows.map(|row| 1 + row.iter().filter(|other| **other > row[class]).count())
            .collect()
    }

    /// The similarity of every patch to a class.
    pub fn map(&self, class: usize) -> HeatMap {
        let rows = self.values.chunks_exact(self.classes);
        HeatMap {
            class,
            cosines: rows.map(|row| row[class]).collect(),
        }
    }

    /// The regions of an image of class `label` on a square grid, with maps of `shown`.
    ///
    /// # Errors
    /// Patches that make no square, a class that does not exist, K outside of [`Regions::check_top_k`].
    pub fn regions(&self, label: usize, top_k: usize, shown: &[usize]) -> Result<Regions> {
        Regions::check_top_k(top_k, self.classes)?;
        let grid = self.patches().isqrt();
        if grid * grid != self.patches() {
            return Err(PipelineError::Inconsistent(format!(
                "found {} patches, expected a square grid of them",
                self.patches()
            )));
        }
        if let Some(class) = [label]
            .iter()
            .chain(shown)
            .find(|class| **class >= self.classes)
        {
            return Err(PipelineError::Inconsistent(format!(
                "found class {class}, expected one of {}",
                self.classes
            )));
        }
        Ok(Regions {
            grid,
            label,
            top_k,
            ranks: self.ranks(label),
            maps: shown.iter().map(|class| self.map(*class)).collect(),
        })
    }
}

impl Regions {
    /// Whether LoCoOp extracts each patch, `[patches]`: the label is not among the K most likely classes of the patch, which is
    /// `entropy_select_topk` of its authors (Miyai et al. 2023). A class as similar as the K-th counts as among them, as in the
    /// loss that prompts are trained with.
    pub fn extracted(&self) -> Vec<bool> {
        self.ranks.iter().map(|rank| *rank > self.top_k).collect()
    }

    /// Number of extracted patches.
    pub fn count(&self) -> usize {
        self.ranks.iter().filter(|rank| **rank > self.top_k).count()
    }

    /// Share of the patches that are extracted, 0 to 1.
    pub fn share(&self) -> f64 {
        self.count() as f64 / self.ranks.len().max(1) as f64
    }

    /// Smallest and largest cosine of all maps.
    pub fn range(&self) -> (f32, f32) {
        let ranges = self.maps.iter().map(HeatMap::range);
        ranges.fold(NO_RANGE, |(least, most), (own_least, own_most)| {
            (least.min(own_least), most.max(own_most))
        })
    }

    /// K where none is given: that of recipes, a fifth of the classes.
    ///
    /// # Errors
    /// Fewer than two classes, of which no patch is ever extracted.
    pub fn default_top_k(classes: usize) -> Result<usize> {
        let top_k = LocoopSection::default().top_k_for(classes).unwrap_or(1);
        Self::check_top_k(top_k, classes)?;
        Ok(top_k)
    }

    /// Checks K.
    ///
    /// # Errors
    /// Fewer than two classes; K of 0, with which every patch would be extracted, or not below the number of classes, with which none would.
    pub fn check_top_k(top_k: usize, classes: usize) -> Result<()> {
        if classes < 2 {
            return Err(PipelineError::Usage(format!(
                "found {classes} class, expected at least 2: a patch is compared with the label and with others"
            )));
        }
        if top_k == 0 || top_k >= classes {
            return Err(PipelineError::Usage(format!(
                "K of the extraction: found {top_k}, allowed: 1 to {}, below the number of classes, {classes}",
                classes - 1
            )));
        }
        Ok(())
    }
}

/// The classes of an image with their cosine and their probability, `softmax(100 c)`, the most likely first; of equal ones
/// the first. `global` is `[dim]`, `text` `[classes, dim]`.
pub fn likeliest_classes(global: &[f32], text: &[f32]) -> Vec<(usize, f64, f64)> {
    let length = |values: &[f32]| dot(values, values).sqrt();
    let image = length(global);
    let texts = text.chunks_exact(global.len().max(1));
    let cosine = |text: &[f32]| dot(global, text) / (image * length(text));
    let mut all: Vec<(usize, f64)> = texts.map(cosine).enumerate().collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    let largest = all.first().map_or(0.0, |first| first.1);
    let weight = |cosine: f64| (LOGIT_SCALE * (cosine - largest)).exp();
    let sum: f64 = all.iter().map(|(_, cosine)| weight(*cosine)).sum();
    all.into_iter()
        .map(|(class, cosine)| (class, cosine, weight(cosine) / sum))
        .collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let pairs = a.iter().zip(b);
    pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

#[cfg(test)]
mod tests {
    use clipood_core::SplitMix64;

    use super::*;

    const DIM: usize = 6;

    fn drawn(rows: usize, seed: u64) -> Vec<f32> {
        let mut rng = SplitMix64::keyed(seed, "regions", 0);
        let value = |_| (rng.unit() - 0.5) as f32;
        (0..rows * DIM).map(value).collect()
    }

    /// As the code of LoCoOp's authors does it: softmax over the classes of a patch, the K largest, and is the label among them?
    fn plain(local: &[f32], text: &[f32], label: usize, top_k: usize) -> Vec<bool> {
        let unit = |row: &[f32]| -> Vec<f64> {
            let length = row
                .iter()
                .map(|v| f64::from(*v).powi(2))
                .sum::<f64>()
                .sqrt();
            row.iter().map(|v| f64::from(*v) / length).collect()
        };
        let texts: Vec<Vec<f64>> = text.chunks(DIM).map(unit).collect();
        let extracted = |patch: &[f32]| {
            let patch = unit(patch);
            let logit = |text: &Vec<f64>| -> f64 {
                100.0 * text.iter().zip(&patch).map(|(a, b)| a * b).sum::<f64>()
            };
            let weights: Vec<f64> = texts.iter().map(|text| logit(text).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let mut classes: Vec<(f64, usize)> = weights
                .iter()
                .enumerate()
                .map(|(c, w)| (w / sum, c))
                .collect();
            classes.sort_by(|a, b| b.0.total_cmp(&a.0));
            classes[..top_k].iter().all(|(_, class)| *class != label)
        };
        local.chunks(DIM).map(extracted).collect()
    }

    #[test]
    fn a_patch_is_extracted_if_the_label_is_not_in_its_top_k() {
        let (local, text) = (drawn(16, 1), drawn(10, 2));
        let cosines = PatchCosines::new(&local, &text, DIM, "image").unwrap();
        assert_eq!((cosines.patches(), cosines.classes()), (16, 10));
        let mut counts = Vec::new();
        for label in 0..10 {
            for top_k in 1..10 {
                let regions = cosines.regions(label, top_k, &[]).unwrap();
                let expected = plain(&local, &text, label, top_k);
                assert_eq!(regions.extracted(), expected, "label {label}, K {top_k}");
                counts.push(expected.iter().filter(|e| **e).count());
                assert_eq!(regions.count(), counts[counts.len() - 1]);
                assert_eq!(regions.share(), regions.count() as f64 / 16.0);
            }
        }
        assert!(counts.iter().any(|count| (1..16).contains(count)));
    }

    #[test]
    fn classes_of_equal_texts_share_a_rank() {
        let mut text = drawn(3, 5);
        text.extend_from_within(..DIM);
        let cosines = PatchCosines::new(&drawn(25, 6), &text, DIM, "image").unwrap();
        assert_eq!(cosines.ranks(0), cosines.ranks(3));
        assert!(cosines.ranks(0).contains(&1));
    }

    #[test]
    fn maps_hold_the_cosines_of_their_class() {
        // Four patches along the axes, two classes.
        let local = [2.0, 0.0, 0.0, 3.0, -1.0, 0.0, 3.0, 4.0];
        let text = [5.0, 0.0, 0.0, 1.0];
        let cosines = PatchCosines::new(&local, &text, 2, "image").unwrap();
        let regions = cosines.regions(0, 1, &[1, 0]).unwrap();
        assert_eq!(regions.grid, 2);
        assert_eq!(regions.ranks, [1, 2, 2, 2]);
        assert_eq!(regions.maps[0].class, 1);
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near(&regions.maps[0].cosines, &[0.0, 1.0, 0.0, 0.8]));
        assert!(near(&regions.maps[1].cosines, &[1.0, 0.0, -1.0, 0.6]));
        let (least, most) = regions.range();
        assert!(near(&[least, most], &[-1.0, 1.0]));
    }

    #[test]
    fn the_default_k_is_a_fifth_of_the_classes() {
        let found = [1000, 16, 5, 2].map(|classes| Regions::default_top_k(classes).unwrap());
        assert_eq!(found, [200, 3, 1, 1]);
        for (top_k, classes) in [(0, 4), (4, 4), (1, 1), (1, 0)] {
            let error = Regions::check_top_k(top_k, classes).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
        assert!(Regions::default_top_k(1).is_err());
    }

    #[test]
    fn features_that_are_not_there_are_named() {
        let text = drawn(3, 1);
        for (local, code, word) in [
            (Vec::new(), 2, "no patch features"),
            (vec![1.0; 7], 1, "7 values"),
        ] {
            let error = PatchCosines::new(&local, &text, DIM, "a.png").unwrap_err();
            assert_eq!(error.exit_code(), code);
            let error = error.to_string();
            assert!(
                error.starts_with("a.png: ") && error.contains(word),
                "{error}"
            );
        }
        let mut local = drawn(4, 1);
        local[DIM] = f32::NAN;
        let error = PatchCosines::new(&local, &text, DIM, "a.png").unwrap_err();
        assert!(error.to_string().contains("a.png: patch 2"), "{error}");
        // Five patches are no square; class 3 does not exist.
        let cosines = PatchCosines::new(&drawn(5, 1), &text, DIM, "a.png").unwrap();
        assert!(cosines.regions(0, 1, &[]).is_err());
        let cosines = PatchCosines::new(&drawn(4, 1), &text, DIM, "a.png").unwrap();
        assert!(cosines.regions(3, 1, &[]).is_err() && cosines.regions(0, 1, &[3]).is_err());
    }

    #[test]
    fn classes_come_in_the_order_of_their_probability() {
        let text = [1.0, 0.0, 0.0, 2.0, 3.0, 3.0];
        let found = likeliest_classes(&[0.0, 4.0], &text);
        let classes: Vec<usize> = found.iter().map(|(class, ..)| *class).collect();
        assert_eq!(classes, [1, 2, 0]);
        assert!((found[0].1 - 1.0).abs() < 1e-12 && (found[1].1 - 0.5f64.sqrt()).abs() < 1e-12);
        let sum: f64 = found.iter().map(|(_, _, probability)| probability).sum();
        assert!((sum - 1.0).abs() < 1e-12 && found[0].2 > 0.999);
    }
}
