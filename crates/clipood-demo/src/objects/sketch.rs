//! The shapes that outlines are composed of.

use tiny_skia::{Path, PathBuilder, Rect};

/// Which colour fills a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    /// The object's main colour, which captions name.
    Main,
    /// The second colour.
    Second,
    /// A line, drawn in the outline colour and never filled.
    Line,
}

/// One closed or open outline of an object.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// The outline.
    pub path: Path,
    /// How it is filled.
    pub ink: Ink,
}

type Points<'a> = &'a [(f32, f32)];

/// Collects the pieces of one object. A degenerate outline would be dropped; none occurs, as every shape here has an area or
/// a length.
#[derive(Default)]
pub(super) struct Sketch {
    pub(super) pieces: Vec<Piece>,
}

impl Sketch {
    fn add(mut self, ink: Ink, path: Option<Path>) -> Self {
        self.pieces.extend(path.map(|path| Piece { path, ink }));
        self
    }

    pub(super) fn polygon(self, ink: Ink, points: Points<'_>) -> Self {
        let mut builder = PathBuilder::new();
        trace(&mut builder, points);
        builder.close();
        self.add(ink, builder.finish())
    }

    pub(super) fn line(self, points: Points<'_>) -> Self {
        let mut builder = PathBuilder::new();
        trace(&mut builder, points);
        self.add(Ink::Line, builder.finish())
    }

    pub(super) fn ellipse(self, ink: Ink, cx: f32, cy: f32, rx: f32, ry: f32) -> Self {
        let bounds = Rect::from_ltrb(cx - rx, cy - ry, cx + rx, cy + ry);
        self.add(ink, bounds.and_then(PathBuilder::from_oval))
    }

    pub(super) fn circle(self, ink: Ink, cx: f32, cy: f32, r: f32) -> Self {
        self.ellipse(ink, cx, cy, r, r)
    }

    pub(super) fn rect(self, ink: Ink, l: f32, t: f32, r: f32, b: f32) -> Self {
        self.polygon(ink, &[(l, t), (r, t), (r, b), (l, b)])
    }

    /// A closed outline of cubic curves: a start, then (control, control, end) triples.
    pub(super) fn curve(self, ink: Ink, start: (f32, f32), cubics: &[[(f32, f32); 3]]) -> Self {
        let mut builder = PathBuilder::new();
        builder.move_to(start.0, start.1);
        for [a, b, c] in cubics {
            builder.cubic_to(a.0, a.1, b.0, b.1, c.0, c.1);
        }
        builder.close();
        self.add(ink, builder.finish())
    }

    pub(super) fn open_curve(self, start: (f32, f32), cubics: &[[(f32, f32); 3]]) -> Self {
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

/// `n` points around the centre, clockwise from the top, at the radii in turn.
pub(super) fn ring(n: usize, radii: &[f32]) -> Vec<(f32, f32)> {
    (0..n)
        .map(|i| {
            let angle = i as f32 / n as f32 * std::f32::consts::TAU;
            let r = radii[i % radii.len()];
            (r * angle.sin(), -r * angle.cos())
        })
        .collect()
}
