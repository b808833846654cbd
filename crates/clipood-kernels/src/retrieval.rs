//! The nearest rows by cosine, exactly, at the cost of reading one byte per value.
//!
//! Rows of unit length are kept twice: as float32, and as bytes with one scale per row ([`quantize`]). The bytes of all rows
//! are compared with the query. The residual of a row, the length of what its bytes leave out, bounds the error of that
//! comparison (Cauchy-Schwarz), so that only rows whose bound reaches the k-th best need float32.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rayon::prelude::*;

use crate::vectorized;

/// Largest magnitude of a code.
const LARGEST: f32 = 127.0;
/// Rows that one thread compares at a time.
const CHUNK: usize = 4096;
/// Partial sums of a product of a row and the query.
const LANES: usize = 16;

/// Rows to search.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Values per row.
    pub dim: usize,
    /// `[rows, dim]`, each row of length 1.
    pub exact: &'a [f32],
    /// `[rows, dim]`, of [`quantize`].
    pub codes: &'a [i8],
    /// `[rows]`: a code times its row's scale is about the value.
    pub scales: &'a [f32],
    /// `[rows]`: length of the difference of a row and its codes times their scale.
    pub residuals: &'a [f32],
}

/// A row and its cosine with the query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Number of the row.
    pub row: usize,
    /// -1 to 1.
    pub cosine: f64,
}

/// Writes the codes of a row of length 1; returns its scale and its residual.
///
/// # Panics
/// The slices differ in length.
pub fn quantize(row: &[f32], codes: &mut [i8]) -> (f32, f32) {
    assert_eq!(row.len(), codes.len(), "one code per value");
    let largest = row.iter().fold(0f32, |most, value| most.max(value.abs()));
    let scale = largest / LARGEST;
    if scale == 0.0 || !scale.is_finite() {
        codes.fill(0);
        return (0.0, 1.0);
    }
    let mut square = 0f64;
    for (value, code) in row.iter().zip(codes) {
        *code = (value / scale).round() as i8;
        let rest = f64::from(*value) - f64::from(*code) * f64::from(scale);
        square += rest * rest;
    }
    // Rounded up, because it is a bound.
    (scale, (square.sqrt() * (1.0 + 1e-6)) as f32)
}

impl Rows<'_> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.scales.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }

    /// The exact cosine of a row with a query of length 1.
    fn cosine(&self, row: usize, query: &[f32]) -> f64 {
        let values = &self.exact[row * self.dim..][..self.dim];
        let products = values.iter().zip(query);
        products.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    /// The `k` rows with the largest cosine with `query` (of length 1) among those that `keep` accepts, the nearest first;
    /// equal ones in the order of their numbers. Fewer if fewer are accepted.
    ///
    /// # Panics
    /// The slices do not fit each other or the query.
    pub fn nearest(
        &self,
        query: &[f32],
        k: usize,
        keep: impl Fn(usize) -> bool + Sync,
    ) -> Vec<Hit> {
        let rows = self.len();
        assert!(
            query.len() == self.dim
                && self.exact.len() == rows * self.dim
                && self.codes.len() == rows * self.dim
                && self.residuals.len() == rows,
            "{rows} rows of {} values and a query of {} do not fit",
            self.dim,
            query.len()
        );
        if k == 0 || rows == 0 || self.dim == 0 {
            return Vec::new();
        }
        // Largest error of a float32 sum of `dim` products of two unit vectors.
        let rounding = 2.0 * self.dim as f32 * f32::EPSILON;
        let mut about = vec![f32::NEG_INFINITY; rows];
        let bounds: Vec<BinaryHeap<Reverse<Ordered>>> = about
            .par_chunks_mut(CHUNK)
            .enumerate()
            .map(|(chunk, about)| {
                let first = chunk * CHUNK;
                self.compare(first, query, about);
                let mut best = BinaryHeap::with_capacity(k.min(CHUNK) + 1);
                for (place, about) in about.iter_mut().enumerate() {
                    let row = first + place;
                    if !keep(row) {
                        *about = f32::NEG_INFINITY;
                        continue;
                    }
                    // At least this.
                    push(&mut best, *about - self.residuals[row] - rounding, k);
                }
                best
            })
            .collect();
        let mut best = BinaryHeap::new();
        for Reverse(Ordered(bound)) in bounds.into_iter().flatten() {
            push(&mut best, bound, k);
        }
        // The k-th best is at least this good, if there are k.
        let least = match best.peek() {
            Some(Reverse(Ordered(bound))) if best.len() == k => *bound,
            _ => f32::NEG_INFINITY,
        };
        let mut hits: Vec<Hit> = about
            .par_iter()
            .zip(self.residuals)
            .enumerate()
            .filter(|(_, (about, residual))| {
                about.is_finite() && **about + **residual + rounding >= least
            })
            .map(|(row, _)| Hit {
                row,
                cosine: self.cosine(row, query),
            })
            .collect();
        hits.sort_unstable_by(|a, b| b.cosine.total_cmp(&a.cosine).then(a.row.cmp(&b.row)));
        hits.truncate(k);
        hits
    }

    /// Products of the codes of the rows from `first` on with the query, times their scales.
    fn compare(&self, first: usize, query: &[f32], out: &mut [f32]) {
        let codes = &self.codes[first * self.dim..][..out.len() * self.dim];
        vectorized(
            #[inline(always)]
            || {
                for ((codes, scale), out) in codes
                    .chunks_exact(self.dim)
                    .zip(&self.scales[first..])
                    .zip(out)
                {
                    let mut sums = [0f32; LANES];
                    let whole = codes.chunks_exact(LANES);
                    let tail = whole.remainder();
                    for (codes, query) in whole.zip(query.chunks_exact(LANES)) {
                        for i in 0..LANES {
                            sums[i] = f32::from(codes[i]).mul_add(query[i], sums[i]);
                        }
                    }
                    let mut sum: f32 = sums.iter().sum();
                    for (code, query) in tail.iter().zip(&query[self.dim - tail.len()..]) {
                        sum += f32::from(*code) * query;
                    }
                    *out = sum * scale;
                }
            },
        );
    }
}

