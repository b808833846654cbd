//! Draws one object or letter with its background and clutter.

use tiny_skia::{Path, PathBuilder, PathSegment, Point, Transform};

use crate::background::{self, Background};
use crate::canvas::Canvas;
use crate::glyphs::glyph;
use crate::objects::{Ink, Piece, object};
use crate::palette::{COLOURS, Colour, Rgb, contrasting, jitter, line_colour};
use crate::rng::{Rng, sine, turn};
use crate::style::Style;

/// What can be said of a drawn figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figure {
    /// Name of the main colour.
    pub(crate) colour: &'static str,
    /// Name of the background's colour, where it has one that is plain to see.
    pub(crate) background: Option<&'static str>,
    /// Whether it is drawn with lines only.
    pub(crate) outline: bool,
    /// Size as a share of the picture's shorter side.
    pub(crate) size: f32,
}

/// Draws the object called `name` over the whole canvas.
pub(crate) fn draw_object(canvas: &mut Canvas, rng: &mut Rng, style: &Style, name: &str) -> Figure {
    let pieces = object(name);
    let outline = rng.chance(style.outline_fraction);
    let width = rng.range(style.line_width);
    let bordered = rng.chance(style.bordered_fraction);
    let mirrored = rng.chance(style.mirrored_fraction);
    with_surroundings(canvas, rng, style, |canvas, rng, colours| {
        let (place, size) = pose(canvas, rng, style, mirrored);
        let hand = Hand::new(rng, style);
        let pieces: Vec<Piece> = pieces
            .iter()
            .filter_map(|piece| {
                hand.redraw(&piece.path)
                    .map(|path| Piece { path, ..*piece })
            })
            .collect();
        if outline {
            outlined(canvas, &pieces, colours.main, visible(width, place), place);
        } else {
            filled(canvas, rng, &pieces, colours, bordered, place);
        }
        (outline, size)
    })
}

/// Draws the letter or digit `c` over the whole canvas.
pub(crate) fn draw_glyph(canvas: &mut Canvas, rng: &mut Rng, style: &Style, c: char) -> Figure {
    // A letter is nothing but its lines, so they are about twice as wide as an outline's.
    let width = 0.08 + 2.0 * rng.range(style.line_width);
    with_surroundings(canvas, rng, style, |canvas, rng, colours| {
        let (place, size) = pose(canvas, rng, style, false);
        let hand = Hand::new(rng, style);
        for path in glyph(c).iter().filter_map(|path| hand.redraw(path)) {
            canvas.stroke(&path, colours.main, visible(width, place), place);
        }
        (false, size)
    })
}

/// The colours of one figure.
struct Colours {
    main: Rgb,
    second: Rgb,
    line: Rgb,
}

fn with_surroundings(
    canvas: &mut Canvas,
    rng: &mut Rng,
    style: &Style,
    draw: impl FnOnce(&mut Canvas, &mut Rng, &Colours) -> (bool, f32),
) -> Figure {
    let named: Colour = *rng.pick(&COLOURS);
    let main = jitter(rng, named.rgb, 12.0);
    let Background { name, colours } = background::paint(canvas, rng, style, main);
    let second = contrasting(rng, &[main]).rgb;
    let mut behind_lines = colours;
    behind_lines.extend([main, second]);
    let colours = Colours {
        main,
        second,
        line: line_colour(&behind_lines),
    };
    background::scribble(canvas, rng, style.scribbles);
    background::scatter(canvas, rng, style.clutter);
    let (outline, size) = draw(canvas, rng, &colours);
    background::scatter(canvas, rng, style.clutter * 0.5);
    Figure {
        colour: named.name,
        background: name,
        outline,
        size,
    }
}

/// Where the figure lies: object units to pixels, and its size as a share of the shorter side.
fn pose(canvas: &Canvas, rng: &mut Rng, style: &Style, mirrored: bool) -> (Transform, f32) {
    let size = rng.range(style.scale);
    let half = canvas.short() * size * 0.5;
    let free_x = (canvas.width() * 0.5 - half).max(0.0) * style.offset;
    let free_y = (canvas.height() * 0.5 - half).max(0.0) * style.offset;
    let x = canvas.width() * 0.5 + rng.range((-free_x, free_x));
    let y = canvas.height() * 0.5 + rng.range((-free_y, free_y));
    let (sin, cos) = turn(rng.range((-style.rotation, style.rotation)) / 360.0);
    let flip = if mirrored { -half } else { half };
    (
        Transform::from_row(flip * cos, flip * sin, -half * sin, half * cos, x, y),
        size,
    )
}

