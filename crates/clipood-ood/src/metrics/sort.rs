//! Scores as integers whose order is the order of the scores, and a radix sort of those.

use crate::error::OodError;

/// A score type: `f32` or `f64`. NaN has no place in an order and is refused; infinities order as numbers do; -0 equals 0.
pub trait Score: Copy + Send + Sync + sealed::Keyed {}

impl Score for f32 {}
impl Score for f64 {}

pub(crate) mod sealed {
    /// An unsigned integer to sort by.
    pub trait Key: Copy + Ord + Default + Send + Sync {
        /// Number of bytes.
        const BYTES: usize;
        /// The i-th byte, the least significant first.
        fn byte(self, i: usize) -> usize;
    }

    impl Key for u32 {
        const BYTES: usize = 4;
        fn byte(self, i: usize) -> usize {
            (self >> (8 * i)) as usize & 0xFF
        }
    }

    impl Key for u64 {
        const BYTES: usize = 8;
        fn byte(self, i: usize) -> usize {
            (self >> (8 * i)) as usize & 0xFF
        }
    }

    /// A float with an order-preserving map to an unsigned integer and back.
    pub trait Keyed: Sized {
        /// The integer.
        type Key: Key;
        /// The key, or `None` for NaN. Negative floats have all bits flipped, the others the sign bit.
        fn key(self) -> Option<Self::Key>;
        /// The float of a key, as f64.
        fn value(key: Self::Key) -> f64;
    }

    impl Keyed for f32 {
        type Key = u32;

        fn key(self) -> Option<u32> {
            // Adding 0 turns -0 into 0.
            let bits = (self + 0.0).to_bits();
            let mask = ((bits as i32 >> 31) as u32) | (1 << 31);
            (!self.is_nan()).then_some(bits ^ mask)
        }

        fn value(key: u32) -> f64 {
            let mask = if key >> 31 == 1 { 1 << 31 } else { u32::MAX };
            f64::from(f32::from_bits(key ^ mask))
        }
    }

    impl Keyed for f64 {
        type Key = u64;

        fn key(self) -> Option<u64> {
            let bits = (self + 0.0).to_bits();
            let mask = ((bits as i64 >> 63) as u64) | (1 << 63);
            (!self.is_nan()).then_some(bits ^ mask)
        }

        fn value(key: u64) -> f64 {
            let mask = if key >> 63 == 1 { 1 << 63 } else { u64::MAX };
            f64::from_bits(key ^ mask)
        }
    }
}

use sealed::{Key, Keyed};

/// Keys of scores in their order.
///
/// # Errors
/// [`OodError::NanScore`] naming the first NaN.
pub(crate) fn keys<S: Score>(name: &str, scores: &[S]) -> Result<Vec<S::Key>, OodError> {
    scores
        .iter()
        .enumerate()
        .map(|(index, score)| {
            score.key().ok_or_else(|| OodError::NanScore {
                name: name.to_owned(),
                index,
            })
        })
        .collect()
}

/// Sorted keys of scores, ascending.
pub(crate) fn sorted_keys<S: Score>(name: &str, scores: &[S]) -> Result<Vec<S::Key>, OodError> {
    let mut keys = keys(name, scores)?;
    radix_sort(&mut keys);
    Ok(keys)
}

/// The score of a key, as f64.
pub(crate) fn value<S: Score>(key: S::Key) -> f64 {
    <S as Keyed>::value(key)
}

/// Least-significant-byte radix sort; bytes that all keys share (the tail of f64s that were f32s) cost no pass.
fn radix_sort<K: Key>(keys: &mut Vec<K>) {
    let mut counts = vec![[0usize; 256]; K::BYTES];
    for key in keys.iter() {
        for (i, counts) in counts.iter_mut().enumerate() {
            counts[key.byte(i)] += 1;
        }
    }
    let mut other = vec![K::default(); keys.len()];
    for (i, counts) in counts.iter().enumerate() {
        if counts.contains(&keys.len()) {
            continue;
        }
        let mut next = [0; 256];
        let mut sum = 0;
        for (next, count) in next.iter_mut().zip(counts) {
            *next = sum;
            sum += count;
        }
        for &key in keys.iter() {
            let place = &mut next[key.byte(i)];
            other[*place] = key;
            *place += 1;
        }
        std::mem::swap(keys, &mut other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sorts_as_floats_do(scores in prop::collection::vec(
            prop_oneof![any::<f64>().prop_filter("a number", |x| !x.is_nan()), Just(0.0), Just(-0.0), -2.0..2.0f64],
            0..300,
        )) {
            let mut expected: Vec<f64> = scores.iter().map(|x| x + 0.0).collect();
            expected.sort_by(f64::total_cmp);
            let sorted = sorted_keys("scores", &scores).unwrap();
            let found: Vec<f64> = sorted.into_iter().map(value::<f64>).collect();
            prop_assert_eq!(&found, &expected);

            let narrow: Vec<f32> = scores.iter().map(|&x| x as f32).collect();
            let mut expected: Vec<f64> = narrow.iter().map(|&x| f64::from(x) + 0.0).collect();
            expected.sort_by(f64::total_cmp);
            let sorted = sorted_keys("scores", &narrow).unwrap();
            let found: Vec<f64> = sorted.into_iter().map(value::<f32>).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn nan_is_named() {
        let error = sorted_keys("id", &[0.0f32, f32::NAN]).unwrap_err();
        assert_eq!(error.to_string(), "id: score 1 is NaN");
    }
}
