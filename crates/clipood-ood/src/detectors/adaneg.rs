//! AdaNeg: negative labels that move towards the test images.
//!
//! Zhang and Zhang, "AdaNeg: Adaptive Negative Proxy Guided OOD Detection with Vision-Language Models", NeurIPS 2024, as in
//! the authors' OpenOOD-VLM (`ttaprompt_postprocessor.py`). Every class and every negative label has a memory: its text and
//! up to `slots - 1` test images. `S` is NegLabel's score, the mean over groups of the mass on the classes. An image with `S`
//! above `threshold + gap (1 - threshold)` enters the memory of its likeliest class, one below `threshold - gap threshold`
//! that of its likeliest negative label; in a full memory it replaces the image of largest entropy (of the softmax over the
//! classes, or over the negative labels), if its own is smaller. After the images of a batch have entered, they are scored:
//! the proxy of a memory takes the place of its text in NegLabel's score, and the score is that plus `lambda S`. A proxy is
//! the normalised sum of the memory or, with `beta` above 0, the sum weighted by `exp(-beta (1 - f . m))` for each image f.
//!
//! Departures from the code: its memories have one row more that stays zero, which changes no proxy (a full memory has nine
//! images in both); its half precision turns every entropy into NaN, so that it never replaces an image, while here the
//! entropy is computed in f64, as the paper describes, and without the 1e-8 that the code adds inside the logarithm; the
//! permutation before grouping is drawn by our generator.
//!
//! Cost per image: two products with classes and negative labels and two exponentials for each. Memory: at most
//! `slots - 1` images for each class and label, and the texts twice.

use crate::bank::Bank;
use crate::error::OodError;
use crate::info::{DetectorInfo, Needs, Negatives, ParameterInfo};
use crate::kernels;
use crate::parameters::Values;
use crate::stream::{Memory, StreamData, StreamDetector, products};
use clipood_core::SplitMix64;
use rayon::prelude::*;

/// Scale of the logits.
const SCALE: f64 = crate::block::LOGIT_SCALE;

/// The parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AdaNeg {
    groups: usize,
    shuffle: u64,
    slots: usize,
    threshold: f64,
    gap: f64,
    lambda: f64,
    beta: f64,
    batch: usize,
}

