//! Distance to the k-th nearest shot.
//!
//! Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022, as in OpenOOD: minus the squared L2
//! distance of unit features `[dim]` to the k-th nearest of the unit shots `[n, dim]`, k = 50.
//!
//! Fitted on the shots, which it keeps. With fewer shots than k it takes the farthest and notes it. Cost an image:
//! `n * dim` multiplications and one pass over n products. Exact search, no index.

use super::shots::Prepared;
use crate::bank::Bank;
use crate::error::OodError;
use crate::kernels;
use crate::score::Block;
use serde::{Deserialize, Serialize};

/// Unit shots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Knn {
    shots: Bank,
    k: usize,
}

impl Knn {
    pub(super) fn fit(
        data: &Prepared<'_>,
        k: usize,
        notes: &mut Vec<String>,
    ) -> Result<Self, OodError> {
        let shots = Bank::new(data.shots()?, data.dim());
        let lowered = k.min(shots.rows());
        if lowered < k {
            notes.push(format!(
                "k was lowered from {k} to {lowered}, the number of shots"
            ));
        }
        Ok(Self { shots, k: lowered })
    }

    pub(super) fn bank(&self) -> &Bank {
        &self.shots
    }

    pub(super) fn is_consistent(&self) -> bool {
        self.k > 0 && self.k <= self.shots.rows()
    }

    pub(super) fn score(&self, block: &Block<'_>) -> Vec<f32> {
        let mut nearest = Vec::new();
        block
            .product(0)
            .chunks_exact(self.shots.rows())
            .zip(block.features())
            .map(|(products, f)| {
                kernels::largest(products, self.k, &mut nearest);
                // Products find the neighbour; 2 - 2 f.x would lose the digits of a small distance.
                let distance = nearest.last().map_or(0.0, |&(_, shot)| {
                    kernels::squared_distance(f, self.shots.row(shot as usize))
                });
                -distance as f32
            })
            .collect()
    }
}