/// A number in total order.
#[derive(PartialEq)]
struct Ordered(f32);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Adds a number to the `k` largest, of which the smallest is on top.
fn push(best: &mut BinaryHeap<Reverse<Ordered>>, value: f32, k: usize) {
    if best.len() < k {
        best.push(Reverse(Ordered(value)));
    } else if best.peek().is_some_and(|least| value > least.0.0) {
        best.pop();
        best.push(Reverse(Ordered(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Rows of length 1 from few different ones, so that some are equal.
    fn unit_rows(rows: usize, dim: usize, seed: u64) -> Vec<f32> {
        let mut state = seed | 1;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32) / (1u64 << 24) as f32 - 0.5
        };
        let mut all = Vec::with_capacity(rows * dim);
        for row in 0..rows {
            if row % 7 == 3 && row > 3 {
                let again: Vec<f32> = all[(row - 3) * dim..][..dim].to_vec();
                all.extend(again);
                continue;
            }
            // A common part, as CLIP's features have: most cosines are close to each other.
            let values: Vec<f32> = (0..dim)
                .map(|i| next() + if i == 0 { 3.0 } else { 0.0 })
                .collect();
            let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
            all.extend(values.iter().map(|v| v / norm));
        }
        all
    }

    struct Owned {
        dim: usize,
        exact: Vec<f32>,
        codes: Vec<i8>,
        scales: Vec<f32>,
        residuals: Vec<f32>,
    }

    impl Owned {
        fn new(exact: Vec<f32>, dim: usize) -> Self {
            let mut codes = vec![0; exact.len()];
            let (scales, residuals) = exact
                .chunks_exact(dim)
                .zip(codes.chunks_exact_mut(dim))
                .map(|(row, codes)| quantize(row, codes))
                .unzip();
            Self {
                dim,
                exact,
                codes,
                scales,
                residuals,
            }
        }

        fn rows(&self) -> Rows<'_> {
            Rows {
                dim: self.dim,
                exact: &self.exact,
                codes: &self.codes,
                scales: &self.scales,
                residuals: &self.residuals,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn the_nearest_are_those_of_comparing_every_row(
            rows in 1usize..600, dim in 1usize..70, k in 0usize..40, seed: u64, every in 1usize..4,
        ) {
            let exact = unit_rows(rows, dim, seed);
            let query = unit_rows(1, dim, seed ^ 0x5555);
            let owned = Owned::new(exact.clone(), dim);
            let found = owned.rows().nearest(&query, k, |row| row % every == 0);
            let mut all: Vec<Hit> = (0..rows)
                .filter(|row| row % every == 0)
                .map(|row| Hit { row, cosine: owned.rows().cosine(row, &query) })
                .collect();
            all.sort_by(|a, b| b.cosine.total_cmp(&a.cosine).then(a.row.cmp(&b.row)));
            all.truncate(k);
            prop_assert_eq!(found, all);
        }

        #[test]
        fn a_residual_bounds_the_error_of_the_codes(dim in 1usize..90, seed: u64) {
            let owned = Owned::new(unit_rows(1, dim, seed), dim);
            let query = unit_rows(1, dim, seed ^ 0x77);
            let mut about = [0f32];
            owned.rows().compare(0, &query, &mut about);
            let error = (f64::from(about[0]) - owned.rows().cosine(0, &query)).abs();
            let rounding = 2.0 * dim as f64 * f64::from(f32::EPSILON);
            prop_assert!(error <= f64::from(owned.residuals[0]) + rounding, "{}", error);
        }
    }

    #[test]
    fn more_rows_than_a_chunk_are_searched() {
        let dim = 24;
        let owned = Owned::new(unit_rows(3 * CHUNK + 5, dim, 9), dim);
        for row in [0, CHUNK, 3 * CHUNK + 4] {
            let query = owned.exact[row * dim..][..dim].to_vec();
            let hits = owned.rows().nearest(&query, 3, |_| true);
            assert!(
                hits.iter().any(|hit| hit.row == row) && hits[0].cosine > 1.0 - 1e-6,
                "{hits:?}"
            );
        }
    }

    #[test]
    fn a_row_without_direction_is_compared_exactly() {
        let mut codes = [1i8; 4];
        assert_eq!(quantize(&[0.0; 4], &mut codes), (0.0, 1.0));
        assert_eq!(codes, [0; 4]);
    }
}
