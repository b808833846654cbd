//! Canvas, colours, backgrounds and styles.

use clipood_core::SplitMix64;
use tiny_skia::{
    Color, FillRule, GradientStop, LineCap, LineJoin, LinearGradient, Paint, Path, PathBuilder,
    PathSegment, Pixmap, Point, Rect, Shader, SpreadMode, Stroke, Transform,
};

use crate::error::DemoError;
use crate::objects::{Ink, Piece};

/// 8-bit RGB picture, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `[height, width, 3]`.
    pub pixels: Vec<u8>,
}

/// A red, green, blue triple.
pub(crate) type Rgb = [u8; 3];

/// The colours that captions name.
pub(crate) const COLOURS: [(&str, Rgb); 14] = [
    ("red", [215, 38, 38]),
    ("green", [46, 150, 60]),
    ("blue", [40, 80, 205]),
    ("yellow", [240, 210, 40]),
    ("orange", [240, 135, 30]),
    ("purple", [130, 55, 170]),
    ("pink", [245, 130, 180]),
    ("brown", [125, 78, 40]),
    ("grey", [130, 130, 130]),
    ("black", [25, 25, 25]),
    ("white", [245, 245, 245]),
    ("cyan", [50, 195, 210]),
    ("olive", [125, 130, 40]),
    ("navy", [20, 30, 95]),
];

/// How objects of a picture are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Style {
    /// Share of pictures drawn in lines only, 0 to 1.
    pub outline_share: f64,
    /// Thinnest and thickest line, in units of the object's half size.
    pub line_width: (f64, f64),
    /// Largest shift of an outline's points, in units of the object's half size.
    pub wobble: f64,
    /// Most distractor marks behind the object.
    pub clutter: u64,
    /// Smallest and largest size of an object at full difficulty, relative to the picture's shorter side.
    pub size: (f64, f64),
}

/// The training stream: objects mostly filled, lines of medium width.
pub(crate) const STREAM: Style = Style {
    outline_share: 0.25,
    line_width: (0.05, 0.13),
    wobble: 0.02,
    clutter: 3,
    size: (0.4, 0.9),
};

/// The benchmark: large objects in shaky lines of any width, with more clutter. The stream covers this style only in part, so
/// zero-shot prompts make mistakes that few-shot training can correct; objects are large, so that random crops still contain
/// them.
pub(crate) const BENCHMARK: Style = Style {
    outline_share: 1.0,
    line_width: (0.015, 0.22),
    wobble: 0.18,
    clutter: 16,
    size: (0.8, 1.0),
};

/// A drawing surface of `width` x `height` pixels.
pub(crate) struct Canvas {
    map: Pixmap,
}

fn solid(rgb: Rgb) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(rgb[0], rgb[1], rgb[2], 255);
    paint.anti_alias = true;
    paint
}

fn colour(rgb: Rgb) -> Color {
    Color::from_rgba8(rgb[0], rgb[1], rgb[2], 255)
}

/// Lighter (`amount` > 0) or darker (< 0), -1 to 1.
pub(crate) fn shade(rgb: Rgb, amount: f64) -> Rgb {
    rgb.map(|v| {
        let v = f64::from(v);
        let to = if amount > 0.0 { 255.0 } else { 0.0 };
        (v + (to - v) * amount.abs()).clamp(0.0, 255.0) as u8
    })
}

/// Difference of two colours, 0 to 765.
pub(crate) fn contrast(a: Rgb, b: Rgb) -> u32 {
    (0..3).map(|i| u32::from(a[i].abs_diff(b[i]))).sum()
}

/// Uniform in `[low, high)`.
pub(crate) fn between(rng: &mut SplitMix64, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.unit()
}

/// One of `items`, which is not empty.
pub(crate) fn pick<'a, T>(rng: &mut SplitMix64, items: &'a [T]) -> &'a T {
    &items[rng.below(items.len() as u64) as usize]
}

