//! TANL: the words that test images activate.
//!
//! As in the authors' OpenOOD-VLM (`activated_neg_postprocessor.py`, `scripts/ood/TANL/official.sh`). The activation of a
//! word by an image is its share in the softmax over classes and all words. A positive queue of activations starts with the
//! class texts, a negative one with noise images; words are ranked by mean(negative) - mean(positive), and the first `words`
//! are used. The score of an image is the mean over j of the mass on the classes against the first j words. For each batch:
//! score with the ranking so far; Otsu's threshold t (grid 0 to 0.99 by 0.01, the middle of equals) over the last `scores`
//! scores, those of class texts and noise included; an image with a score above `t + gap (1 - t)` is taken for
//! in-distribution, one below `t - gap t` for out-of-distribution; rank again with `alpha mean(queue) + (1 - alpha)
//! mean(batch)` of both kinds, where the batch has any; the scores under that ranking are the result; both kinds enter their
//! queues of `queue` images, the oldest leave. The script has alpha = 0 and gap = 0.5, the paper 0.95 and 0.2.
//!
//! Departures from the code: the noise images and the shuffle of the class texts before the queue is filled are drawn from
//! fixed seeds; words of equal rank stay in the order of the lists; scores are computed in f64 where the code rounds the
//! final ones to half precision.
//!
//! Cost per image: one product with all words, one exponential for each, two for each word used. Memory: the words, both
//! queues (`2 queue words` numbers) and the activations of a batch.

use crate::bank::Bank;
use crate::error::OodError;
use crate::info::{DetectorInfo, Needs, Negatives, ParameterInfo};
use crate::kernels;
use crate::parameters::Values;
use crate::stream::{Memory, StreamData, StreamDetector, products};
use clipood_core::SplitMix64;
use rayon::prelude::*;
use std::collections::VecDeque;

/// Scale of the logits.
const SCALE: f64 = crate::block::LOGIT_SCALE;

/// Thresholds that Otsu's rule compares, hundredths.
const GRID: usize = 100;

/// The parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tanl {
    words: usize,
    queue: usize,
    gap: f64,
    alpha: f64,
    scores: usize,
    batch: usize,
}

