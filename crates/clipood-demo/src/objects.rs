//! Outlines of the nameable objects, drawn in a square from -1 to 1 with y pointing down.

use tiny_skia::{Path, PathBuilder, Rect};

/// Which colour fills a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// The object's colour, the one captions name.
    Main,
    /// Its second colour.
    Second,
    /// A line, drawn in the outline colour and never filled.
    Line,
}

/// One closed or open outline of an object.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The outline.
    pub path: Path,
    /// How it is filled.
    pub ink: Ink,
}

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

type Points<'a> = &'a [(f32, f32)];

/// Collects the pieces of one object. Degenerate outlines do not occur: every shape here has an area or a length.
#[derive(Default)]
struct Sketch {
    pieces: Vec<Piece>,
}

impl Sketch {
    fn add(mut self, ink: Ink, path: Option<Path>) -> Self {
        self.pieces.extend(path.map(|path| Piece { path, ink }));
        self
    }

    fn polygon(self, ink: Ink, points: Points<'_>) -> Self {
        let mut builder = PathBuilder::new();
        trace(&mut builder, points);
        builder.close();
        self.add(ink, builder.finish())
    }

    fn line(self, points: Points<'_>) -> Self {
        let mut builder = PathBuilder::new();
        trace(&mut builder, points);
        self.add(Ink::Line, builder.finish())
    }

    fn ellipse(self, ink: Ink, cx: f32, cy: f32, rx: f32, ry: f32) -> Self {
        let bounds = Rect::from_ltrb(cx - rx, cy - ry, cx + rx, cy + ry);
        self.add(ink, bounds.and_then(PathBuilder::from_oval))
    }

    fn circle(self, ink: Ink, cx: f32, cy: f32, r: f32) -> Self {
        self.ellipse(ink, cx, cy, r, r)
    }

    fn rect(self, ink: Ink, l: f32, t: f32, r: f32, b: f32) -> Self {
        self.polygon(ink, &[(l, t), (r, t), (r, b), (l, b)])
    }

    /// A closed outline of cubic curves: a start, then (control, control, end) triples.
    fn curve(self, ink: Ink, start: (f32, f32), cubics: &[[(f32, f32); 3]]) -> Self {
        let mut builder = PathBuilder::new();
        builder.move_to(start.0, start.1);
        for [a, b, c] in cubics {
            builder.cubic_to(a.0, a.1, b.0, b.1, c.0, c.1);
        }
        builder.close();
        self.add(ink, builder.finish())
    }

    fn open_curve(self, start: (f32, f32), cubics: &[[(f32, f32); 3]]) -> Self {
        let mut builder = PathBuilder::new();
        builder.move_to(start.0, start.1);
        for [a, b, c] in cubics {
            builder.cubic_to(a.0, a.1, b.0, b.1, c.0, c.1);
        }
        self.add(Ink::Line, builder.finish())
    }
}

fn trace(builder: &mut PathBuilder, points: Points<'_>) {
    for (i, (x, y)) in points.iter().enumerate() {
        if i == 0 {
            builder.move_to(*x, *y);
        } else {
            builder.line_to(*x, *y);
        }
    }
}

/// Points on a circle, from the top, clockwise.
fn ring(n: usize, radii: &[f32]) -> Vec<(f32, f32)> {
    (0..n)
        .map(|i| {
            let angle = i as f32 / n as f32 * std::f32::consts::TAU;
            let r = radii[i % radii.len()];
            (r * angle.sin(), -r * angle.cos())
        })
        .collect()
}

