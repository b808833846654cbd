//! Sequential minimal optimisation of the one-class SVM, in libsvm's formulation.
//!
//! `min 1/2 a^T K a, 0 <= a_i <= 1, sum a = nu n`, two variables at a time, chosen by second-order information: Fan, Chen
//! and Lin, "Working Set Selection Using Second Order Information for Training Support Vector Machines", JMLR 2005.
//!
//! Written here rather than taken from linfa-svm 0.8, which gives the same values but holds the whole kernel matrix in
//! f64 and fills it pair by pair: 4,000 shots of width 512 took 12 s and 156 MB there, and both grow with the square, so
//! ImageNet's 16,000 shots would take minutes and 2 GB. Here kernel rows are made when needed and kept within a fixed
//! memory.

use crate::kernels;
use rayon::prelude::*;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Weights, one per shot, and the offset of the decision function.
pub(crate) struct Solution {
    pub(crate) alphas: Vec<f64>,
    pub(crate) rho: f64,
}

/// Kernel rows are kept up to this many bytes.
const CACHE_BYTES: usize = 256 << 20;

/// The largest violation of optimality that is accepted, relative to `nu n` (the scale of the gradients). libsvm's default
/// of 1e-3 leaves errors of 3e-4 in the decision function.
const TOLERANCE: f64 = 1e-8;

/// Curvature below which two shots count as equal, as in libsvm.
const MIN_CURVATURE: f64 = 1e-12;

/// Solves for unit shots `[n, dim]`; `None` if the iteration limit is reached.
pub(crate) fn one_class(shots: &[f32], dim: usize, gamma: f64, nu: f64) -> Option<Solution> {
    let n = shots.len() / dim;
    let budget = nu * n as f64;
    let mut rows = KernelRows::new(shots, dim, gamma);
    let mut alphas = outermost_first(shots, dim, budget);
    let mut gradient = vec![0.0; n];
    for (i, &alpha) in alphas.iter().enumerate() {
        if alpha > 0.0 {
            let row = rows.compute(i);
            add_scaled(&mut gradient, &row, alpha);
        }
    }
    let tolerance = TOLERANCE * budget.max(1.0);
    let limit = 1_000_000 + 100 * n;
    for _ in 0..limit {
        // The variable that gains most from growing.
        let grow = (0..n)
            .filter(|&i| alphas[i] < 1.0)
            .min_by(|&a, &b| gradient[a].total_cmp(&gradient[b]));
        let Some(grow) = grow else {
            break;
        };
        let row = rows.get(grow);
        // Its partner: the decrease of the objective is b^2 / (2 a) along the pair's direction.
        let mut partner = None;
        let mut best_gain = 0.0;
        let mut violation: f64 = 0.0;
        for t in 0..n {
            let slope = gradient[t] - gradient[grow];
            if alphas[t] > 0.0 && slope > 0.0 {
                violation = violation.max(slope);
                let gain = slope * slope / curvature(row[t]);
                if gain > best_gain {
                    (best_gain, partner) = (gain, Some(t));
                }
            }
        }
        let Some(partner) = partner.filter(|_| violation >= tolerance) else {
            return Some(finish(alphas, &gradient));
        };
        let step = ((gradient[partner] - gradient[grow]) / curvature(row[partner]))
            .min(1.0 - alphas[grow])
            .min(alphas[partner]);
        // Assigned rather than added at the bounds, so that they are met exactly.
        alphas[grow] = if step == 1.0 - alphas[grow] {
            1.0
        } else {
            alphas[grow] + step
        };
        alphas[partner] = if step == alphas[partner] {
            0.0
        } else {
            alphas[partner] - step
        };
        let other = rows.get(partner);
        add_scaled(&mut gradient, &row, step);
        add_scaled(&mut gradient, &other, -step);
    }
    // With nu = 1 every weight is at its bound and there is nothing to move.
    alphas
        .iter()
        .all(|&alpha| alpha >= 1.0)
        .then(|| finish(alphas, &gradient))
}

/// `K_ii + K_tt - 2 K_it` with a unit diagonal.
fn curvature(kernel: f32) -> f64 {
    (2.0 - 2.0 * f64::from(kernel)).max(MIN_CURVATURE)
}

fn add_scaled(out: &mut [f64], row: &[f32], factor: f64) {
    out.iter_mut()
        .zip(row)
        .for_each(|(o, &x)| *o += factor * f64::from(x));
}

/// The offset: the mean gradient of the free variables, or the middle of what the bounds allow.
fn finish(alphas: Vec<f64>, gradient: &[f64]) -> Solution {
    let free: Vec<f64> = alphas
        .iter()
        .zip(gradient)
        .filter(|&(&a, _)| a > 0.0 && a < 1.0)
        .map(|(_, &g)| g)
        .collect();
    let rho = if free.is_empty() {
        let mut low = f64::NEG_INFINITY;
        let mut high = f64::INFINITY;
        for (&alpha, &g) in alphas.iter().zip(gradient) {
            if alpha > 0.0 {
                low = low.max(g);
            } else {
                high = high.min(g);
            }
        }
        // nu = 1 leaves no variable at 0: the outermost shot is then the boundary.
        if high.is_finite() {
            0.5 * (low + high)
        } else {
            low
        }
    } else {
        free.iter().sum::<f64>() / free.len() as f64
    };
    Solution { alphas, rho }
}