/// The line width in object units, but at least about a pixel.
fn visible(width: f32, place: Transform) -> f32 {
    let pixels = (place.kx * place.kx + place.sy * place.sy).sqrt();
    width.max(1.1 / pixels.max(1e-3))
}

/// Lines only. Each piece hides what lies behind it, so that an outline shows no hidden edges.
fn outlined(canvas: &mut Canvas, pieces: &[Piece], rgb: Rgb, width: f32, place: Transform) {
    let mut layer = canvas.layer();
    for piece in pieces {
        if piece.ink != Ink::Line {
            layer.erase(&piece.path, place);
        }
        layer.stroke(&piece.path, rgb, width, place);
    }
    canvas.lay(&layer);
}

fn filled(
    canvas: &mut Canvas,
    rng: &mut Rng,
    pieces: &[Piece],
    colours: &Colours,
    bordered: bool,
    place: Transform,
) {
    let width = visible(rng.range((0.06, 0.11)), place);
    for piece in pieces {
        let fill = match piece.ink {
            Ink::Main => colours.main,
            Ink::Second => colours.second,
            Ink::Line => {
                canvas.stroke(&piece.path, colours.line, width, place);
                continue;
            }
        };
        canvas.fill(&piece.path, fill, place);
        if bordered {
            canvas.stroke(&piece.path, colours.line, width * 0.7, place);
        }
    }
}

/// An unsteady hand: a smooth random field that moves every point of the lines.
struct Hand {
    amount: f32,
    phases: [f32; 4],
    waves: [f32; 2],
}

impl Hand {
    fn new(rng: &mut Rng, style: &Style) -> Self {
        Self {
            amount: rng.range(style.wobble),
            phases: std::array::from_fn(|_| rng.unit()),
            waves: std::array::from_fn(|_| rng.range((0.5, 1.6))),
        }
    }

    fn moved(&self, x: f32, y: f32) -> (f32, f32) {
        let [p, q, r, s] = self.phases;
        let [slow, fast] = self.waves;
        let dx = sine(y * slow + p) + 0.6 * sine((x + y) * fast + q);
        let dy = sine(x * slow + r) + 0.6 * sine((x - y) * fast + s);
        (x + self.amount * dx, y + self.amount * dy)
    }

    /// The path as this hand draws it, in short straight pieces; a steady hand returns it as it is.
    fn redraw(&self, path: &Path) -> Option<Path> {
        if self.amount == 0.0 {
            return Some(path.clone());
        }
        let mut builder = PathBuilder::new();
        let mut start = Point::zero();
        let mut last = Point::zero();
        for segment in path.segments() {
            let (steps, end): (u32, Point) = match segment {
                PathSegment::MoveTo(p) => {
                    let (x, y) = self.moved(p.x, p.y);
                    builder.move_to(x, y);
                    (start, last) = (p, p);
                    continue;
                }
                PathSegment::LineTo(p) => (6, p),
                PathSegment::QuadTo(_, p) => (6, p),
                PathSegment::CubicTo(_, _, p) => (10, p),
                PathSegment::Close => (6, start),
            };
            for i in 1..=steps {
                let p = along(segment, last, end, i as f32 / steps as f32);
                let (x, y) = self.moved(p.0, p.1);
                builder.line_to(x, y);
            }
            if segment == PathSegment::Close {
                builder.close();
            }
            last = end;
        }
        builder.finish()
    }
}

/// The point at share `t` of a segment from `a` to `z`.
fn along(segment: PathSegment, a: Point, z: Point, t: f32) -> (f32, f32) {
    let u = 1.0 - t;
    let sum = |parts: &[(f32, Point)]| {
        parts
            .iter()
            .fold((0.0, 0.0), |(x, y), (w, p)| (x + w * p.x, y + w * p.y))
    };
    match segment {
        PathSegment::QuadTo(b, _) => sum(&[(u * u, a), (2.0 * u * t, b), (t * t, z)]),
        PathSegment::CubicTo(b, c, _) => sum(&[
            (u * u * u, a),
            (3.0 * u * u * t, b),
            (3.0 * u * t * t, c),
            (t * t * t, z),
        ]),
        _ => sum(&[(u, a), (t, z)]),
    }
}
