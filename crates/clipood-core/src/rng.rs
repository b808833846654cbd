//! The random numbers that results depend on: context initialisation, shuffles, crops, few-shot splits.
//!
//! This generator is part of the file formats: a change here changes every seeded result. It is SplitMix64 (Steele, Lea and
//! Flood 2014), whose initial state is a hash of (seed, label, index). So a crop or a shuffle is a pure function of these
//! three, independent of what ran before and on which thread.

/// SplitMix64, keyed by seed, label and index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// The stream of (seed, label, index). Its first state is the first 8 bytes, little-endian, of blake3 over `seed` as
    /// 8 little-endian bytes, the label's length likewise, the label, and `index` likewise.
    pub fn keyed(seed: u64, label: &str, index: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(&(label.len() as u64).to_le_bytes());
        hasher.update(label.as_bytes());
        hasher.update(&index.to_le_bytes());
        let mut first = [0; 8];
        hasher.finalize_xof().fill(&mut first);
        SplitMix64 {
            state: u64::from_le_bytes(first),
        }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal by Box and Muller: `sqrt(-2 ln(1 - u)) cos(2 pi v)` of the next two [`unit`](Self::unit)s `u`, `v`.
    /// The last bit may differ between mathematics libraries.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Uniform in `0..n` without bias (Lemire 2019: the high half of a 128-bit product, with rejection); 0 for `n = 0`, without
    /// a draw.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        // 2^64 mod n: the number of low halves to reject.
        let uneven = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= uneven {
                return (product >> 64) as u64;
            }
        }
    }

    /// Shuffles by Fisher and Yates, from the last position down.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_stream() {
        // Outputs of the authors' C program for the seed 1234567.
        let mut rng = SplitMix64 { state: 1_234_567 };
        let found: Vec<_> = (0..3).map(|_| rng.next_u64()).collect();
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let first = |seed, label, index| SplitMix64::keyed(seed, label, index).next_u64();
        let all = [
            first(1, "a", 0),
            first(2, "a", 0),
            first(1, "b", 0),
            first(1, "a", 1),
            first(1, "a\0", 0),
            first(1, "", 0),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
        let stream = {
            let mut bytes = vec![7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, b'h', b'i'];
            bytes.extend([9, 0, 0, 0, 0, 0, 0, 0]);
            u64::from_le_bytes(blake3::hash(&bytes).as_bytes()[..8].try_into().unwrap())
        };
        assert_eq!(SplitMix64::keyed(7, "hi", 9).state, stream);
    }

    #[test]
    fn unit_and_normal_have_their_moments() {
        let mut rng = SplitMix64::keyed(1, "moments", 0);
        let n = 200_000;
        let units: Vec<_> = (0..n).map(|_| rng.unit()).collect();
        assert!(units.iter().all(|u| (0.0..1.0).contains(u)));
        let normals: Vec<_> = (0..n).map(|_| rng.normal()).collect();
        let mean = |v: &[f64]| v.iter().sum::<f64>() / n as f64;
        let squares: Vec<_> = normals.iter().map(|x| x * x).collect();
        let inside = normals.iter().filter(|x| x.abs() < 1.0).count() as f64 / n as f64;
        // Five standard errors.
        assert!((mean(&units) - 0.5).abs() < 0.0033);
        assert!(mean(&normals).abs() < 0.0112);
        assert!((mean(&squares) - 1.0).abs() < 0.0159);
        assert!((inside - 0.682_689).abs() < 0.0053);
    }

    #[test]
    fn below_is_in_range_and_even() {
        let mut rng = SplitMix64::keyed(1, "below", 0);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[rng.below(7) as usize] += 1;
        }
        // Five standard errors of a binomial with p = 1/7.
        assert!(
            counts.iter().all(|&c| c.abs_diff(10_000) < 463),
            "{counts:?}"
        );
        assert_eq!((rng.below(0), rng.below(1)), (0, 0));
        // With n just above 2^63 about half of all draws are redrawn: the range must still hold.
        let n = (1 << 63) + 1;
        assert!((0..1000).all(|_| rng.below(n) < n));
    }

    #[test]
    fn shuffles_reach_every_order_equally() {
        let mut counts = std::collections::BTreeMap::new();
        for index in 0..60_000 {
            let mut items = [0, 1, 2];
            SplitMix64::keyed(3, "shuffle", index).shuffle(&mut items);
            *counts.entry(items).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(
            counts.values().all(|c| c.abs_diff(10_000) < 457),
            "{counts:?}"
        );
    }
}
