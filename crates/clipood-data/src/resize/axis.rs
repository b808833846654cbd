//! The weights of one axis.

/// Fractional bits of a weight: 32, less 8 for the pixel and 2 for sign and overshoot.
pub const FRACTION_BITS: u32 = 22;

/// The weights of a run of output places along one axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// For each output place: its first input place, counted from `start`, and the number of input places.
    taps: Vec<(usize, usize)>,
    /// `[outputs, width]`, with [`FRACTION_BITS`] fractional bits; 0 after the taps of an output.
    weights: Vec<i32>,
    /// Number of weights stored per output: the largest number of taps, rounded up to a multiple of 4.
    width: usize,
    start: usize,
    span: usize,
}

impl Axis {
    /// The weights of the outputs `first..first + count` of a resize from `input` to `output` places.
    pub fn new(input: u32, output: u32, first: u32, count: u32) -> Axis {
        let scale = f64::from(input) / f64::from(output);
        let stretch = scale.max(1.0);
        let support = 2.0 * stretch;
        let places: Vec<(f64, usize, usize)> = (first..first + count)
            .map(|place| {
                let centre = (f64::from(place) + 0.5) * scale;
                // Casts truncate towards 0 and saturate negative values at 0, as in Pillow.
                let from = (centre - support + 0.5) as usize;
                let to = ((centre + support + 0.5) as usize).min(input as usize);
                (centre, from, to - from)
            })
            .collect();
        let start = places.first().map_or(0, |place| place.1);
        let end = places.last().map_or(start, |place| place.1 + place.2);
        let longest = places.iter().map(|place| place.2).max().unwrap_or(0);
        let width = longest.next_multiple_of(4);
        let mut weights = vec![0; width * places.len()];
        let mut exact = Vec::with_capacity(longest);
        for (index, &(centre, from, taps)) in places.iter().enumerate() {
            exact.clear();
            exact.extend(
                (from..from + taps).map(|tap| cubic((tap as f64 - centre + 0.5) * (1.0 / stretch))),
            );
            let sum: f64 = exact.iter().sum();
            for (weight, value) in weights[index * width..].iter_mut().zip(&exact) {
                let share = if sum == 0.0 { *value } else { value / sum };
                let half = if share < 0.0 { -0.5 } else { 0.5 };
                *weight = (half + share * f64::from(1 << FRACTION_BITS)) as i32;
            }
        }
        Axis {
            taps: places
                .iter()
                .map(|place| (place.1 - start, place.2))
                .collect(),
            weights,
            width,
            start,
            span: end - start,
        }
    }

    /// The weights that leave `count` places as they are.
    pub fn same(count: usize) -> Axis {
        let width = 4;
        let mut weights = vec![0; width * count];
        for weight in weights.iter_mut().step_by(width) {
            *weight = 1 << FRACTION_BITS;
        }
        Axis {
            taps: (0..count).map(|place| (place, 1)).collect(),
            weights,
            width,
            start: 0,
            span: count,
        }
    }

    /// Number of output places.
    pub fn len(&self) -> usize {
        self.taps.len()
    }

    /// The first input place that any output uses.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Number of input places from there to the last that any output uses.
    pub fn span(&self) -> usize {
        self.span
    }

    /// Number of weights stored per output, a multiple of 4.
    pub fn width(&self) -> usize {
        self.width
    }

    /// First input place of an output, counted from [`start`](Self::start), and the weights from there on.
    pub fn output(&self, index: usize) -> (usize, &[i32]) {
        let (from, taps) = self.taps[index];
        (from, &self.weights[index * self.width..][..taps])
    }

    /// First input place and all [`width`](Self::width) weights of an output, padded with 0.
    pub fn padded(&self, index: usize) -> (usize, &[i32]) {
        (
            self.taps[index].0,
            &self.weights[index * self.width..][..self.width],
        )
    }
}

/// The cubic of Keys (1981), equation 15, with a = -0.5, in Horner's form as Pillow evaluates it.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_a_place_sum_to_one() {
        for (input, output) in [(500, 224), (3, 224), (224, 1), (1, 1), (1, 9), (65_535, 2)] {
            let axis = Axis::new(input, output, 0, output);
            for index in 0..axis.len() {
                let (from, weights) = axis.output(index);
                assert!(from + weights.len() <= axis.span() && axis.span() <= input as usize);
                let sum: i64 = weights.iter().map(|w| i64::from(*w)).sum();
                // Each weight is off by half a unit at most.
                let slack = weights.len() as u64;
                assert!(
                    sum.abs_diff(1 << FRACTION_BITS) <= slack,
                    "{input} -> {output}: {sum}"
                );
            }
        }
    }

    #[test]
    fn the_cubic_is_keys() {
        // Computed by hand from Keys (1981), equation 15.
        for (x, expected) in [
            (0.0, 1.0),
            (0.5, 0.5625),
            (-0.5, 0.5625),
            (1.0, 0.0),
            (1.5, -0.0625),
            (2.0, 0.0),
            (9.0, 0.0),
        ] {
            assert_eq!(cubic(x), expected, "{x}");
        }
    }
}
