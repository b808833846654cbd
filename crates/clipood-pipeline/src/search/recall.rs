//! Recall@k of texts and images that belong together, in both directions, as CLIP's retrieval benchmarks count it.

use std::collections::BTreeMap;

use clipood_kernels::matrix::{Matrix, MatrixMut, parallel_product};
use rayon::prelude::*;

/// The k of Recall@k.
const DEPTHS: [usize; 3] = [1, 5, 10];
/// Queries that are compared at a time.
const BLOCK: usize = 256;

/// Shares of queries with a partner among the k nearest candidates, 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Recall {
    /// Number of queries.
    pub queries: usize,
    /// Number of candidates.
    pub candidates: usize,
    /// k with the share of the queries.
    pub at: Vec<(usize, f64)>,
}

/// Recall of pairs in both directions.
#[derive(Debug, Clone, PartialEq)]
pub struct BothRecalls {
    /// Each text looks for its image.
    pub text_to_image: Recall,
    /// Each image looks for any of its texts.
    pub image_to_text: Recall,
}

/// Recall of texts `[texts, dim]` and images `[images, dim]`, all rows of length 1; `image_of` is the image of each text. Images without
/// a text are no candidates. Equal cosines count in the order of the rows.
///
/// # Panics
/// The slices do not fit, or an image has a number beyond the rows.
pub fn recall(texts: &[f32], images: &[f32], dim: usize, image_of: &[usize]) -> BothRecalls {
    // Images with a text, renumbered without gaps.
    let mut texts_of: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (text, image) in image_of.iter().enumerate() {
        texts_of.entry(*image).or_default().push(text);
    }
    let wanted: Vec<f32> = texts_of
        .keys()
        .flat_map(|image| &images[image * dim..(image + 1) * dim])
        .copied()
        .collect();
    let mut image_places = vec![Vec::new(); image_of.len()];
    for (place, texts) in texts_of.values().enumerate() {
        for text in texts {
            image_places[*text].push(place);
        }
    }
    let texts_of: Vec<Vec<usize>> = texts_of.into_values().collect();
    BothRecalls {
        text_to_image: one_way(texts, &wanted, dim, &image_places),
        image_to_text: one_way(&wanted, texts, dim, &texts_of),
    }
}

fn one_way(queries: &[f32], candidates: &[f32], dim: usize, partners: &[Vec<usize>]) -> Recall {
    let ranks = ranks(queries, candidates, dim, partners);
    let share = |k: usize| {
        let found = ranks.iter().filter(|rank| **rank < k).count();
        found as f64 / ranks.len().max(1) as f64
    };
    Recall {
        queries: ranks.len(),
        candidates: candidates.len() / dim.max(1),
        at: DEPTHS.map(|k| (k, share(k))).to_vec(),
    }
}

/// For each query the number of candidates that are nearer than its nearest partner.
fn ranks(queries: &[f32], candidates: &[f32], dim: usize, partners: &[Vec<usize>]) -> Vec<usize> {
    let count = candidates.len() / dim.max(1);
    let mut ranks = Vec::with_capacity(partners.len());
    let mut cosines = vec![0f32; BLOCK.min(partners.len()) * count];
    for (queries, partners) in queries
        .chunks(BLOCK * dim.max(1))
        .zip(partners.chunks(BLOCK))
    {
        let cosines = &mut cosines[..partners.len() * count];
        parallel_product(
            Matrix::new(queries, partners.len(), dim, dim),
            Matrix::new(candidates, count, dim, dim).transposed(),
            MatrixMut::new(cosines, partners.len(), count, count),
            false,
        );
        let block = cosines
            .par_chunks(count)
            .zip(partners)
            .map(|(row, partners)| {
                let nearer = |a: usize, b: usize| row[b].total_cmp(&row[a]).then(a.cmp(&b)).is_lt();
                let best = partners
                    .iter()
                    .copied()
                    .reduce(|a, b| if nearer(b, a) { b } else { a });
                // Every query has a partner: those without were left out.
                best.map_or(count, |best| {
                    (0..count).filter(|other| nearer(*other, best)).count()
                })
            });
        ranks.par_extend(block);
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partners_are_looked_for_in_both_directions() {
        // Three images on the axes and one without a text; texts 0 and 1 belong to image 0, text 2 to image 2.
        let images = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]].concat();
        let texts = [
            [0.0, 0.0, 1.0], // nearest is image 2, a mistake
            [0.8, 0.0, 0.6],
            [0.6, 0.0, 0.8],
        ]
        .concat();
        let both = recall(&texts, &images, 3, &[0, 0, 2]);
        // Image 1 has no text: two candidates.
        assert_eq!(both.text_to_image.candidates, 2);
        assert_eq!(both.text_to_image.at, [(1, 2.0 / 3.0), (5, 1.0), (10, 1.0)]);
        // Image 0 finds text 1 first; image 2 finds text 0 before its own.
        assert_eq!(both.image_to_text.queries, 2);
        assert_eq!(both.image_to_text.at, [(1, 0.5), (5, 1.0), (10, 1.0)]);
    }

    #[test]
    fn equal_candidates_count_in_their_order() {
        let rows = [1.0f32, 0.0].repeat(3);
        assert_eq!(ranks(&rows[..2], &rows, 2, &[vec![2]]), [2]);
        assert_eq!(ranks(&rows[..2], &rows, 2, &[vec![2, 0]]), [0]);
    }

    #[test]
    fn more_queries_than_a_block_are_compared() {
        let angles: Vec<f32> = (0..600).map(|i| i as f32 * 0.01).collect();
        let rows: Vec<f32> = angles.iter().flat_map(|a| [a.cos(), a.sin()]).collect();
        let own: Vec<usize> = (0..600).collect();
        let both = recall(&rows, &rows, 2, &own);
        assert_eq!(both.text_to_image.at[0], (1, 1.0));
        assert_eq!(both.image_to_text.at[0], (1, 1.0));
    }
}