impl Canvas {
    /// A canvas filled with one colour.
    ///
    /// # Errors
    /// [`DemoError::Size`] if a side is 0 or too large.
    pub fn new(width: u32, height: u32, fill: Rgb) -> Result<Self, DemoError> {
        let mut map = Pixmap::new(width, height).ok_or(DemoError::Size { width, height })?;
        map.fill(colour(fill));
        Ok(Self { map })
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (f32, f32) {
        (self.map.width() as f32, self.map.height() as f32)
    }

    /// Fills an outline given in pixels.
    pub fn fill(&mut self, path: &Path, rgb: Rgb) {
        let rule = FillRule::Winding;
        self.map
            .fill_path(path, &solid(rgb), rule, Transform::identity(), None);
    }

    /// Draws an outline given in pixels with a round pen.
    pub fn stroke(&mut self, path: &Path, rgb: Rgb, width: f32) {
        let stroke = Stroke {
            width: width.max(0.6),
            line_cap: LineCap::Round,
            line_join: LineJoin::Round,
            ..Stroke::default()
        };
        self.map
            .stroke_path(path, &solid(rgb), &stroke, Transform::identity(), None);
    }

    /// Fills a rectangle given in pixels.
    pub fn rect(&mut self, left: f32, top: f32, right: f32, bottom: f32, rgb: Rgb) {
        if let Some(rect) = Rect::from_ltrb(left, top, right.max(left + 0.1), bottom.max(top + 0.1))
        {
            let path = PathBuilder::from_rect(rect);
            self.fill(&path, rgb);
        }
    }

    /// Fills a disc given in pixels.
    pub fn disc(&mut self, x: f32, y: f32, radius: f32, rgb: Rgb) {
        if let Some(path) = PathBuilder::from_circle(x, y, radius.max(0.3)) {
            self.fill(&path, rgb);
        }
    }

    /// Fills a polygon given in pixels.
    pub fn polygon(&mut self, points: &[(f32, f32)], rgb: Rgb) {
        let mut builder = PathBuilder::new();
        for (i, (x, y)) in points.iter().enumerate() {
            if i == 0 {
                builder.move_to(*x, *y);
            } else {
                builder.line_to(*x, *y);
            }
        }
        builder.close();
        if let Some(path) = builder.finish() {
            self.fill(&path, rgb);
        }
    }

    /// Draws an open polyline given in pixels.
    pub fn line(&mut self, points: &[(f32, f32)], rgb: Rgb, width: f32) {
        let mut builder = PathBuilder::new();
        for (i, (x, y)) in points.iter().enumerate() {
            if i == 0 {
                builder.move_to(*x, *y);
            } else {
                builder.line_to(*x, *y);
            }
        }
        if let Some(path) = builder.finish() {
            self.stroke(&path, rgb, width);
        }
    }

    /// A vertical gradient over the rows from `top` to `bottom`.
    pub fn gradient(&mut self, top: f32, bottom: f32, from: Rgb, to: Rgb) {
        let (width, _) = self.size();
        let stops = vec![
            GradientStop::new(0.0, colour(from)),
            GradientStop::new(1.0, colour(to)),
        ];
        let shader = LinearGradient::new(
            Point::from_xy(0.0, top),
            Point::from_xy(0.0, bottom.max(top + 1.0)),
            stops,
            SpreadMode::Pad,
            Transform::identity(),
        );
        let paint = Paint {
            shader: shader.unwrap_or(Shader::SolidColor(colour(from))),
            ..Paint::default()
        };
        if let Some(rect) = Rect::from_ltrb(0.0, top, width, bottom.max(top + 1.0)) {
            self.map
                .fill_rect(rect, &paint, Transform::identity(), None);
        }
    }

    /// The finished picture.
    pub fn finish(self) -> Picture {
        let pixels = self
            .map
            .data()
            .chunks_exact(4)
            .flat_map(|p| [p[0], p[1], p[2]])
            .collect();
        Picture {
            width: self.map.width(),
            height: self.map.height(),
            pixels,
        }
    }
}

/// A background around the colour `base`, plain, or with a gradient, a horizon or speckles; `variety` (0 to 1) is the chance of the latter.
///
/// # Errors
/// [`DemoError::Size`].
pub(crate) fn background(
    rng: &mut SplitMix64,
    width: u32,
    height: u32,
    base: Rgb,
    variety: f64,
) -> Result<Canvas, DemoError> {
    let mut canvas = Canvas::new(width, height, base)?;
    if rng.unit() >= variety {
        return Ok(canvas);
    }
    let (w, h) = canvas.size();
    match rng.below(4) {
        0 => {
            let other = shade(base, between(rng, -0.45, 0.45));
            canvas.gradient(0.0, h, base, other);
        }
        1 => {
            let horizon = h * between(rng, 0.35, 0.75) as f32;
            let other = shade(base, between(rng, -0.4, 0.4));
            canvas.rect(0.0, horizon, w, h, other);
        }
        2 => {
            for _ in 0..rng.below(40) + 10 {
                let (x, y) = (rng.unit() as f32 * w, rng.unit() as f32 * h);
                let tone = shade(base, between(rng, -0.3, 0.3));
                canvas.disc(x, y, w * 0.012, tone);
            }
        }
        _ => {}
    }
    Ok(canvas)
}

/// Distractor marks: short lines, dots and corners that belong to no object.
pub(crate) fn clutter(rng: &mut SplitMix64, canvas: &mut Canvas, count: u64, base: Rgb) {
    let (w, h) = canvas.size();
    for _ in 0..count {
        let (x, y) = (rng.unit() as f32 * w, rng.unit() as f32 * h);
        let size = w * between(rng, 0.03, 0.12) as f32;
        let tone = shade(base, between(rng, -0.5, 0.5));
        let angle = between(rng, 0.0, std::f64::consts::TAU);
        let (dx, dy) = (size * angle.cos() as f32, size * angle.sin() as f32);
        match rng.below(3) {
            0 => canvas.disc(x, y, size * 0.4, tone),
            1 => canvas.line(&[(x - dx, y - dy), (x + dx, y + dy)], tone, w * 0.02),
            _ => canvas.line(
                &[(x - dx, y - dy), (x, y), (x + dy, y - dx)],
                tone,
                w * 0.02,
            ),
        }
    }
}

/// Position, size and orientation of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pose {
    /// Centre in pixels.
    pub centre: (f32, f32),
    /// Half size in pixels.
    pub half: f32,
    /// Degrees clockwise.
    pub turn: f32,
    /// Mirrored left to right.
    pub mirror: bool,
}