/// A start near the solution: weight 1 on the shots farthest from the mean direction, the rest of the budget on the next.
fn outermost_first(shots: &[f32], dim: usize, budget: f64) -> Vec<f64> {
    let n = shots.len() / dim;
    let mut mean = vec![0.0; dim];
    for row in shots.chunks_exact(dim) {
        mean.iter_mut()
            .zip(row)
            .for_each(|(m, x)| *m += f64::from(*x) / n as f64);
    }
    let mean: Vec<f32> = mean.into_iter().map(|x| x as f32).collect();
    let mut closeness = vec![0.0; n];
    kernels::products_with(&mean, shots, &mut closeness);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| closeness[a].total_cmp(&closeness[b]));
    let mut alphas = vec![0.0; n];
    let mut left = budget;
    for i in order {
        alphas[i] = left.clamp(0.0, 1.0);
        left -= 1.0;
    }
    alphas
}

/// Rows of the kernel matrix, computed when asked for, the oldest forgotten first.
struct KernelRows<'a> {
    shots: &'a [f32],
    dim: usize,
    gamma: f64,
    kept: HashMap<usize, Arc<[f32]>>,
    age: VecDeque<usize>,
    capacity: usize,
}

impl<'a> KernelRows<'a> {
    fn new(shots: &'a [f32], dim: usize, gamma: f64) -> Self {
        let row_bytes = shots.len() / dim * size_of::<f32>();
        Self {
            shots,
            dim,
            gamma,
            kept: HashMap::new(),
            age: VecDeque::new(),
            capacity: (CACHE_BYTES / row_bytes.max(1)).max(2),
        }
    }

    fn get(&mut self, i: usize) -> Arc<[f32]> {
        if let Some(row) = self.kept.get(&i) {
            return Arc::clone(row);
        }
        let row: Arc<[f32]> = self.compute(i).into();
        if self.kept.len() >= self.capacity
            && let Some(oldest) = self.age.pop_front()
        {
            self.kept.remove(&oldest);
        }
        self.age.push_back(i);
        self.kept.insert(i, Arc::clone(&row));
        row
    }

    fn compute(&self, i: usize) -> Vec<f32> {
        const CHUNK: usize = 512;
        let shot = &self.shots[i * self.dim..(i + 1) * self.dim];
        let mut row = vec![0.0; self.shots.len() / self.dim];
        row.par_chunks_mut(CHUNK)
            .zip(self.shots.par_chunks(CHUNK * self.dim))
            .for_each(|(row, shots)| {
                kernels::products_with(shot, shots, row);
                let mut exponentials = vec![0.0; row.len()];
                kernels::exp_scaled(row, 2.0 * self.gamma, 1.0, &mut exponentials);
                row.iter_mut()
                    .zip(&exponentials)
                    .for_each(|(o, &e)| *o = e as f32);
            });
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Matrix;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// The optimality conditions hold: sum of weights, bounds, and gradients on the right side of rho.
        #[test]
        fn solution_is_optimal(
            points in prop::collection::vec(prop::array::uniform4(-1.0f32..1.0), 1..60),
            nu in 0.05..1.0f64,
            gamma in 0.1..4.0f64,
        ) {
            let n = points.len();
            let points = points.concat();
            let shots = Matrix::new("points", &points, n, 4).unwrap().normalized();
            prop_assume!(shots.is_ok());
            let shots = shots.unwrap();
            let solution = one_class(&shots, 4, gamma, nu).unwrap();
            let sum: f64 = solution.alphas.iter().sum();
            prop_assert!((sum - nu * n as f64).abs() < 1e-9);
            let mut rows = KernelRows::new(&shots, 4, gamma);
            for i in 0..n {
                let row = rows.get(i);
                let value: f64 = row.iter().zip(&solution.alphas).map(|(&k, a)| f64::from(k) * a).sum();
                let margin = value - solution.rho;
                let alpha = solution.alphas[i];
                prop_assert!((0.0..=1.0).contains(&alpha));
                let slack = 1e-5 * (1.0 + sum);
                if alpha < 1.0 {
                    prop_assert!(margin > -slack, "{i}: alpha {alpha}, margin {margin}");
                }
                if alpha > 0.0 {
                    prop_assert!(margin < slack, "{i}: alpha {alpha}, margin {margin}");
                }
            }
        }
    }

    #[test]
    fn every_weight_is_full_at_nu_one() {
        let solution = one_class(&[1.0, 0.0, 0.0, 1.0, 0.6, 0.8], 2, 1.0, 1.0).unwrap();
        assert_eq!(solution.alphas, [1.0; 3]);
        assert!(solution.rho.is_finite());
    }

    #[test]
    fn few_rows_fit_the_cache() {
        let shots = [1.0, 0.0, 0.0, 1.0, 0.6, 0.8];
        let mut rows = KernelRows::new(&shots, 2, 1.0);
        rows.capacity = 2;
        let first = rows.get(0);
        for i in [1, 2, 0] {
            rows.get(i);
        }
        assert_eq!(rows.kept.len(), 2);
        assert_eq!(rows.get(0), first);
        assert_eq!(first[0], 1.0);
    }
}
