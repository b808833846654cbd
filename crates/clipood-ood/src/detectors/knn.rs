//! Distance to the k-th nearest shot.
//!
//! Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022, as in OpenOOD: minus the squared L2
//! distance of unit features `[dim]` to the k-th nearest of the unit shots `[n, dim]`, k = 50.
//!
//! Fitted on the shots, which it keeps. With fewer shots than k it takes the farthest and notes it. Cost per image:
//! `n * dim` multiplications and one pass over n products. Exact search, no index.

use crate::bank::Bank;
use crate::block::Block;
use crate::detector::{Detector, Learned};
use crate::error::OodError;
use crate::fit_inputs::Prepared;
use crate::info::{DetectorInfo, Needs, ParameterInfo};
use crate::kernels;
use crate::parameters::Values;
use serde::{Deserialize, Serialize};

/// `- ||f - x_(k)||^2`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Knn {
    k: usize,
}

/// Unit shots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shots {
    /// `[n, dim]`
    shots: Bank,
    /// At most the number of shots.
    k: usize,
}

impl Learned for Shots {
    fn banks(&self) -> Vec<&Bank> {
        vec![&self.shots]
    }

    fn is_consistent(&self) -> bool {
        self.k > 0 && self.k <= self.shots.rows()
    }
}

impl Detector for Knn {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "knn",
        summary: "distance to the k-th nearest shot",
        formula: "- ||f - x_(k)||^2",
        paper: "Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022",
        needs: Needs {
            shots: true,
            ..Needs::LOGITS
        },
        cost: "one product with all shots",
        trap: "k above the number of shots is lowered; the score depends on the draw of the shots",
        parameters: &[ParameterInfo::new(
            "k",
            "50",
            "which neighbour, at least 1; the last shot if there are fewer",
        )],
    };
    const MIN_CLASSES: usize = 1;
    type Fitted = Shots;

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            k: values.count("k")?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.k.to_string()]
    }

    fn fit(&self, data: &Prepared<'_>, notes: &mut Vec<String>) -> Result<Shots, OodError> {
        let shots = Bank::new(data.shots()?, data.dim());
        let k = self.k.min(shots.rows());
        if k < self.k {
            notes.push(format!(
                "k was lowered from {} to {k}, the number of shots",
                self.k
            ));
        }
        Ok(Shots { shots, k })
    }

    fn score(&self, fitted: &Shots, block: &Block<'_>) -> Vec<f32> {
        let mut nearest = Vec::new();
        block
            .product(0)
            .chunks_exact(fitted.shots.rows())
            .zip(block.features())
            .map(|(products, f)| {
                kernels::largest(products, fitted.k, &mut nearest);
                // Products find the neighbour; 2 - 2 f.x would lose the digits of a small distance.
                let distance = nearest.last().map_or(0.0, |&(_, shot)| {
                    kernels::squared_distance(f, fitted.shots.row(shot as usize))
                });
                -distance as f32
            })
            .collect()
    }
}
