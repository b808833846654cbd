//! The two passes in portable code: the reference for the vector code, and the fallback where there is none.

use super::Input;
use super::axis::{Axis, FRACTION_BITS};

const HALF: i32 = 1 << (FRACTION_BITS - 1);

/// Resizes `[input.rows, input.columns, 3]` to `[down.len(), across.len(), 3]`.
pub fn resample(input: &Input<'_>, across: &Axis, down: &Axis) -> Vec<u8> {
    let stride = across.len() * 3;
    let mut between = Vec::with_capacity(input.rows * stride);
    for row in 0..input.rows {
        let row = input.row(row).as_chunks::<3>().0;
        for place in 0..across.len() {
            let (from, weights) = across.output(place);
            let mut sums = [HALF; 3];
            for (weight, pixel) in weights.iter().zip(&row[from..]) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum = sum.wrapping_add(weight.wrapping_mul(i32::from(*value)));
                }
            }
            between.extend(sums.map(byte));
        }
    }
    let mut out = Vec::with_capacity(down.len() * stride);
    let mut sums = vec![0i32; stride];
    for place in 0..down.len() {
        let (from, weights) = down.output(place);
        sums.fill(HALF);
        for (weight, row) in weights
            .iter()
            .zip(between[from * stride..].chunks_exact(stride))
        {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum = sum.wrapping_add(weight.wrapping_mul(i32::from(*value)));
            }
        }
        out.extend(sums.iter().map(|sum| byte(*sum)));
    }
    out
}

fn byte(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}
