//! Rows that features are multiplied with: class texts, shots, negative texts, projections.

use crate::error::OodError;
use serde::{Deserialize, Serialize};

/// A matrix `[rows, dim]` to take products `(f - center) . row` with; the center may be absent.
///
/// Detectors name the banks they need, and [`score_all`](crate::score_all) multiplies each distinct one once per block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BankData", into = "BankData")]
pub(crate) struct Bank {
    data: Vec<f32>,
    center: Vec<f32>,
    dim: usize,
    /// Whether it is multiplied with features as they were given, rather than with unit features.
    raw: bool,
}

/// The serialised form, before its lengths are checked.
#[derive(Serialize, Deserialize)]
struct BankData {
    data: Vec<f32>,
    center: Vec<f32>,
    dim: usize,
    /// Left out where it is false, as in files that were written before there was a choice.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    raw: bool,
}

impl Bank {
    /// Rows of width `dim` without center.
    pub(crate) fn new(data: Vec<f32>, dim: usize) -> Self {
        Self {
            data,
            center: Vec::new(),
            dim,
            raw: false,
        }
    }

    /// Rows of width `center.len()`, to be multiplied with features less `center`.
    pub(crate) fn centered(data: Vec<f32>, center: Vec<f32>) -> Self {
        let dim = center.len();
        Self {
            data,
            center,
            dim,
            raw: false,
        }
    }

    /// The same rows, to be multiplied with features as they were given.
    pub(crate) fn for_raw_features(self) -> Self {
        Self { raw: true, ..self }
    }

    /// Whether it is multiplied with features as they were given, rather than with unit features.
    pub(crate) fn is_raw(&self) -> bool {
        self.raw
    }

    pub(crate) fn rows(&self) -> usize {
        self.data.len() / self.dim
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    pub(crate) fn data(&self) -> &[f32] {
        &self.data
    }

    /// The rows, to be changed and put into another bank.
    pub(crate) fn into_data(self) -> Vec<f32> {
        self.data
    }

    pub(crate) fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.dim..(i + 1) * self.dim]
    }

    pub(crate) fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.dim..(i + 1) * self.dim]
    }

    /// Products of features `[n, dim]` with every row, `[n, rows]`; `scratch` holds the centered features.
    pub(crate) fn multiply(&self, features: &[f32], scratch: &mut Vec<f32>, out: &mut Vec<f32>) {
        out.resize(features.len() / self.dim * self.rows(), 0.0);
        if self.center.is_empty() {
            return crate::linalg::product(features, &self.data, self.dim, out);
        }
        scratch.clear();
        for row in features.chunks_exact(self.dim) {
            scratch.extend(row.iter().zip(&self.center).map(|(x, c)| x - c));
        }
        crate::linalg::product(scratch, &self.data, self.dim, out);
    }
}

impl From<Bank> for BankData {
    fn from(bank: Bank) -> Self {
        let Bank {
            data,
            center,
            dim,
            raw,
        } = bank;
        Self {
            data,
            center,
            dim,
            raw,
        }
    }
}

impl TryFrom<BankData> for Bank {
    type Error = OodError;

    fn try_from(stored: BankData) -> Result<Self, OodError> {
        let BankData {
            data,
            center,
            dim,
            raw,
        } = stored;
        let whole = dim > 0 && data.len().is_multiple_of(dim);
        if whole && (center.is_empty() || center.len() == dim) {
            return Ok(Self {
                data,
                center,
                dim,
                raw,
            });
        }
        Err(OodError::Length {
            name: "stored detector".to_owned(),
            shape: format!("rows x {dim} with a center of {dim} or none"),
            expected: dim,
            found: data.len(),
        })
    }
}
