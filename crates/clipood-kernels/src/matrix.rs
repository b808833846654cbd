//! Matrices inside slices, their product, and affine maps.

use gemm::Parallelism;

/// Types of values that are multiplied: float32 and float64.
pub trait Element: sealed::Sealed + Copy + 'static {
    /// 1.
    const ONE: Self;
}

impl Element for f32 {
    const ONE: Self = 1.0;
}

impl Element for f64 {
    const ONE: Self = 1.0;
}

mod sealed {
    /// `gemm` knows the types of its values at run time and panics for others.
    pub trait Sealed {}

    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A matrix that lies in a slice, its entries `row_stride` and `column_stride` apart.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, T = f32> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Row-major `[rows, columns]` with `row_stride` entries from one row's start to the next.
    ///
    /// # Panics
    /// The slice ends before the matrix does.
    pub fn new(data: &'a [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        check(data.len(), rows, columns, row_stride);
        Self {
            data,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// Rows and columns exchanged, nothing moved.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }
}

impl<T: Copy> Matrix<'_, T> {
    /// The entry in a row and a column, both of which the matrix has.
    #[inline(always)]
    pub(crate) fn at(&self, row: usize, column: usize) -> T {
        self.data[row * self.row_stride + column * self.column_stride]
    }
}

/// A row-major matrix to write to.
#[derive(Debug)]
pub struct MatrixMut<'a, T = f32> {
    data: &'a mut [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a, T> MatrixMut<'a, T> {
    /// As [`Matrix::new`].
    ///
    /// # Panics
    /// The slice ends before the matrix does.
    pub fn new(data: &'a mut [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        check(data.len(), rows, columns, row_stride);
        Self {
            data,
            rows,
            columns,
            row_stride,
        }
    }
}

fn check(length: usize, rows: usize, columns: usize, row_stride: usize) {
    let end = match rows {
        0 => Some(0),
        rows => (rows - 1)
            .checked_mul(row_stride)
            .and_then(|start| start.checked_add(columns)),
    };
    assert!(
        end.is_some_and(|end| end <= length)
            && columns <= row_stride.max(columns * usize::from(rows <= 1)),
        "a matrix [{rows}, {columns}] with rows {row_stride} apart does not fit {length} values"
    );
}

/// `out = a b`, or `out + a b` where `add` is set, on the calling thread.
///
/// # Panics
/// The shapes do not fit.
pub fn product<T: Element>(a: Matrix<'_, T>, b: Matrix<'_, T>, out: MatrixMut<'_, T>, add: bool) {
    multiply(a, b, out, add, Parallelism::None);
}

/// As [`product`], on all threads of the current rayon pool.
///
/// # Panics
/// The shapes do not fit.
pub fn parallel_product<T: Element>(
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    out: MatrixMut<'_, T>,
    add: bool,
) {
    multiply(a, b, out, add, Parallelism::Rayon(0));
}

/// The only call of `gemm`.
fn multiply<T: Element>(
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    out: MatrixMut<'_, T>,
    add: bool,
    parallelism: Parallelism,
) {
    assert!(
        a.columns == b.rows && a.rows == out.rows && b.columns == out.columns,
        "a product [{}, {}] x [{}, {}] does not give [{}, {}]",
        a.rows,
        a.columns,
        b.rows,
        b.columns,
        out.rows,
        out.columns
    );
    // SAFETY: every matrix lies inside its slice (checked where it was made), `out` is borrowed mutably, so that it
    // overlaps nothing, the shapes fit (asserted above), and `gemm` knows both types of values.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.data.as_mut_ptr(),
            1,
            out.row_stride as isize,
            add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// An affine map of rows, whatever format its weight is kept in.
pub trait Map: Sync {
    /// `[output]`.
    fn bias(&self) -> &[f32];

    /// The columns `from..from + output` of the map, for rows `x` `[n, input]`, into `out` `[n, output]`: their product
    /// plus the bias, and plus what `out` holds where `add` is set.
    fn apply(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool);

    /// As [`Map::apply`] without the bias.
    fn multiply(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool);

    /// As [`Map::apply`], then negative values become 0.
    fn apply_relu(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool) {
        self.apply(x, from, output, out, add);
        for value in out {
            *value = if *value < 0.0 { 0.0 } else { *value };
        }
    }
}

impl<M: Map> Map for &M {
    fn bias(&self) -> &[f32] {
        (**self).bias()
    }

    fn apply(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool) {
        (**self).apply(x, from, output, out, add);
    }

    fn multiply(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool) {
        (**self).multiply(x, from, output, out, add);
    }

    fn apply_relu(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool) {
        (**self).apply_relu(x, from, output, out, add);
    }
}

/// An affine map: `x weight + bias`.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// `[input, output]`.
    pub weight: &'a [f32],
    /// `[output]`.
    pub bias: &'a [f32],
}

impl Map for Affine<'_> {
    fn bias(&self) -> &[f32] {
        self.bias
    }

    fn apply(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool) {
        start_with(&self.bias[from..from + output], out, add);
        self.multiply(x, from, output, out, true);
    }

    fn multiply(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool) {
        let (input, all) = (self.input(), self.bias.len());
        let rows = x.len() / input.max(1);
        product(
            Matrix::new(x, rows, input, input),
            Matrix::new(&self.weight[from..], input, output, all),
            MatrixMut::new(out, rows, output, output),
            add,
        );
    }
}

/// An affine map whose weight lies as checkpoints hold it: `x weight^T + bias`.
#[derive(Debug, Clone, Copy)]
pub struct Transposed<'a> {
    /// `[output, input]`.
    pub weight: &'a [f32],
    /// `[output]`.
    pub bias: &'a [f32],
}

