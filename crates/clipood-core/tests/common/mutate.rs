//! Files mutated at random, for the fuzz tests of several crates, which include this file by its path.

use clipood_core::SplitMix64;

/// Applies one to eight edits: flip a bit, replace a byte, overwrite with an extreme number, truncate, repeat a piece, insert a
/// piece of another file.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], rng: &mut SplitMix64) {
    for _ in 0..=rng.below(8) {
        if bytes.is_empty() {
            return;
        }
        // Half of the edits are in the header, where they have the most effect.
        let reach = match rng.below(2) {
            0 => bytes.len().min(128),
            _ => bytes.len(),
        };
        let at = rng.below(reach as u64) as usize;
        match rng.below(6) {
            0 => bytes[at] ^= 1u8 << rng.below(8),
            1 => bytes[at] = rng.below(256) as u8,
            2 => {
                let numbers: [&[u8]; 5] = [&[0xFF; 4], &[0; 4], &[0x7F, 0xFF], &[0x80, 0], &[1]];
                let number = numbers[rng.below(5) as usize];
                let end = (at + number.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            3 => bytes.truncate(at),
            4 => {
                let end = (at + rng.below(64) as usize).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let start = rng.below(other.len() as u64 + 1) as usize;
                let end = (start + rng.below(256) as usize).min(other.len());
                bytes.splice(at..at, other[start..end].iter().copied());
            }
        }
    }
}
