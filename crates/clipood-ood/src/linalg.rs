//! Matrix products, covariance and symmetric eigenvectors, on slices.

use clipood_kernels::matrix::{self, Matrix, MatrixMut};

use crate::error::OodError;

/// `out[i, j] = sum_d a[i, d] * b[j, d]`, all row-major: `a` `[m, dim]`, `b` `[n, dim]`, `out` `[m, n]`. One thread.
///
/// # Panics
/// The lengths do not fit the shapes.
pub(crate) fn product(a: &[f32], b: &[f32], dim: usize, out: &mut [f32]) {
    let (a, b, out) = rows_by_rows(a, b, dim, out);
    matrix::product(a, b, out, false);
}

/// [`product`] in f64 on all threads.
pub(crate) fn product_wide(a: &[f64], b: &[f64], dim: usize, out: &mut [f64]) {
    let (a, b, out) = rows_by_rows(a, b, dim, out);
    matrix::parallel_product(a, b, out, false);
}

/// The operands of `a b^T`, whose lengths must be whole rows.
fn rows_by_rows<'a, T>(
    a: &'a [T],
    b: &'a [T],
    dim: usize,
    out: &'a mut [T],
) -> (Matrix<'a, T>, Matrix<'a, T>, MatrixMut<'a, T>) {
    let (m, n) = (a.len() / dim, b.len() / dim);
    assert!(
        a.len() == m * dim && b.len() == n * dim && out.len() == m * n,
        "the lengths fit the shapes"
    );
    (
        Matrix::new(a, m, dim, dim),
        Matrix::new(b, n, dim, dim).transposed(),
        MatrixMut::new(out, m, n, n),
    )
}

/// `out[i, j] += sum_r a[r, i] * b[r, j]` in f64: `a` `[rows, m]`, `b` `[rows, n]`, `out` `[m, n]`. All threads.
///
/// # Panics
/// The lengths do not fit the shapes.
pub(crate) fn accumulate_transposed(a: &[f64], b: &[f64], rows: usize, out: &mut [f64]) {
    if rows == 0 {
        return;
    }
    let (m, n) = (a.len() / rows, b.len() / rows);
    assert!(
        a.len() == rows * m && b.len() == rows * n && out.len() == m * n,
        "the lengths fit the shapes"
    );
    matrix::parallel_product(
        Matrix::new(a, rows, m, m).transposed(),
        Matrix::new(b, rows, n, n),
        MatrixMut::new(out, m, n, n),
        true,
    );
}

/// Rows turned to f64 together: bounds the memory of a covariance whatever the number of shots.
const ROWS: usize = 4096;

/// `sum_r x_r x_r^T / n` in f64, `[dim, dim]`, over the `n` rows of `data` after `center(r, row)` was subtracted from each.
pub(crate) fn second_moment<'c>(
    data: &[f32],
    dim: usize,
    center: impl Fn(usize) -> &'c [f64],
) -> Vec<f64> {
    let n = data.len() / dim;
    let mut out = vec![0.0; dim * dim];
    for (chunk, rows) in data.chunks(ROWS * dim).enumerate() {
        let mut centered: Vec<f64> = Vec::with_capacity(rows.len());
        for (i, row) in rows.chunks_exact(dim).enumerate() {
            let center = center(chunk * ROWS + i);
            centered.extend(row.iter().zip(center).map(|(&x, c)| f64::from(x) - c));
        }
        accumulate_transposed(&centered, &centered, rows.len() / dim, &mut out);
    }
    out.iter_mut().for_each(|x| *x /= n as f64);
    out
}

/// Eigenvalues in ascending order and the matching unit eigenvectors as rows, `[dim, dim]`, of a symmetric matrix.
///
/// # Errors
/// [`OodError::Detector`] if the iteration does not converge, which finite input does not provoke.
pub(crate) fn symmetric_eigen(
    detector: &str,
    matrix: &[f64],
    dim: usize,
) -> Result<(Vec<f64>, Vec<f64>), OodError> {
    let matrix = faer::MatRef::from_row_major_slice(matrix, dim, dim);
    let eigen = matrix
        .self_adjoint_eigen(faer::Side::Lower)
        .map_err(|error| OodError::Detector {
            detector: detector.to_owned(),
            problem: format!("the covariance has no eigenvectors: {error:?}"),
        })?;
    let values = eigen.S().column_vector().iter().copied().collect();
    let columns = eigen.U();
    let vectors = (0..dim)
        .flat_map(|j| (0..dim).map(move |i| columns[(i, j)]))
        .collect();
    Ok((values, vectors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_match_plain_sums() {
        let a: Vec<f32> = (0..6).map(|x| x as f32).collect();
        let b: Vec<f32> = (0..12).map(|x| (x * x) as f32 * 0.5).collect();
        let mut out = vec![9.0; 8];
        product(&a, &b, 3, &mut out);
        for i in 0..2 {
            for j in 0..4 {
                let plain: f32 = (0..3).map(|d| a[i * 3 + d] * b[j * 3 + d]).sum();
                assert_eq!(out[i * 4 + j], plain);
            }
        }
    }

    #[test]
    fn eigenvectors_rebuild_the_matrix() {
        let rows: Vec<f32> = (0..40).map(|i| ((i * 37 + 11) % 19) as f32).collect();
        let zero = [0.0; 4];
        let moment = second_moment(&rows, 4, |_| &zero);
        let (values, vectors) = symmetric_eigen("test", &moment, 4).unwrap();
        assert!(values.is_sorted());
        for i in 0..4 {
            for j in 0..4 {
                let plain: f64 = (0..10)
                    .map(|r| f64::from(rows[r * 4 + i]) * f64::from(rows[r * 4 + j]))
                    .sum();
                assert!((moment[i * 4 + j] - plain / 10.0).abs() < 1e-10);
                let rebuilt: f64 = (0..4)
                    .map(|k| values[k] * vectors[k * 4 + i] * vectors[k * 4 + j])
                    .sum();
                assert!((rebuilt - moment[i * 4 + j]).abs() < 1e-10);
            }
        }
    }
}