/// The pieces of the object called `name`, back to front; empty for a name that is not in the lists above.
pub fn object(name: &str) -> Vec<Piece> {
    use Ink::{Main, Second};
    let s = Sketch::default();
    let sketch = match name {
        "arrow" => s.polygon(
            Main,
            &[
                (-0.95, -0.22),
                (0.2, -0.22),
                (0.2, -0.65),
                (0.95, 0.0),
                (0.2, 0.65),
                (0.2, 0.22),
                (-0.95, 0.22),
            ],
        ),
        "bell" => s
            .circle(Second, 0.0, 0.72, 0.2)
            .curve(
                Main,
                (-0.85, 0.62),
                &[
                    [(-0.45, 0.3), (-0.65, -0.75), (0.0, -0.78)],
                    [(0.65, -0.75), (0.45, 0.3), (0.85, 0.62)],
                ],
            )
            .circle(Second, 0.0, -0.84, 0.12),
        "boat" => s
            .polygon(
                Main,
                &[(-0.95, 0.3), (0.95, 0.3), (0.6, 0.85), (-0.6, 0.85)],
            )
            .line(&[(0.0, 0.3), (0.0, -0.95)])
            .polygon(Second, &[(0.08, -0.9), (0.8, 0.15), (0.08, 0.15)])
            .polygon(Second, &[(-0.08, -0.6), (-0.6, 0.15), (-0.08, 0.15)]),
        "car" => s
            .polygon(
                Main,
                &[
                    (-0.98, 0.35),
                    (-0.98, 0.0),
                    (-0.6, -0.1),
                    (-0.4, -0.5),
                    (0.4, -0.5),
                    (0.65, -0.1),
                    (0.98, 0.02),
                    (0.98, 0.35),
                ],
            )
            .polygon(
                Second,
                &[(-0.45, -0.1), (-0.3, -0.4), (-0.04, -0.4), (-0.04, -0.1)],
            )
            .polygon(
                Second,
                &[(0.06, -0.1), (0.06, -0.4), (0.32, -0.4), (0.5, -0.1)],
            )
            .circle(Second, -0.52, 0.38, 0.24)
            .circle(Second, 0.52, 0.38, 0.24),
        "cup" => s
            .ellipse(Second, 0.6, 0.0, 0.34, 0.36)
            .polygon(
                Main,
                &[(-0.7, -0.6), (0.5, -0.6), (0.38, 0.7), (-0.58, 0.7)],
            )
            .line(&[(-0.68, -0.35), (0.48, -0.35)]),
        "fish" => s
            .polygon(Second, &[(0.4, 0.0), (0.95, -0.5), (0.95, 0.5)])
            .ellipse(Main, -0.2, 0.0, 0.75, 0.45)
            .circle(Second, -0.6, -0.1, 0.1)
            .line(&[(-0.3, -0.38), (-0.18, 0.0), (-0.3, 0.38)]),
        "flower" => {
            let mut s = s
                .line(&[(0.0, 0.0), (0.0, 0.98)])
                .ellipse(Second, 0.25, 0.7, 0.25, 0.1);
            for (x, y) in ring(6, &[0.42]) {
                s = s.circle(Main, x, y - 0.3, 0.25);
            }
            s.circle(Second, 0.0, -0.3, 0.24)
        }
        "hat" => s
            .ellipse(Main, 0.0, 0.5, 0.98, 0.2)
            .polygon(
                Main,
                &[(-0.5, 0.5), (-0.45, -0.6), (0.45, -0.6), (0.5, 0.5)],
            )
            .polygon(
                Second,
                &[(-0.5, 0.42), (-0.48, 0.12), (0.48, 0.12), (0.5, 0.42)],
            ),
        "heart" => s.curve(
            Main,
            (0.0, 0.9),
            &[
                [(-1.5, -0.1), (-0.75, -1.2), (0.0, -0.45)],
                [(0.75, -1.2), (1.5, -0.1), (0.0, 0.9)],
            ],
        ),
        "house" => s
            .rect(Main, -0.65, -0.1, 0.65, 0.85)
            .polygon(Second, &[(-0.9, -0.1), (0.0, -0.9), (0.9, -0.1)])
            .rect(Second, -0.15, 0.3, 0.2, 0.85)
            .rect(Second, -0.5, 0.1, -0.25, 0.35),
        "key" => s
            .circle(Main, -0.6, 0.0, 0.36)
            .circle(Second, -0.6, 0.0, 0.16)
            .polygon(
                Main,
                &[
                    (-0.26, -0.1),
                    (0.95, -0.1),
                    (0.95, 0.4),
                    (0.78, 0.4),
                    (0.78, 0.1),
                    (0.62, 0.1),
                    (0.62, 0.34),
                    (0.46, 0.34),
                    (0.46, 0.1),
                    (-0.26, 0.1),
                ],
            ),
        "moon" => s.curve(
            Main,
            (0.35, -0.9),
            &[
                [(-0.95, -0.85), (-0.95, 0.85), (0.35, 0.9)],
                [(-0.25, 0.5), (-0.25, -0.5), (0.35, -0.9)],
            ],
        ),
        "mushroom" => s
            .polygon(
                Second,
                &[(-0.25, 0.0), (0.25, 0.0), (0.35, 0.9), (-0.35, 0.9)],
            )
            .curve(
                Main,
                (-0.95, 0.1),
                &[
                    [(-0.9, -1.1), (0.9, -1.1), (0.95, 0.1)],
                    [(0.5, 0.25), (-0.5, 0.25), (-0.95, 0.1)],
                ],
            )
            .circle(Second, -0.35, -0.3, 0.14)
            .circle(Second, 0.3, -0.4, 0.17),
        "star" => s.polygon(Main, &ring(10, &[0.98, 0.4])),
        "tree" => s
            .rect(Second, -0.13, 0.5, 0.13, 0.95)
            .polygon(Main, &[(-0.75, 0.55), (0.0, -0.2), (0.75, 0.55)])
            .polygon(Main, &[(-0.6, 0.1), (0.0, -0.55), (0.6, 0.1)])
            .polygon(Main, &[(-0.42, -0.3), (0.0, -0.95), (0.42, -0.3)]),
        "umbrella" => s
            .open_curve(
                (0.0, -0.1),
                &[
                    [(0.0, 0.3), (0.0, 0.5), (0.0, 0.7)],
                    [(0.0, 1.0), (-0.4, 1.0), (-0.4, 0.72)],
                ],
            )
            .curve(
                Main,
                (-0.95, 0.0),
                &[
                    [(-0.85, -1.1), (0.85, -1.1), (0.95, 0.0)],
                    [(0.75, -0.2), (0.5, -0.2), (0.32, 0.0)],
                    [(0.2, -0.2), (-0.2, -0.2), (-0.32, 0.0)],
                    [(-0.5, -0.2), (-0.75, -0.2), (-0.95, 0.0)],
                ],
            )
            .line(&[(0.0, -0.82), (0.0, -0.95)]),
        "apple" => s
            .curve(
                Main,
                (0.0, -0.35),
                &[
                    [(-0.3, -0.65), (-0.95, -0.45), (-0.9, 0.15)],
                    [(-0.85, 0.75), (-0.35, 1.0), (0.0, 0.85)],
                    [(0.35, 1.0), (0.85, 0.75), (0.9, 0.15)],
                    [(0.95, -0.45), (0.3, -0.65), (0.0, -0.35)],
                ],
            )
            .line(&[(0.0, -0.3), (0.1, -0.8)])
            .ellipse(Second, 0.38, -0.66, 0.26, 0.12),
        "candle" => s
            .rect(Main, -0.25, -0.2, 0.25, 0.75)
            .rect(Second, -0.6, 0.75, 0.6, 0.92)
            .ellipse(Second, 0.0, -0.6, 0.16, 0.3)
            .line(&[(0.0, -0.2), (0.0, -0.4)]),
        "cat" => s
            .polygon(Main, &[(-0.7, -0.2), (-0.65, -0.95), (-0.1, -0.5)])
            .polygon(Main, &[(0.7, -0.2), (0.65, -0.95), (0.1, -0.5)])
            .ellipse(Main, 0.0, 0.15, 0.78, 0.68)
            .circle(Second, -0.3, 0.0, 0.12)
            .circle(Second, 0.3, 0.0, 0.12)
            .polygon(Second, &[(-0.1, 0.25), (0.1, 0.25), (0.0, 0.38)])
            .line(&[(-0.95, 0.3), (-0.3, 0.38)])
            .line(&[(0.95, 0.3), (0.3, 0.38)]),
        "clock" => s
            .circle(Main, 0.0, 0.0, 0.92)
            .circle(Second, 0.0, 0.0, 0.72)
            .line(&[(0.0, 0.0), (0.0, -0.58)])
            .line(&[(0.0, 0.0), (0.4, 0.2)]),
        "crown" => s
            .polygon(
                Main,
                &[
                    (-0.85, 0.6),
                    (-0.95, -0.5),
                    (-0.45, 0.0),
                    (0.0, -0.75),
                    (0.45, 0.0),
                    (0.95, -0.5),
                    (0.85, 0.6),
                ],
            )
            .rect(Second, -0.85, 0.45, 0.85, 0.72),
        "envelope" => s
            .rect(Main, -0.92, -0.6, 0.92, 0.6)
            .polygon(Second, &[(-0.92, -0.6), (0.0, 0.15), (0.92, -0.6)]),
        "kite" => s
            .polygon(
                Main,
                &[(0.0, -0.95), (0.6, -0.25), (0.0, 0.55), (-0.6, -0.25)],
            )
            .line(&[(0.0, -0.95), (0.0, 0.55)])
            .line(&[(-0.6, -0.25), (0.6, -0.25)])
            .open_curve((0.0, 0.55), &[[(0.3, 0.7), (-0.3, 0.8), (0.1, 0.98)]]),
        "ladder" => {
            let mut s = s
                .rect(Main, -0.5, -0.95, -0.34, 0.95)
                .rect(Main, 0.34, -0.95, 0.5, 0.95);
            for i in 0..5 {
                let y = -0.75 + 0.37 * i as f32;
                s = s.rect(Second, -0.34, y - 0.06, 0.34, y + 0.06);
            }
            s
        }
        "leaf" => s
            .curve(
                Main,
                (-0.8, 0.8),
                &[
                    [(-1.0, -0.4), (0.0, -0.9), (0.85, -0.85)],
                    [(0.9, 0.0), (0.4, 1.0), (-0.8, 0.8)],
                ],
            )
            .line(&[(-0.95, 0.95), (0.5, -0.5)])
            .line(&[(-0.2, 0.2), (-0.2, -0.3)])
            .line(&[(0.1, -0.1), (0.5, 0.0)]),
        "rocket" => s
            .polygon(Second, &[(-0.3, 0.2), (-0.7, 0.75), (-0.3, 0.6)])
            .polygon(Second, &[(0.3, 0.2), (0.7, 0.75), (0.3, 0.6)])
            .curve(
                Main,
                (0.0, -0.98),
                &[
                    [(0.5, -0.5), (0.35, 0.2), (0.3, 0.62)],
                    [(0.1, 0.62), (-0.1, 0.62), (-0.3, 0.62)],
                    [(-0.35, 0.2), (-0.5, -0.5), (0.0, -0.98)],
                ],
            )
            .circle(Second, 0.0, -0.2, 0.16)
            .polygon(Second, &[(-0.18, 0.66), (0.18, 0.66), (0.0, 0.98)]),
        "balloon" => s
            .ellipse(Main, 0.0, -0.35, 0.55, 0.62)
            .polygon(Main, &[(-0.1, 0.35), (0.1, 0.35), (0.0, 0.25)])
            .open_curve((0.0, 0.35), &[[(0.25, 0.55), (-0.25, 0.7), (0.0, 0.95)]]),
        "book" => s
            .polygon(
                Main,
                &[(0.0, -0.5), (-0.92, -0.7), (-0.92, 0.55), (0.0, 0.75)],
            )
            .polygon(
                Second,
                &[(0.0, -0.5), (0.92, -0.7), (0.92, 0.55), (0.0, 0.75)],
            )
            .line(&[(0.2, -0.3), (0.75, -0.42)])
            .line(&[(0.2, 0.0), (0.75, -0.12)]),
        "bottle" => s
            .polygon(
                Main,
                &[
                    (-0.14, -0.9),
                    (0.14, -0.9),
                    (0.14, -0.4),
                    (0.38, -0.1),
                    (0.38, 0.92),
                    (-0.38, 0.92),
                    (-0.38, -0.1),
                    (-0.14, -0.4),
                ],
            )
            .rect(Second, -0.38, 0.15, 0.38, 0.6),
        "chair" => s
            .rect(Main, -0.55, -0.95, -0.38, 0.95)
            .rect(Main, 0.38, 0.1, 0.55, 0.95)
            .rect(Second, -0.55, 0.0, 0.55, 0.2)
            .rect(Second, -0.38, -0.85, -0.2, 0.0),
        "cloud" => s
            .circle(Main, -0.5, 0.15, 0.38)
            .circle(Main, 0.5, 0.15, 0.36)
            .circle(Main, 0.0, -0.1, 0.5)
            .rect(Main, -0.5, 0.1, 0.5, 0.52),
        "cross" => s.polygon(
            Main,
            &[
                (-0.25, -0.9),
                (0.25, -0.9),
                (0.25, -0.25),
                (0.9, -0.25),
                (0.9, 0.25),
                (0.25, 0.25),
                (0.25, 0.9),
                (-0.25, 0.9),
                (-0.25, 0.25),
                (-0.9, 0.25),
                (-0.9, -0.25),
                (-0.25, -0.25),
            ],
        ),
        "diamond" => s
            .polygon(
                Main,
                &[
                    (-0.55, -0.6),
                    (0.55, -0.6),
                    (0.95, -0.15),
                    (0.0, 0.9),
                    (-0.95, -0.15),
                ],
            )
            .line(&[(-0.95, -0.15), (0.95, -0.15)])
            .line(&[(-0.3, -0.15), (0.0, 0.9), (0.3, -0.15)]),
        "door" => s
            .rect(Main, -0.5, -0.95, 0.5, 0.95)
            .rect(Second, -0.3, -0.75, 0.3, -0.15)
            .circle(Second, 0.33, 0.1, 0.09),
        "flag" => s.line(&[(-0.6, -0.95), (-0.6, 0.98)]).polygon(
            Main,
            &[
                (-0.6, -0.9),
                (0.85, -0.75),
                (0.6, -0.35),
                (0.85, 0.1),
                (-0.6, 0.0),
            ],
        ),
        "hammer" => s.rect(Second, -0.12, -0.4, 0.12, 0.95).polygon(
            Main,
            &[
                (-0.7, -0.85),
                (0.45, -0.85),
                (0.75, -0.55),
                (0.45, -0.4),
                (-0.7, -0.4),
            ],
        ),
        "lamp" => s
            .line(&[(0.0, -0.1), (0.0, 0.8)])
            .polygon(
                Main,
                &[(-0.35, -0.9), (0.35, -0.9), (0.75, 0.0), (-0.75, 0.0)],
            )
            .ellipse(Second, 0.0, 0.85, 0.45, 0.12),
        "ring" => s
            .circle(Main, 0.0, 0.25, 0.65)
            .circle(Second, 0.0, 0.25, 0.45)
            .polygon(Second, &[(-0.28, -0.75), (0.28, -0.75), (0.0, -0.35)]),
        "sun" => {
            let mut s = s;
            for (x, y) in ring(10, &[0.98]) {
                s = s.line(&[(0.68 * x, 0.68 * y), (x, y)]);
            }
            s.circle(Main, 0.0, 0.0, 0.52)
        }
        "table" => s
            .polygon(
                Main,
                &[(-0.7, -0.4), (0.7, -0.4), (0.95, 0.0), (-0.95, 0.0)],
            )
            .rect(Second, -0.85, 0.0, -0.7, 0.85)
            .rect(Second, 0.7, 0.0, 0.85, 0.85),
        _ => s,
    };
    sketch.pieces
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