impl StreamDetector for AdaNeg {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "adaneg",
        summary: "NegLabel with proxies that test images move",
        formula: "NegLabel's score of the proxies + lambda * NegLabel's score of the texts",
        paper: "Zhang and Zhang, AdaNeg: Adaptive Negative Proxy Guided OOD Detection with Vision-Language Models, NeurIPS 2024",
        needs: Needs {
            texts: true,
            negatives: Some(Negatives::Mined),
            stream: true,
            ..Needs::LOGITS
        },
        cost: "two products with the negative texts; two exponentials for each",
        trap: "transductive: memories fill with test images in the order of the stream; published figures reset them for each test set, with an order that was not recorded",
        parameters: &[
            ParameterInfo::new(
                "groups",
                "5",
                "equal groups of negative texts, at least 1; a remainder is dropped",
            ),
            ParameterInfo::new("shuffle", "0", "seed of the shuffle before grouping"),
            ParameterInfo::new(
                "slots",
                "10",
                "the text and the images of a memory, at least 1",
            ),
            ParameterInfo::new("threshold", "0.5", "middle of S, above 0 and below 1"),
            ParameterInfo::new(
                "gap",
                "0.5",
                "share of the way from the threshold to 1 or 0 that an image must pass to be kept, 0 to 1",
            ),
            ParameterInfo::new(
                "lambda",
                "0.1",
                "weight of the score of the texts, at least 0",
            ),
            ParameterInfo::new(
                "beta",
                "0",
                "sharpness of the weights of a memory, at least 0; 0: all are equal",
            ),
            ParameterInfo::new("batch", "256", "images that arrive together, at least 1"),
        ],
    };
    const MIN_CLASSES: usize = 1;

    fn read(values: &Values<'_>) -> Result<Self, String> {
        let shuffle = values.text("shuffle")?;
        Ok(Self {
            groups: values.count("groups")?,
            shuffle: shuffle.parse().map_err(|_| {
                format!("shuffle must be a seed (a whole number), found {shuffle:?}")
            })?,
            slots: values.count("slots")?,
            threshold: values.number("threshold", "above 0 and below 1", |x| x > 0.0 && x < 1.0)?,
            gap: values.number("gap", "0 to 1", |x| (0.0..=1.0).contains(&x))?,
            lambda: values.number("lambda", "at least 0", |x| x >= 0.0)?,
            beta: values.number("beta", "at least 0", |x| x >= 0.0)?,
            batch: values.count("batch")?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![
            self.groups.to_string(),
            self.shuffle.to_string(),
            self.slots.to_string(),
            self.threshold.to_string(),
            self.gap.to_string(),
            self.lambda.to_string(),
            self.beta.to_string(),
            self.batch.to_string(),
        ]
    }

    fn batch(&self) -> usize {
        self.batch
    }

    fn start(&self, data: &StreamData<'_>) -> Result<Box<dyn Memory>, OodError> {
        let (dim, classes) = (data.dim(), data.classes());
        let negatives = data.negatives()?;
        let count = negatives.len() / dim;
        let size = count / self.groups;
        if size == 0 {
            return Err(data.problem(format!(
                "{} groups of {count} negative texts would be empty; lower groups",
                self.groups
            )));
        }
        let mut order: Vec<u32> = (0..count as u32).collect();
        SplitMix64::keyed(self.shuffle, "neglabel groups", 0).shuffle(&mut order);
        order.truncate(size * self.groups);
        let mut texts = data.text()?;
        texts.extend(negatives);
        Ok(Box::new(Proxies {
            detector: *self,
            classes,
            order,
            size,
            proxies: Bank::new(texts.clone(), dim),
            memories: (0..classes + count).map(|_| Kept::default()).collect(),
            texts: Bank::new(texts, dim),
        }))
    }
}

/// The test images of one memory.
#[derive(Default)]
struct Kept {
    /// `[images, dim]`
    images: Vec<f32>,
    /// One per image.
    entropies: Vec<f64>,
    /// Products of the text and the images with one another; only kept for weighted proxies.
    gram: Vec<f64>,
}

impl Kept {
    /// Takes an image in; returns whether it did.
    fn offer(&mut self, image: &[f32], entropy: f64, room: usize) -> bool {
        let dim = image.len();
        if self.entropies.len() < room {
            self.images.extend_from_slice(image);
            self.entropies.push(entropy);
            return true;
        }
        // The last of the largest, as a sort puts it.
        let entropies = self.entropies.iter().copied().enumerate();
        let Some((place, largest)) = entropies.max_by(|a, b| a.1.total_cmp(&b.1)) else {
            return false;
        };
        if entropy >= largest {
            return false;
        }
        self.images[place * dim..(place + 1) * dim].copy_from_slice(image);
        self.entropies[place] = entropy;
        true
    }

    /// Writes the normalised sum of the text and the images.
    fn proxy(&self, text: &[f32], out: &mut [f32]) {
        let mut sum: Vec<f64> = text.iter().map(|&x| f64::from(x)).collect();
        for image in self.images.chunks_exact(text.len()) {
            sum.iter_mut()
                .zip(image)
                .for_each(|(s, &x)| *s += f64::from(x));
        }
        let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
        // Unit vectors that cancel have no direction; their text stays.
        if length > 1e-12 {
            out.iter_mut()
                .zip(&sum)
                .for_each(|(o, x)| *o = (x / length) as f32);
        } else {
            out.copy_from_slice(text);
        }
    }

    /// Products of the text and the images with one another, `[1 + images, 1 + images]`.
    fn gram(&self, text: &[f32]) -> Vec<f64> {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            let pairs = a.iter().zip(b);
            pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
        };
        let rows = || std::iter::once(text).chain(self.images.chunks_exact(text.len()));
        rows()
            .flat_map(|a| rows().map(move |b| dot(a, b)))
            .collect()
    }

    /// Cosine of an image to the sum of the text and the images of the memory weighted for it; `cosines` are its cosines to
    /// them, the text first.
    fn weighted_cosine(&self, beta: f64, cosines: &[f32]) -> f64 {
        let weighted = cosines.iter().map(|&cosine| {
            let cosine = f64::from(cosine);
            (cosine, (-beta * (1.0 - cosine)).exp())
        });
        let weights: Vec<f64> = weighted.clone().map(|(_, weight)| weight).collect();
        let along: f64 = weighted.map(|(cosine, weight)| weight * cosine).sum();
        let rows = self.gram.chunks_exact(weights.len());
        let squares: f64 = rows
            .zip(&weights)
            .map(|(row, weight)| weight * row.iter().zip(&weights).map(|(g, w)| g * w).sum::<f64>())
            .sum();
        // Unit vectors that cancel have no direction; the text stays.
        match squares > 1e-24 {
            true => along / squares.sqrt(),
            false => f64::from(cosines[0]),
        }
    }
}