impl StreamDetector for Tanl {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "tanl",
        summary: "mass on the classes against the words that test images activate",
        formula: "mean over j of sum_id exp(s) / (sum_id exp(s) + sum over the first j words exp(s)), words ranked by their activation",
        paper: "TANL: negative labels activated at test time, as in OpenOOD-VLM (activated_neg_postprocessor.py), 2026",
        needs: Needs {
            texts: true,
            negatives: Some(Negatives::Words),
            stream: true,
            noise: true,
            ..Needs::LOGITS
        },
        cost: "one product with all words; one exponential for each",
        trap: "transductive: a batch is ranked by its own images, so the batch size and the mixture matter; script (alpha=0, gap=0.5) and paper (alpha=0.95, gap=0.2) differ",
        parameters: &[
            ParameterInfo::new(
                "words",
                "1000",
                "words that are used, at least 1; all if there are fewer",
            ),
            ParameterInfo::new("queue", "300", "images of each queue, at least 1"),
            ParameterInfo::new(
                "gap",
                "0.5",
                "share of the way from the threshold to 1 or 0 that an image must pass to be taken, 0 to 1",
            ),
            ParameterInfo::new(
                "alpha",
                "0",
                "weight of the queues against the batch, 0 to 1",
            ),
            ParameterInfo::new(
                "scores",
                "20000",
                "last scores that the threshold is set on, at least 1",
            ),
            ParameterInfo::new("batch", "256", "images that arrive together, at least 1"),
        ],
    };
    const MIN_CLASSES: usize = 1;

    fn read(values: &Values<'_>) -> Result<Self, String> {
        let share = |key: &str| values.number(key, "0 to 1", |x| (0.0..=1.0).contains(&x));
        Ok(Self {
            words: values.count("words")?,
            queue: values.count("queue")?,
            gap: share("gap")?,
            alpha: share("alpha")?,
            scores: values.count("scores")?,
            batch: values.count("batch")?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![
            self.words.to_string(),
            self.queue.to_string(),
            self.gap.to_string(),
            self.alpha.to_string(),
            self.scores.to_string(),
            self.batch.to_string(),
        ]
    }

    fn batch(&self) -> usize {
        self.batch
    }

    fn start(&self, data: &StreamData<'_>) -> Result<Box<dyn Memory>, OodError> {
        let (dim, classes) = (data.dim(), data.classes());
        let text = data.text()?;
        let mut all = text.clone();
        all.extend(data.negatives()?);
        let all = Bank::new(all, dim);
        let words = all.rows() - classes;
        let mut memory = Activated {
            detector: *self,
            classes,
            positive: Queue::new(words, self.queue),
            negative: Queue::new(words, self.queue),
            scores: VecDeque::new(),
            all,
        };
        let noise = data.noise()?;
        let of_text = memory.activate(&text);
        let of_noise = memory.activate(&noise);
        let mut order: Vec<usize> = (0..classes).collect();
        SplitMix64::keyed(0, "tanl queue", 0).shuffle(&mut order);
        for row in order {
            memory.positive.add(of_text.row(row));
        }
        for row in 0..of_noise.rows() {
            memory.negative.add(of_noise.row(row));
        }
        let ranking = memory.ranking(&memory.negative.means(), &memory.positive.means());
        for rows in [&of_text, &of_noise] {
            let scores = memory.masses(rows, &ranking);
            memory.keep_scores(&scores);
        }
        Ok(Box::new(memory))
    }
}

/// The last activations of one kind, `[images, words]`, in a ring.
struct Queue {
    rows: Vec<f32>,
    words: usize,
    room: usize,
    next: usize,
}

impl Queue {
    fn new(words: usize, room: usize) -> Self {
        Self {
            rows: Vec::new(),
            words,
            room,
            next: 0,
        }
    }

    fn add(&mut self, row: &[f32]) {
        if self.rows.len() < self.room * self.words {
            self.rows.extend_from_slice(row);
            return;
        }
        let start = self.next * self.words;
        self.rows[start..start + self.words].copy_from_slice(row);
        self.next = (self.next + 1) % self.room;
    }

    /// Mean activation of each word.
    fn means(&self) -> Vec<f64> {
        means(&self.rows, self.words)
    }
}

/// Means of the columns of `[n, width]`, n at least 1, in parallel over columns.
fn means(rows: &[f32], width: usize) -> Vec<f64> {
    const COLUMNS: usize = 1024;
    let count = (rows.len() / width) as f64;
    let mut sums = vec![0.0; width];
    sums.par_chunks_mut(COLUMNS)
        .enumerate()
        .for_each(|(chunk, sums)| {
            let first = chunk * COLUMNS;
            for row in rows.chunks_exact(width) {
                let row = &row[first..first + sums.len()];
                sums.iter_mut()
                    .zip(row)
                    .for_each(|(s, &x)| *s += f64::from(x));
            }
            sums.iter_mut().for_each(|s| *s /= count);
        });
    sums
}

/// Some images compared with classes and words.
struct Activations {
    /// Cosines to classes, then words, `[images, classes + words]`.
    cosines: Vec<f32>,
    width: usize,
    /// `logsumexp(s)` over the classes, one per image.
    log_sums: Vec<f64>,
    /// Activations of the words, `[images, words]`.
    shares: Vec<f32>,
    words: usize,
}

impl Activations {
    fn rows(&self) -> usize {
        self.log_sums.len()
    }

    /// Activations of the words by one image.
    fn row(&self, row: usize) -> &[f32] {
        &self.shares[row * self.words..(row + 1) * self.words]
    }

    /// Activations of the images that are chosen, one after the other.
    fn chosen(&self, chosen: &[usize]) -> Vec<f32> {
        chosen
            .iter()
            .flat_map(|&row| self.row(row))
            .copied()
            .collect()
    }
}

/// The queues and the last scores.
struct Activated {
    detector: Tanl,
    classes: usize,
    /// Class texts, then words.
    all: Bank,
    positive: Queue,
    negative: Queue,
    scores: VecDeque<f32>,
}

impl Activated {
    /// Compares unit rows with classes and words.
    fn activate(&self, rows: &[f32]) -> Activations {
        let width = self.all.rows();
        let words = width - self.classes;
        let mut cosines = Vec::new();
        products(&self.all, rows, &mut cosines);
        let images = rows.len() / self.all.dim();
        let mut shares = vec![0.0; images * words];
        let log_sums = cosines
            .par_chunks(width)
            .zip(shares.par_chunks_mut(words))
            .map_init(Vec::new, |exponentials, (row, shares)| {
                let (own, others) = row.split_at(self.classes);
                let (_, max) = kernels::argmax(own);
                let (sum, _) = kernels::exp_sums(own, SCALE, f64::from(max));
                let log_sum = SCALE * f64::from(max) + sum.ln();
                exponentials.resize(words, 0.0);
                // Relative to the classes: their sum is 1.
                let sum = kernels::exp_scaled(others, SCALE, log_sum / SCALE, exponentials);
                let pairs = shares.iter_mut().zip(exponentials.iter());
                pairs.for_each(|(share, e)| *share = (e / (1.0 + sum)) as f32);
                log_sum
            })
            .collect();
        Activations {
            cosines,
            width,
            log_sums,
            shares,
            words,
        }
    }

    /// The words to use, the most negative first.
    fn ranking(&self, negative: &[f64], positive: &[f64]) -> Vec<u32> {
        let rank: Vec<f64> = negative.iter().zip(positive).map(|(n, p)| n - p).collect();
        let order = |a: &u32, b: &u32| {
            let (x, y) = (rank[*a as usize], rank[*b as usize]);
            y.total_cmp(&x).then(a.cmp(b))
        };
        let mut words: Vec<u32> = (0..rank.len() as u32).collect();
        let count = self.detector.words.min(words.len());
        if count < words.len() {
            words.select_nth_unstable_by(count, order);
            words.truncate(count);
        }
        words.sort_unstable_by(order);
        words
    }

    /// The score of each image under a ranking.
    fn masses(&self, images: &Activations, ranking: &[u32]) -> Vec<f32> {
        images
            .cosines
            .par_chunks(images.width)
            .zip(&images.log_sums)
            .map_init(
                || (Vec::new(), vec![0.0; ranking.len()]),
                |(cosines, exponentials), (row, log_sum)| {
                    cosines.clear();
                    cosines.extend(ranking.iter().map(|&w| row[self.classes + w as usize]));
                    kernels::exp_scaled(cosines, SCALE, log_sum / SCALE, exponentials);
                    let (mut outside, mut total) = (0.0, 0.0);
                    for e in exponentials.iter() {
                        outside += e;
                        total += 1.0 / (1.0 + outside);
                    }
                    (total / ranking.len() as f64) as f32
                },
            )
            .collect()
    }

    fn keep_scores(&mut self, scores: &[f32]) {
        self.scores.extend(scores);
        let surplus = self.scores.len().saturating_sub(self.detector.scores);
        self.scores.drain(..surplus);
    }

    /// Queue means joined with the means of the chosen images of the batch, if there are any.
    fn joined(&self, queue: &Queue, images: &Activations, chosen: &[usize]) -> Vec<f64> {
        let mut joined = queue.means();
        if chosen.is_empty() {
            return joined;
        }
        let alpha = self.detector.alpha;
        let batch = means(&images.chosen(chosen), images.words);
        let pairs = joined.iter_mut().zip(batch);
        pairs.for_each(|(mean, own)| *mean = alpha * *mean + (1.0 - alpha) * own);
        joined
    }
}

impl Memory for Activated {
    fn score(&mut self, images: &[f32]) -> Vec<f32> {
        let images = self.activate(images);
        let ranking = self.ranking(&self.negative.means(), &self.positive.means());
        let before = self.masses(&images, &ranking);
        self.keep_scores(&before);
        let t = otsu(self.scores.iter().map(|&s| f64::from(s)));
        let gap = self.detector.gap;
        let chosen = |ok: &dyn Fn(f64) -> bool| -> Vec<usize> {
            let scores = before.iter().enumerate();
            let scores = scores.filter(|(_, s)| ok(f64::from(**s)));
            scores.map(|(row, _)| row).collect()
        };
        let inside = chosen(&|s| s > t + gap * (1.0 - t));
        let outside = chosen(&|s| s < t - gap * t);
        let positive = self.joined(&self.positive, &images, &inside);
        let negative = self.joined(&self.negative, &images, &outside);
        let scores = self.masses(&images, &self.ranking(&negative, &positive));
        for row in inside {
            self.positive.add(images.row(row));
        }
        for row in outside {
            self.negative.add(images.row(row));
        }
        scores
    }
}

/// The threshold i / 100 with the smallest variance inside the two parts of the scores (Otsu, 1979), both not empty; of
/// equals the middle one, the upper of two.
fn otsu(scores: impl Iterator<Item = f64>) -> f64 {
    // Number, sum and sum of squares of the scores at or above each threshold, but below the next.
    let mut bins = [(0.0f64, 0.0f64, 0.0f64); GRID];
    for score in scores {
        let mut bin = ((score * GRID as f64) as usize).min(GRID - 1);
        // The product may round to the wrong side of a threshold.
        while bin > 0 && score < grid(bin) {
            bin -= 1;
        }
        while bin + 1 < GRID && score >= grid(bin + 1) {
            bin += 1;
        }
        bins[bin].0 += 1.0;
        bins[bin].1 += score;
        bins[bin].2 += score * score;
    }
    let add = |a: (f64, f64, f64), b: &(f64, f64, f64)| (a.0 + b.0, a.1 + b.1, a.2 + b.2);
    let scatter = |(n, sum, squares): (f64, f64, f64)| squares - sum * sum / n;
    let mut best = (f64::INFINITY, Vec::new());
    for i in 0..GRID {
        let below = bins[..i].iter().fold((0.0, 0.0, 0.0), add);
        let above = bins[i..].iter().fold((0.0, 0.0, 0.0), add);
        let inside = match below.0 > 0.0 && above.0 > 0.0 {
            true => scatter(below) + scatter(above),
            false => f64::INFINITY,
        };
        // Empty bins change no sum, so equal parts have equal scatter.
        if inside < best.0 {
            best = (inside, vec![i]);
        } else if inside == best.0 {
            best.1.push(i);
        }
    }
    let middle = best.1.get(best.1.len() / 2);
    middle.map_or(0.0, |&i| grid(i))
}

/// The i-th threshold.
fn grid(i: usize) -> f64 {
    i as f64 * 0.01
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn otsu_lies_in_the_middle_between_two_heaps() {
        let low = [0.02, 0.05, 0.08];
        let high = [0.9, 0.95];
        // Thresholds 0.09 to 0.9 part the heaps alike: 82 of them, the middle is the 42nd.
        let t = otsu(low.into_iter().chain(high));
        assert!((t - 0.5).abs() < 1e-12, "{t}");
        // One heap below the first threshold above it: nothing to part.
        assert!((otsu([0.5; 4].into_iter()) - 0.5).abs() < 1e-12);
        assert!(otsu([1.0, 0.0].into_iter()) > 0.0);
    }

    #[test]
    fn the_oldest_leave_a_queue() {
        let mut queue = Queue::new(1, 2);
        for x in [1.0, 2.0, 3.0] {
            queue.add(&[x]);
        }
        assert_eq!(queue.means(), [2.5]);
        queue.add(&[7.0]);
        assert_eq!(queue.means(), [5.0]);
    }
}