/// Line style and colours of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look<'a> {
    /// Line width and wobble.
    pub style: &'a Style,
    /// Outlines only, in the main colour; otherwise pieces are filled.
    pub lines: bool,
    /// Colour of [`Ink::Main`], the one that captions name.
    pub main: Rgb,
    /// Colour of [`Ink::Second`].
    pub second: Rgb,
    /// Colour behind the object: fills outlined pieces, so that nearer ones hide those behind them.
    pub background: Rgb,
}

/// Draws the pieces of an object, back to front.
pub(crate) fn draw_object(
    rng: &mut SplitMix64,
    canvas: &mut Canvas,
    pieces: &[Piece],
    pose: &Pose,
    look: &Look<'_>,
) {
    let style = look.style;
    let flip = if pose.mirror { -1.0 } else { 1.0 };
    let place = Transform::from_scale(flip * pose.half, pose.half)
        .post_rotate(pose.turn)
        .post_translate(pose.centre.0, pose.centre.1);
    let width = between(rng, style.line_width.0, style.line_width.1) as f32 * pose.half;
    for piece in pieces {
        let shaken = shake(rng, &piece.path, style.wobble);
        let Some(path) = shaken.transform(place) else {
            continue;
        };
        match (look.lines, piece.ink) {
            (true, Ink::Line) => canvas.stroke(&path, look.main, width),
            (true, Ink::Main | Ink::Second) => {
                canvas.fill(&path, look.background);
                canvas.stroke(&path, look.main, width);
            }
            (false, Ink::Main) => canvas.fill(&path, look.main),
            (false, Ink::Second) => canvas.fill(&path, look.second),
            (false, Ink::Line) => canvas.stroke(&path, shade(look.main, -0.45), width.max(1.0)),
        }
    }
}

/// Moves every point of an outline by up to `wobble`, as an unsteady hand would.
fn shake(rng: &mut SplitMix64, path: &Path, wobble: f64) -> Path {
    let mut off = |p: Point| {
        let dx = between(rng, -wobble, wobble) as f32;
        let dy = between(rng, -wobble, wobble) as f32;
        Point::from_xy(p.x + dx, p.y + dy)
    };
    let mut builder = PathBuilder::new();
    for segment in path.segments() {
        match segment {
            PathSegment::MoveTo(p) => {
                let p = off(p);
                builder.move_to(p.x, p.y);
            }
            PathSegment::LineTo(p) => {
                let p = off(p);
                builder.line_to(p.x, p.y);
            }
            PathSegment::QuadTo(a, b) => {
                let (a, b) = (off(a), off(b));
                builder.quad_to(a.x, a.y, b.x, b.y);
            }
            PathSegment::CubicTo(a, b, c) => {
                let (a, b, c) = (off(a), off(b), off(c));
                builder.cubic_to(a.x, a.y, b.x, b.y, c.x, c.y);
            }
            PathSegment::Close => builder.close(),
        }
    }
    builder.finish().unwrap_or_else(|| path.clone())
}