/// The memories and what is made of them.
struct Proxies {
    detector: AdaNeg,
    classes: usize,
    /// Negative texts, group after group in runs of `size`.
    order: Vec<u32>,
    size: usize,
    /// Class texts, then negative texts.
    texts: Bank,
    proxies: Bank,
    memories: Vec<Kept>,
}

/// What one image says about itself before the memories change.
struct Seen {
    /// NegLabel's score of the texts.
    score: f64,
    /// The memory that it is offered to, with its entropy.
    place: Option<(usize, f64)>,
}

impl Proxies {
    /// NegLabel's score of one row of cosines to the classes and the negatives.
    fn mass(&self, row: &[f32], exponentials: &mut Vec<f64>) -> f64 {
        let (own, negative) = row.split_at(self.classes);
        let log_sum = log_sum(own);
        exponentials.resize(negative.len(), 0.0);
        kernels::exp_scaled(negative, SCALE, log_sum / SCALE, exponentials);
        let mut inside = 0.0;
        for group in self.order.chunks_exact(self.size) {
            let ratio: f64 = group.iter().map(|&i| exponentials[i as usize]).sum();
            inside += 1.0 / (1.0 + ratio);
        }
        inside / self.detector.groups as f64
    }

    /// Looks at one row of cosines to the texts.
    fn see(&self, row: &[f32], exponentials: &mut Vec<f64>) -> Seen {
        let score = self.mass(row, exponentials);
        let AdaNeg { threshold, gap, .. } = self.detector;
        let (own, negative) = row.split_at(self.classes);
        let place = if score > threshold + gap * (1.0 - threshold) {
            Some((kernels::argmax(own).0, entropy(own)))
        } else if score < threshold - gap * threshold {
            let place = self.classes + kernels::argmax(negative).0;
            Some((place, entropy(negative)))
        } else {
            None
        };
        Seen { score, place }
    }

    /// Replaces the cosines to texts with those to proxies weighted for each image, where a memory has images.
    fn weigh(&self, images: &[f32], cosines: &mut [f32]) {
        let dim = self.texts.dim();
        let filled: Vec<usize> = (0..self.memories.len())
            .filter(|&place| !self.memories[place].entropies.is_empty())
            .collect();
        cosines
            .par_chunks_mut(self.memories.len())
            .zip(images.par_chunks(dim))
            .for_each_init(Vec::new, |own, (row, image)| {
                for &place in &filled {
                    let memory = &self.memories[place];
                    own.resize(1 + memory.entropies.len(), 0.0);
                    own[0] = row[place];
                    kernels::products_with(image, &memory.images, &mut own[1..]);
                    row[place] = memory.weighted_cosine(self.detector.beta, own) as f32;
                }
            });
    }
}

