//! Outlines of the nameable objects, drawn in a square from -1 to 1 with y pointing down. Each submodule except
//! `sketch` contains the names of one set and their outlines.

mod in_distribution;
mod near;
mod other;
mod sketch;

pub use in_distribution::ID_CLASSES;
pub use near::NEAR_CLASSES;
pub use other::OTHER_CLASSES;
use sketch::Sketch;
pub(crate) use sketch::{Ink, Piece};

/// The pieces of the object called `name`, back to front; empty for a name that is in none of the lists.
pub(crate) fn object(name: &str) -> Vec<Piece> {
    let start = Sketch::default;
    in_distribution::outline(name, start())
        .or_else(|| near::outline(name, start()))
        .or_else(|| other::outline(name, start()))
        .map_or_else(Vec::new, |sketch| sketch.pieces)
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
                // Control points of curves may lie outside; the ink does not.
                let b = piece.path.compute_tight_bounds().unwrap();
                let far = [b.left(), b.top(), b.right(), b.bottom()]
                    .into_iter()
                    .fold(0f32, |m, v| m.max(v.abs()));
                assert!(far <= 1.25, "{name} reaches {far}");
            }
        }
        assert_eq!(seen.len(), 40);
    }
}
