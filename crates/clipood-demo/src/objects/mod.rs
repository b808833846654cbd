//! The nameable objects, each drawn from a few paths.

mod id;
mod near;
mod other;
mod sketch;

pub use sketch::{Ink, Piece};

/// The in-distribution classes, in label order.
pub const ID_CLASSES: [&str; 16] = [
    "arrow", "bell", "boat", "car", "cup", "fish", "flower", "hat", "heart", "house", "key",
    "moon", "mushroom", "star", "tree", "umbrella",
];

/// Objects of the near out-of-distribution set.
pub const NEAR_CLASSES: [&str; 10] = [
    "apple", "candle", "cat", "clock", "crown", "envelope", "kite", "ladder", "leaf", "rocket",
];

/// Objects that only the training stream shows.
pub const OTHER_CLASSES: [&str; 14] = [
    "balloon", "book", "bottle", "chair", "cloud", "cross", "diamond", "door", "flag", "hammer",
    "lamp", "ring", "sun", "table",
];

/// The pieces of the object called `name`, back to front, in a square from -1 to 1 with y pointing down; empty for a
/// name that is not in [`ID_CLASSES`], [`NEAR_CLASSES`] or [`OTHER_CLASSES`].
pub fn object(name: &str) -> Vec<Piece> {
    [id::sketch, near::sketch, other::sketch]
        .into_iter()
        .map(|sketch| sketch(name).pieces)
        .find(|pieces| !pieces.is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_an_outline_inside_its_square() {
        let names = ID_CLASSES.iter().chain(&NEAR_CLASSES).chain(&OTHER_CLASSES);
        let mut seen = std::collections::BTreeSet::new();
        for name in names {
            let pieces = object(name);
            assert!(!pieces.is_empty(), "{name} draws nothing");
            assert!(seen.insert(*name), "{name} is listed twice");
            for piece in pieces {
                let b = piece.path.bounds();
                let far = [b.left(), b.top(), b.right(), b.bottom()]
                    .into_iter()
                    .fold(0f32, |m, v| m.max(v.abs()));
                assert!(far <= 1.25, "{name} reaches {far}");
            }
        }
        assert_eq!(seen.len(), 40);
    }
}
