//! The t-SNE map of a sample of the global features (van der Maaten, "Accelerating t-SNE using Tree-Based Algorithms", 2014).

use bhtsne::{Neighbor, tSNE};
use clipood_core::SplitMix64;

use super::bounds::{MAPPED, MAPPED_PARTS};
use super::figures::scatter::Cloud;
use crate::error::Result;
use crate::features::{normalise_rows, read_features};
use crate::job::Job;
use crate::plan::Purpose;
use crate::planned::Planned;

/// Seed of the sample and of the first places of its points.
pub const SEED: u64 = 0;
/// Perplexity, unless the sample is too small for it.
pub const PERPLEXITY: f32 = 30.0;
/// Steps of the descent.
pub const EPOCHS: usize = 600;
/// Fewest points that make a map.
const FEWEST: usize = 12;

/// The features of some test images.
struct Sample {
    /// `[images, width]`, normalised.
    features: Vec<f32>,
    width: usize,
    /// Dataset (by its place) and key of each image.
    images: Vec<(usize, String)>,
}

/// One cloud per test dataset; `None` for too few images.
///
/// # Errors
/// Features that are missing or damaged.
pub fn clouds(job: &Job, planned: &Planned) -> Result<Option<Vec<Cloud>>> {
    let sample = sample(job, planned)?;
    if sample.images.len() < FEWEST {
        return Ok(None);
    }
    let places = embed(&sample.features, sample.width);
    let mut clouds: Vec<Cloud> = planned
        .plan
        .datasets_for(Purpose::Test)
        .map(|dataset| Cloud {
            name: dataset.name.clone(),
            points: Vec::new(),
        })
        .collect();
    for ((dataset, key), place) in sample.images.into_iter().zip(places.chunks_exact(2)) {
        clouds[dataset]
            .points
            .push((f64::from(place[0]), f64::from(place[1]), key));
    }
    Ok(Some(clouds))
}

/// Half of the sample is of the in-distribution images, the rest in equal parts of the OOD sets.
fn sample(job: &Job, planned: &Planned) -> Result<Sample> {
    let mut all = Sample {
        features: Vec::new(),
        width: job.experiment.dim(),
        images: Vec::new(),
    };
    let datasets: Vec<_> = planned.plan.datasets_for(Purpose::Test).collect();
    let share = MAPPED / 2 / (datasets.len() - 1).max(1);
    for (number, dataset) in datasets.iter().enumerate() {
        let wanted = if dataset.is_id() { MAPPED / 2 } else { share };
        let mut shards = planned.shards_for(Purpose::Test);
        shards.retain(|shard| shard.dataset.name == dataset.name);
        let every = shards.len().div_ceil(MAPPED_PARTS).max(1);
        let read: Vec<_> = shards.iter().step_by(every).collect();
        let each = wanted.div_ceil(read.len().max(1));
        for shard in read {
            let block = read_features(job, shard.features, false)?;
            let rows = drawn(block.keys.len(), each, shard.number as u64);
            for row in rows {
                let feature = &block.global[row * all.width..(row + 1) * all.width];
                all.features.extend_from_slice(feature);
                all.images.push((number, block.keys[row].clone()));
            }
        }
    }
    normalise_rows(&mut all.features, all.width);
    Ok(all)
}

/// At most `wanted` of the numbers below `n`, in order.
fn drawn(n: usize, wanted: usize, part: u64) -> Vec<usize> {
    let mut rng = SplitMix64::keyed(SEED, "t-SNE sample", part);
    let mut numbers: Vec<usize> = (0..n).collect();
    let kept = wanted.min(n);
    for place in 0..kept {
        let other = place + rng.below((n - place) as u64) as usize;
        numbers.swap(place, other);
    }
    numbers.truncate(kept);
    numbers.sort_unstable();
    numbers
}

/// Places `[rows, 2]` of features `[rows, width]`. The neighbours are found by comparison with all others, and the first
/// places are drawn by [`SEED`], so that equal features make equal maps.
fn embed(features: &[f32], width: usize) -> Vec<f32> {
    let rows: Vec<&[f32]> = features.chunks_exact(width).collect();
    // Three times the perplexity is the number of neighbours, which must be fewer than the other rows.
    let perplexity = PERPLEXITY.min((rows.len() - 1) as f32 / 4.0).max(1.0);
    let k = ((3.0 * perplexity) as usize).clamp(1, rows.len() - 1);
    let neighbors: Vec<Vec<Neighbor<f32>>> =
        (0..rows.len()).map(|row| nearest(&rows, row, k)).collect();
    let mut rng = SplitMix64::keyed(SEED, "t-SNE places", 0);
    let start: Vec<f32> = (0..2 * rows.len())
        .map(|_| (1e-4 * (rng.unit() - 0.5)) as f32)
        .collect();
    let places = || {
        let mut map: tSNE<'_, f32, &[f32]> = tSNE::new(&rows);
        map.perplexity(perplexity)
            .epochs(EPOCHS)
            .initial_embedding(start.clone())
            .barnes_hut_with_neighbors(0.5, &neighbors);
        map.embedding()
    };
    // Sums on several threads have their own order each time.
    match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
        Ok(pool) => pool.install(places),
        Err(_) => places(),
    }
}

/// The `k` nearest other rows by Euclidean distance, the nearest first.
fn nearest(rows: &[&[f32]], row: usize, k: usize) -> Vec<Neighbor<f32>> {
    let distance = |other: &[f32]| -> f32 {
        let squares = rows[row].iter().zip(other).map(|(a, b)| (a - b) * (a - b));
        squares.sum::<f32>().sqrt()
    };
    let others = rows.iter().enumerate().filter(|(place, _)| *place != row);
    let mut others: Vec<(f32, usize)> = others
        .map(|(place, other)| (distance(other), place))
        .collect();
    others.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    others.truncate(k);
    let neighbor = |(distance, index): (f32, usize)| Neighbor { index, distance };
    others.into_iter().map(neighbor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separate_groups_stay_separate_and_maps_repeat() {
        let mut rng = SplitMix64::keyed(3, "map", 0);
        let mut features = Vec::new();
        for row in 0..60 {
            let centre = if row < 30 { 0.0 } else { 5.0 };
            features.extend((0..8).map(|_| (centre + rng.unit()) as f32));
        }
        let places = embed(&features, 8);
        assert_eq!(places, embed(&features, 8));
        let distance = |a: usize, b: usize| {
            let d = |axis: usize| places[2 * a + axis] - places[2 * b + axis];
            d(0).hypot(d(1))
        };
        // The nearest other point is of the same group.
        for row in 0..60usize {
            let near = (0..60)
                .filter(|o| *o != row)
                .min_by(|a, b| distance(row, *a).total_cmp(&distance(row, *b)));
            assert_eq!(near.unwrap() < 30, row < 30, "{row}");
        }
    }

    #[test]
    fn a_draw_has_distinct_numbers() {
        let numbers = drawn(100, 40, 1);
        assert_eq!(numbers.len(), 40);
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(drawn(3, 40, 1), [0, 1, 2]);
        assert!(drawn(0, 4, 1).is_empty());
    }
}
