//! Feature arrays: borrowed, checked views in, owned rows of unit length inside.

use crate::error::OodError;
use rayon::prelude::*;

/// A borrowed row-major matrix of finite f32 values, `[rows, cols]`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    name: &'a str,
    data: &'a [f32],
    rows: usize,
    cols: usize,
}

impl<'a> Matrix<'a> {
    /// Wraps `data` as `[rows, cols]`; `name` is what error messages call it.
    ///
    /// # Errors
    /// [`OodError::Length`] unless `data` holds `rows * cols` values, [`OodError::Mismatch`] for zero columns,
    /// [`OodError::NotFinite`] naming the first row with a NaN or an infinity.
    pub fn new(name: &'a str, data: &'a [f32], rows: usize, cols: usize) -> Result<Self, OodError> {
        if cols == 0 {
            return Err(OodError::Mismatch {
                name: name.to_owned(),
                what: "columns",
                expected: "at least 1".to_owned(),
                found: 0,
            });
        }
        check_length(name, data, &[rows, cols])?;
        check_finite(name, data, cols)?;
        Ok(Self {
            name,
            data,
            rows,
            cols,
        })
    }

    /// What error messages call this matrix.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The values, row by row.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (the feature width).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The same matrix with every row divided by its length, `[rows * cols]`.
    ///
    /// # Errors
    /// [`OodError::ZeroRow`] naming the first row that has no direction.
    pub(crate) fn normalized(&self) -> Result<Vec<f32>, OodError> {
        let mut out = vec![0.0; self.data.len()];
        self.normalize_rows(0, &mut out)?;
        Ok(out)
    }

    /// Fills `out` with rows `first..` divided by their lengths; `out` holds a whole number of rows within the matrix.
    ///
    /// # Errors
    /// As [`Matrix::normalized`].
    pub(crate) fn normalize_rows(&self, first: usize, out: &mut [f32]) -> Result<(), OodError> {
        normalize(
            self.name,
            first,
            &self.data[first * self.cols..],
            self.cols,
            out,
        )
    }

    /// Fails unless this matrix has as many columns as `other`.
    ///
    /// # Errors
    /// [`OodError::Mismatch`] naming both.
    pub(crate) fn expect_cols(&self, cols: usize, other: &str) -> Result<(), OodError> {
        if self.cols == cols {
            return Ok(());
        }
        Err(OodError::Mismatch {
            name: self.name.to_owned(),
            what: "columns",
            expected: format!("{cols} (as in {other})"),
            found: self.cols,
        })
    }
}

/// Borrowed patch features of a batch of images, `[images, patches, dim]`, finite.
#[derive(Debug, Clone, Copy)]
pub struct LocalFeatures<'a> {
    rows: Matrix<'a>,
    patches: usize,
    best: &'a [PatchBest],
}

/// The largest probability over patches and classes of each image, where it was computed elsewhere, such as on a GPU.
#[derive(Debug, Clone, PartialEq)]
pub struct PatchBest {
    /// Factor on the cosines of the softmax over the classes of a patch.
    pub scale: f64,
    /// One per image, in (0, 1].
    pub best: Vec<f64>,
}

impl<'a> LocalFeatures<'a> {
    /// Wraps `data` as `[images, patches, dim]`; `name` is what error messages call it.
    ///
    /// # Errors
    /// As [`Matrix::new`] (rows are counted over all patches), and [`OodError::Mismatch`] for zero patches.
    pub fn new(
        name: &'a str,
        data: &'a [f32],
        images: usize,
        patches: usize,
        dim: usize,
    ) -> Result<Self, OodError> {
        if patches == 0 {
            return Err(OodError::Mismatch {
                name: name.to_owned(),
                what: "patches",
                expected: "at least 1".to_owned(),
                found: 0,
            });
        }
        check_length(name, data, &[images, patches, dim])?;
        let rows = Matrix::new(name, data, images * patches, dim)?;
        Ok(Self {
            rows,
            patches,
            best: &[],
        })
    }

    /// The same features with what is known of their largest probabilities; detectors that read these take them as given.
    ///
    /// # Errors
    /// [`OodError::Length`] unless there is one per image.
    pub fn with_best(self, best: &'a [PatchBest]) -> Result<Self, OodError> {
        for known in best {
            if known.best.len() != self.images() {
                return Err(OodError::Length {
                    name: format!("largest patch probabilities of {}", self.rows.name),
                    shape: self.images().to_string(),
                    expected: self.images(),
                    found: known.best.len(),
                });
            }
        }
        Ok(Self { best, ..self })
    }

    /// The largest probability of each image at a scale, if it is known.
    pub(crate) fn best_at(&self, scale: f64) -> Option<&'a [f64]> {
        let known = self.best.iter().find(|known| known.scale == scale)?;
        Some(&known.best)
    }

    /// All patches as one matrix, `[images * patches, dim]`.
    pub fn rows(&self) -> Matrix<'a> {
        self.rows
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.rows.rows / self.patches
    }

    /// Patches of one image.
    pub fn patches(&self) -> usize {
        self.patches
    }
}

fn check_length(name: &str, data: &[f32], shape: &[usize]) -> Result<(), OodError> {
    let expected = shape.iter().try_fold(1usize, |a, &b| a.checked_mul(b));
    if expected == Some(data.len()) {
        return Ok(());
    }
    let words: Vec<String> = shape.iter().map(usize::to_string).collect();
    Err(OodError::Length {
        name: name.to_owned(),
        shape: words.join(" x "),
        expected: expected.unwrap_or(usize::MAX),
        found: data.len(),
    })
}

/// Values looked at together when searching for a bad value: large enough that the search runs at memory speed.
const FINITE_CHUNK: usize = 1 << 16;

fn check_finite(name: &str, data: &[f32], cols: usize) -> Result<(), OodError> {
    // A fold has no early exit, so it compiles to vector code.
    let bad_chunk = data
        .par_chunks(FINITE_CHUNK)
        .position_first(|chunk| chunk.iter().fold(false, |bad, x| bad | !x.is_finite()));
    let Some(chunk) = bad_chunk else {
        return Ok(());
    };
    let start = chunk * FINITE_CHUNK;
    match data[start..].iter().position(|x| !x.is_finite()) {
        Some(offset) => Err(OodError::NotFinite {
            name: name.to_owned(),
            row: (start + offset) / cols,
            column: (start + offset) % cols,
            value: data[start + offset],
        }),
        None => Ok(()),
    }
}

/// Divides each row of `rows` by its length (sum of squares in f64) into `out`; `first` only numbers the rows of errors.
fn normalize(
    name: &str,
    first: usize,
    rows: &[f32],
    cols: usize,
    out: &mut [f32],
) -> Result<(), OodError> {
    for (i, (row, out)) in rows
        .chunks_exact(cols)
        .zip(out.chunks_exact_mut(cols))
        .enumerate()
    {
        let squares = crate::kernels::sum_of_squares(row);
        if squares <= 0.0 {
            return Err(OodError::ZeroRow {
                name: name.to_owned(),
                row: first + i,
            });
        }
        let length = squares.sqrt();
        // Below f32's normal range the reciprocal would overflow, so such a row is divided in f64.
        if (1e-18..1e18).contains(&length) {
            let inverse = (1.0 / length) as f32;
            out.iter_mut().zip(row).for_each(|(o, x)| *o = x * inverse);
        } else {
            out.iter_mut()
                .zip(row)
                .for_each(|(o, x)| *o = (f64::from(*x) / length) as f32);
        }
    }
    Ok(())
}
