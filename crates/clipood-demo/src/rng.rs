//! Random numbers and angles that are the same on every machine.

/// Generator of the demo world: splitmix64, started from (seed, purpose, index).
///
/// Two purposes never share a stream of numbers, so a training picture is never a test picture, whatever the seeds.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The generator of one picture.
    pub(crate) fn keyed(seed: u64, purpose: &str, index: u64) -> Self {
        // FNV-1a over the purpose, then one scrambling round for each part of the key.
        let purpose = purpose
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let mut rng = Self(seed);
        for part in [purpose, index] {
            rng.0 = rng.next() ^ part;
        }
        rng.0 = rng.next();
        rng
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0.0..1.0`.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Uniform in `low..high`.
    pub(crate) fn range(&mut self, (low, high): (f32, f32)) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `low..=high`.
    pub(crate) fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.below(high.saturating_sub(low) as usize + 1) as u32
    }

    /// Uniform in `0..n`; 0 if `n` is 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// One of `items`, which must not be empty.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// Sine and cosine of `turns` full turns, made of exact operations only: the system's `sin` differs between platforms.
pub(crate) fn turn(turns: f32) -> (f32, f32) {
    (sine(turns), sine(turns + 0.25))
}

/// Sine of `turns` full turns.
pub(crate) fn sine(turns: f32) -> f32 {
    let mut x = turns - turns.round();
    if x > 0.25 {
        x = 0.5 - x;
    } else if x < -0.25 {
        x = -0.5 - x;
    }
    let y = x * std::f32::consts::TAU;
    let y2 = y * y;
    y * (1.0 - y2 / 6.0 * (1.0 - y2 / 20.0 * (1.0 - y2 / 42.0 * (1.0 - y2 / 72.0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sine_is_the_sine() {
        for i in -400..400 {
            let turns = i as f32 / 97.0;
            let expected = (f64::from(turns) * std::f64::consts::TAU).sin() as f32;
            assert!((sine(turns) - expected).abs() < 1e-5, "{turns}");
        }
    }

    #[test]
    fn each_part_of_the_key_changes_the_stream() {
        let mut firsts = std::collections::BTreeSet::new();
        for seed in 0..20 {
            for purpose in ["stream", "id/train", "id/test", "near"] {
                for index in 0..200 {
                    firsts.insert(Rng::keyed(seed, purpose, index).next());
                }
            }
        }
        assert_eq!(firsts.len(), 20 * 4 * 200);
    }

    #[test]
    fn draws_stay_in_their_ranges() {
        let mut rng = Rng::keyed(1, "ranges", 0);
        let mut seen = [false; 4];
        for _ in 0..2000 {
            assert!((2.0..3.0).contains(&rng.range((2.0, 3.0))));
            let n = rng.between(5, 8);
            assert!((5..=8).contains(&n));
            seen[n as usize - 5] = true;
        }
        assert_eq!(seen, [true; 4]);
    }
}
