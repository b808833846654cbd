//! Features that cannot be compared, or that do not tell images apart.

use crate::error::{PipelineError, Result};

/// Fewest rows about which [`Variation`] says anything: two images may well be copies of one another.
const FEWEST: usize = 3;

/// Differences of at most this share of a row's root mean square are rounding: batches of other sizes round otherwise.
const ROUNDING: f32 = 1e-4;

/// Checks rows of `dim` features; `name` names the image or the text of a row.
///
/// # Errors
/// [`PipelineError::Inconsistent`] with the first one that has a NaN or an infinity, or zeros alone: no cosine is
/// defined for it.
pub fn check_rows(values: &[f32], dim: usize, name: impl Fn(usize) -> String) -> Result<()> {
    for (row, features) in values.chunks_exact(dim.max(1)).enumerate() {
        let problem = match features.iter().find(|value| !value.is_finite()) {
            Some(value) => format!("hold {value}"),
            None if features.iter().all(|value| *value == 0.0) => "are all zeros".to_owned(),
            None => continue,
        };
        return Err(PipelineError::Inconsistent(format!(
            "{}: its features {problem}, expected finite numbers that are not all zero: check the weights of the model",
            name(row)
        )));
    }
    Ok(())
}

/// Whether rows of features differ from one another.
#[derive(Debug, Clone, Default)]
pub struct Variation {
    rows: usize,
    first: Vec<f32>,
    /// Differences from `first` above this one count.
    rounding: f32,
    varies: Vec<bool>,
}

impl Variation {
    /// Looks at rows of `dim` features.
    pub fn add(&mut self, values: &[f32], dim: usize) {
        for row in values.chunks_exact(dim.max(1)) {
            self.rows += 1;
            if self.first.len() != row.len() {
                self.first = row.to_vec();
                let squares: f32 = row.iter().map(|value| value * value).sum();
                self.rounding = ROUNDING * (squares / row.len() as f32).sqrt();
                self.varies = vec![false; row.len()];
            }
            for ((varies, first), value) in self.varies.iter_mut().zip(&self.first).zip(row) {
                *varies |= (first - value).abs() > self.rounding;
            }
        }
    }

    /// What does not vary, in words; `None` if every feature does, or there are fewer than three rows.
    pub fn problem(&self) -> Option<String> {
        let (rows, dim) = (self.rows, self.varies.len());
        let flat = self.varies.iter().filter(|varies| !**varies).count();
        match flat {
            _ if rows < FEWEST => None,
            0 => None,
            flat if flat == dim => Some(format!("all {rows} rows of features are equal")),
            flat => Some(format!(
                "{flat} of {dim} features have the same value in all {rows} rows"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_direction_are_named() {
        let check = |values: &[f32]| {
            let name = |row: usize| format!("image {row}");
            check_rows(values, 2, name).err().map(|e| e.to_string())
        };
        assert_eq!(check(&[0.0, 1.0, -1.0, 0.0]), None);
        let zeros = check(&[0.0, 1.0, 0.0, -0.0]).unwrap();
        assert!(
            zeros.starts_with("image 1: ") && zeros.contains("zeros"),
            "{zeros}"
        );
        let nan = check(&[0.0, 1.0, 0.0, f32::NAN]).unwrap();
        assert!(nan.starts_with("image 1: ") && nan.contains("NaN"), "{nan}");
    }

    #[test]
    fn features_that_do_not_vary_are_counted() {
        let problem = |parts: &[&[f32]]| {
            let mut variation = Variation::default();
            parts.iter().for_each(|part| variation.add(part, 2));
            variation.problem()
        };
        assert_eq!(problem(&[&[1.0, 2.0, 1.0, 2.0]]), None);
        let equal = problem(&[&[1.0, 2.0, 1.0, 2.0], &[1.0, 2.0]]).unwrap();
        assert_eq!(equal, "all 3 rows of features are equal");
        let rounded = problem(&[&[1.0, 2.0, 1.000_01, 2.0], &[1.0, 1.999_99]]);
        assert_eq!(rounded, Some(equal));
        let column = problem(&[&[1.0, 2.0, 1.0, 3.0], &[1.0, 2.0]]).unwrap();
        assert_eq!(column, "1 of 2 features have the same value in all 3 rows");
        assert_eq!(problem(&[&[1.0, 2.0, 1.0, 3.0], &[4.0, 2.0]]), None);
    }
}