impl Map for Transposed<'_> {
    fn bias(&self) -> &[f32] {
        self.bias
    }

    fn apply(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool) {
        start_with(&self.bias[from..from + output], out, add);
        self.multiply(x, from, output, out, true);
    }

    fn multiply(&self, x: &[f32], from: usize, output: usize, out: &mut [f32], add: bool) {
        let input = self.weight.len() / self.bias.len().max(1);
        let rows = x.len() / input.max(1);
        product(
            Matrix::new(x, rows, input, input),
            Matrix::new(&self.weight[from * input..], output, input, input).transposed(),
            MatrixMut::new(out, rows, output, output),
            add,
        );
    }
}

/// Rows `out` `[n, bias.len()]` become the bias, or it is added to them.
fn start_with(bias: &[f32], out: &mut [f32], add: bool) {
    for row in out.chunks_exact_mut(bias.len().max(1)) {
        if add {
            for (out, b) in row.iter_mut().zip(bias) {
                *out += b;
            }
        } else {
            row.copy_from_slice(bias);
        }
    }
}

impl Affine<'_> {
    /// The weight as a matrix `[input, output]`.
    pub fn matrix(&self) -> Matrix<'_> {
        let output = self.bias.len();
        Matrix::new(self.weight, self.input(), output, output)
    }

    /// Values per row of the input.
    pub fn input(&self) -> usize {
        self.weight.len() / self.bias.len().max(1)
    }

    /// The gradient of the rows that [`Map::apply`] took, `[n, input]`, given that of its output, `dy` `[n, output]`:
    /// written to `dx`, or added to it where `add` is set.
    pub fn backward(&self, dy: &[f32], from: usize, output: usize, dx: &mut [f32], add: bool) {
        let (input, all) = (self.input(), self.bias.len());
        let rows = dx.len() / input.max(1);
        product(
            Matrix::new(dy, rows, output, output),
            Matrix::new(&self.weight[from..], input, output, all).transposed(),
            MatrixMut::new(dx, rows, input, input),
            add,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        let mix = |i: usize| ((i + seed) * 2_654_435_761) >> 5;
        (0..n)
            .map(|i| (mix(i) % 2001) as f32 / 1000.0 - 1.0)
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn product_follows_its_definition(
            m in 0usize..40, n in 0usize..40, k in 0usize..70, gap in 0usize..5, transposed: bool, add: bool,
        ) {
            let a = values(m * (k + gap), 1);
            let b = values(if transposed { n * (k + gap) } else { k * (n + gap) }, 2);
            let before = values(m * (n + gap), 3);
            let mut out = before.clone();
            let right = match transposed {
                true => Matrix::new(&b, n, k, k + gap).transposed(),
                false => Matrix::new(&b, k, n, n + gap),
            };
            let left = Matrix::new(&a, m, k, k + gap);
            product(left, right, MatrixMut::new(&mut out, m, n, n + gap), add);
            for i in 0..m {
                for j in 0..n + gap {
                    let at = i * (n + gap) + j;
                    let mut expected = if j >= n || add { f64::from(before[at]) } else { 0.0 };
                    for l in 0..if j < n { k } else { 0 } {
                        let b = if transposed { b[j * (k + gap) + l] } else { b[l * (n + gap) + j] };
                        expected += f64::from(a[i * (k + gap) + l]) * f64::from(b);
                    }
                    prop_assert!((f64::from(out[at]) - expected).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn columns_of_a_map_are_those_of_the_whole() {
        let (weight, bias, x) = (values(7 * 12, 4), values(12, 5), values(3 * 7, 6));
        let map = Affine {
            weight: &weight,
            bias: &bias,
        };
        let mut all = vec![f32::NAN; 3 * 12];
        map.apply(&x, 0, 12, &mut all, false);
        let mut some = vec![1.0; 3 * 5];
        map.apply(&x, 4, 5, &mut some, true);
        let across: Vec<f32> = (0..12 * 7).map(|i| weight[i % 7 * 12 + i / 7]).collect();
        let turned = Transposed {
            weight: &across,
            bias: &bias,
        };
        let mut same = vec![1.0; 3 * 5];
        turned.apply(&x, 4, 5, &mut same, true);
        for row in 0..3 {
            for column in 0..5 {
                let expected = 1.0 + all[row * 12 + 4 + column];
                assert!((some[row * 5 + column] - expected).abs() < 1e-5);
                assert!((same[row * 5 + column] - expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn all_threads_and_float64_give_the_same_product() {
        let (m, n, k) = (70, 90, 300);
        let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<_>>();
        let (a, b) = (wide(values(m * k, 7)), wide(values(k * n, 8)));
        let mut one = vec![0.5; m * n];
        let mut all = one.clone();
        let left = Matrix::new(&a, m, k, k);
        let right = Matrix::new(&b, k, n, n);
        product(left, right, MatrixMut::new(&mut one, m, n, n), true);
        parallel_product(left, right, MatrixMut::new(&mut all, m, n, n), true);
        for i in 0..m {
            for j in 0..n {
                let expected: f64 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum::<f64>() + 0.5;
                for found in [one[i * n + j], all[i * n + j]] {
                    assert!((found - expected).abs() < 1e-10);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "does not give")]
    fn shapes_that_do_not_meet_are_refused() {
        let mut out = [0.0; 4];
        let (a, b) = (
            Matrix::new(&[0.0; 6], 2, 3, 3),
            Matrix::new(&[0.0; 4], 2, 2, 2),
        );
        product(a, b, MatrixMut::new(&mut out, 2, 2, 2), false);
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_matrix_beyond_its_slice_is_refused() {
        Matrix::new(&[0.0; 10], 3, 3, 4);
    }
}
