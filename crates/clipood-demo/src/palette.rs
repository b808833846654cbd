//! The named colours.

use crate::rng::Rng;

/// Red, green and blue, 0 to 255.
pub(crate) type Rgb = [u8; 3];

/// A colour and the word that captions use for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Colour {
    /// The word.
    pub(crate) name: &'static str,
    /// The colour itself.
    pub(crate) rgb: Rgb,
}

const fn colour(name: &'static str, rgb: Rgb) -> Colour {
    Colour { name, rgb }
}

/// White, the plainest background.
pub(crate) const WHITE: Colour = colour("white", [248, 248, 248]);
const BLACK: Colour = colour("black", [22, 22, 24]);

/// Every named colour.
pub(crate) const COLOURS: [Colour; 15] = [
    colour("red", [214, 38, 40]),
    colour("orange", [245, 138, 24]),
    colour("yellow", [244, 214, 36]),
    colour("green", [40, 150, 58]),
    colour("blue", [38, 92, 214]),
    colour("purple", [130, 52, 170]),
    colour("pink", [246, 138, 184]),
    colour("brown", [126, 78, 38]),
    BLACK,
    WHITE,
    colour("gray", [138, 138, 140]),
    colour("teal", [20, 140, 140]),
    colour("navy", [24, 34, 96]),
    colour("lime", [154, 224, 48]),
    colour("tan", [212, 182, 140]),
];

/// Smallest distance at which a small shape stands out from what is behind it.
const CONTRAST: f32 = 110.0;

/// Euclidean distance of two colours, 0 to 442.
pub(crate) fn distance(a: Rgb, b: Rgb) -> f32 {
    let square = |i: usize| {
        let d = f32::from(a[i]) - f32::from(b[i]);
        d * d
    };
    (square(0) + square(1) + square(2)).sqrt()
}

/// `a` at share 0, `b` at share 1.
pub(crate) fn mix(a: Rgb, b: Rgb, share: f32) -> Rgb {
    let share = share.clamp(0.0, 1.0);
    std::array::from_fn(|i| {
        (f32::from(a[i]) + (f32::from(b[i]) - f32::from(a[i])) * share).round() as u8
    })
}

/// The colour with each channel moved by up to `amount`.
pub(crate) fn jitter(rng: &mut Rng, rgb: Rgb, amount: f32) -> Rgb {
    rgb.map(|c| (f32::from(c) + rng.range((-amount, amount))).clamp(0.0, 255.0) as u8)
}

/// A random colour that stands out from all of `others`; black or white where chance finds none.
pub(crate) fn contrasting(rng: &mut Rng, others: &[Rgb]) -> Colour {
    let nearest = |c: &Colour| {
        others
            .iter()
            .map(|o| distance(c.rgb, *o))
            .fold(f32::MAX, f32::min)
    };
    for _ in 0..24 {
        let candidate = *rng.pick(&COLOURS);
        if nearest(&candidate) >= CONTRAST {
            return candidate;
        }
    }
    if nearest(&WHITE) > nearest(&BLACK) {
        WHITE
    } else {
        BLACK
    }
}

/// Black, grey or white for lines: the one that stands out best from all of `others`.
pub(crate) fn line_colour(others: &[Rgb]) -> Rgb {
    let mut best = (f32::MIN, BLACK.rgb);
    for candidate in [BLACK.rgb, WHITE.rgb, [128, 128, 128]] {
        let nearest = others
            .iter()
            .map(|o| distance(candidate, *o))
            .fold(f32::MAX, f32::min);
        if nearest > best.0 {
            best = (nearest, candidate);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_colours_are_told_apart() {
        for (i, a) in COLOURS.iter().enumerate() {
            for b in &COLOURS[..i] {
                assert_ne!(a.name, b.name);
                assert!(distance(a.rgb, b.rgb) > 60.0, "{} and {}", a.name, b.name);
            }
        }
    }

    #[test]
    fn a_contrasting_colour_stands_out() {
        let mut rng = Rng::keyed(1, "contrast", 0);
        for a in &COLOURS {
            for _ in 0..20 {
                let b = contrasting(&mut rng, &[a.rgb]);
                assert!(distance(a.rgb, b.rgb) >= CONTRAST);
            }
        }
    }
}
