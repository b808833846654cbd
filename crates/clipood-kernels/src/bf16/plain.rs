//! The products in plain code, value by value: for tests of what is built on them, on CPUs without the instructions.

use super::{COLUMNS, LANES, Operands, VECTORS, round};

/// As `product` of the instructions.
pub fn product(operands: &Operands<'_>, out: &mut [f32]) {
    let Operands {
        weight,
        x,
        columns,
        bias,
        add,
    } = operands;
    let rows = out.chunks_exact_mut(columns.len());
    for (row, out) in rows.enumerate() {
        let x: Vec<f32> = x[row * weight.input..(row + 1) * weight.input]
            .iter()
            .map(|x| widened(u32::from(round(*x))))
            .collect();
        for (out, column) in out.iter_mut().zip(columns.clone()) {
            let held = if *add { *out } else { 0.0 };
            let mut sum = bias.map_or(0.0, |bias| bias[column]);
            let (panel, within) = (column / COLUMNS, column % COLUMNS);
            for (first, depth, lanes) in weight.blocks() {
                let panel = &lanes[panel * depth * VECTORS..][..depth * VECTORS];
                let vectors = panel.iter().skip(within / LANES).step_by(VECTORS);
                for (vector, x) in vectors.zip(x[2 * first..].chunks(2)) {
                    let pair = vector.0[within % LANES];
                    // A row of odd length has no second value.
                    let halves = [widened(pair & 0xFFFF), widened(pair >> 16)];
                    sum += x.iter().zip(halves).map(|(x, w)| x * w).sum::<f32>();
                }
            }
            *out = held + sum;
        }
    }
}

/// The value of the bits of a bf16.
fn widened(bits: u32) -> f32 {
    f32::from_bits(bits << 16)
}