impl Memory for Proxies {
    fn score(&mut self, images: &[f32]) -> Vec<f32> {
        let (dim, width) = (self.texts.dim(), self.texts.rows());
        let mut cosines = Vec::new();
        products(&self.texts, images, &mut cosines);
        let seen: Vec<Seen> = cosines
            .par_chunks(width)
            .map_init(Vec::new, |scratch, row| self.see(row, scratch))
            .collect();
        let mut changed = Vec::new();
        for (image, seen) in images.chunks_exact(dim).zip(&seen) {
            if let Some((place, entropy)) = seen.place
                && self.memories[place].offer(image, entropy, self.detector.slots - 1)
            {
                changed.push(place);
            }
        }
        changed.sort_unstable();
        changed.dedup();
        if self.detector.beta > 0.0 {
            for place in changed {
                self.memories[place].gram = self.memories[place].gram(self.texts.row(place));
            }
            self.weigh(images, &mut cosines);
        } else {
            for place in changed {
                let text = self.texts.row(place);
                self.memories[place].proxy(text, self.proxies.row_mut(place));
            }
            products(&self.proxies, images, &mut cosines);
        }
        cosines
            .par_chunks(width)
            .zip(&seen)
            .map_init(Vec::new, |scratch, (row, seen)| {
                (self.mass(row, scratch) + self.detector.lambda * seen.score) as f32
            })
            .collect()
    }
}

/// `logsumexp(100 c)`.
fn log_sum(cosines: &[f32]) -> f64 {
    let (_, max) = kernels::argmax(cosines);
    let (sum, _) = kernels::exp_sums(cosines, SCALE, f64::from(max));
    SCALE * f64::from(max) + sum.ln()
}

/// Entropy of `softmax(100 c)`.
fn entropy(cosines: &[f32]) -> f64 {
    let (_, max) = kernels::argmax(cosines);
    let (sum, weighted) = kernels::exp_sums(cosines, SCALE, f64::from(max));
    sum.ln() - weighted / sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_memory_gives_up_its_least_certain_image() {
        let mut memory = Kept::default();
        assert!(memory.offer(&[1.0, 0.0], 0.5, 2));
        assert!(memory.offer(&[0.0, 1.0], 0.9, 2));
        assert!(!memory.offer(&[0.6, 0.8], 0.9, 2));
        assert!(memory.offer(&[0.8, 0.6], 0.1, 2));
        assert_eq!(memory.images, [1.0, 0.0, 0.8, 0.6]);
        assert_eq!(memory.entropies, [0.5, 0.1]);
        // A memory of the text alone takes none.
        assert!(!Kept::default().offer(&[1.0, 0.0], 0.5, 0));
    }

    #[test]
    fn equal_weights_give_the_plain_proxy() {
        let mut memory = Kept::default();
        memory.offer(&[0.6, 0.8], 0.1, 9);
        memory.offer(&[0.8, -0.6], 0.1, 9);
        let (text, image) = ([1.0f32, 0.0], [0.28f32, 0.96]);
        memory.gram = memory.gram(&text);
        let mut proxy = [0.0; 2];
        memory.proxy(&text, &mut proxy);
        let plain = f64::from(proxy[0] * image[0] + proxy[1] * image[1]);
        // Cosines of the image to the text and both images.
        let cosines = [0.28, 0.936, -0.352];
        let weighted = memory.weighted_cosine(1e-9, &cosines);
        assert!((plain - weighted).abs() < 1e-6, "{plain} {weighted}");
        let sharp = memory.weighted_cosine(50.0, &cosines);
        assert!((sharp - 0.936).abs() < 1e-3, "{sharp}");
    }
}
