//! Painting on a picture.

use tiny_skia::{
    BlendMode, Color, FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, PixmapPaint,
    Rect, Stroke, Transform,
};

use crate::palette::Rgb;

/// Largest side of a picture in pixels.
const MAX_SIDE: u32 = 4096;

/// 8-bit RGB picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `[height, width, 3]`, row-major, 0 to 255.
    pub pixels: Vec<u8>,
}

/// A picture in the making. Coordinates are pixels, y points down.
pub(crate) struct Canvas {
    pixmap: Pixmap,
}

impl Canvas {
    /// A canvas without paint; sides are clamped to 1..=4096.
    pub(crate) fn new(width: u32, height: u32) -> Self {
        let pixmap = Pixmap::new(width.clamp(1, MAX_SIDE), height.clamp(1, MAX_SIDE));
        Self {
            // Only empty and overflowing sizes have no pixmap, and the clamp leaves neither.
            pixmap: pixmap.expect("a clamped size is drawable"),
        }
    }

    /// Width in pixels.
    pub(crate) fn width(&self) -> f32 {
        self.pixmap.width() as f32
    }

    /// Height in pixels.
    pub(crate) fn height(&self) -> f32 {
        self.pixmap.height() as f32
    }

    /// The shorter side in pixels.
    pub(crate) fn short(&self) -> f32 {
        self.width().min(self.height())
    }

    /// A transparent canvas of the same size.
    pub(crate) fn layer(&self) -> Self {
        Self::new(self.pixmap.width(), self.pixmap.height())
    }

    /// Lays another canvas of the same size over this one.
    pub(crate) fn lay(&mut self, layer: &Self) {
        self.pixmap.draw_pixmap(
            0,
            0,
            layer.pixmap.as_ref(),
            &PixmapPaint::default(),
            Transform::identity(),
            None,
        );
    }

    /// Sets every pixel to `colour_at(x, y)`, x and y being the pixel's centre as shares (0 to 1) of the sides.
    pub(crate) fn paint(&mut self, mut colour_at: impl FnMut(f32, f32) -> Rgb) {
        let (width, height) = (self.width(), self.height());
        let columns = self.pixmap.width() as usize;
        for (i, pixel) in self.pixmap.data_mut().chunks_exact_mut(4).enumerate() {
            let x = ((i % columns) as f32 + 0.5) / width;
            let y = ((i / columns) as f32 + 0.5) / height;
            let [r, g, b] = colour_at(x, y);
            pixel.copy_from_slice(&[r, g, b, 255]);
        }
    }

    /// Fills a path given in units that `place` maps to pixels.
    pub(crate) fn fill(&mut self, path: &Path, rgb: Rgb, place: Transform) {
        self.pixmap
            .fill_path(path, &ink(rgb), FillRule::Winding, place, None);
    }

    /// Makes the inside of a path transparent.
    pub(crate) fn erase(&mut self, path: &Path, place: Transform) {
        let mut paint = ink([0, 0, 0]);
        paint.blend_mode = BlendMode::Clear;
        self.pixmap
            .fill_path(path, &paint, FillRule::Winding, place, None);
    }

    /// Draws along a path with round caps; `width` is in the path's units.
    pub(crate) fn stroke(&mut self, path: &Path, rgb: Rgb, width: f32, place: Transform) {
        let stroke = Stroke {
            width,
            line_cap: LineCap::Round,
            line_join: LineJoin::Round,
            ..Stroke::default()
        };
        self.pixmap
            .stroke_path(path, &ink(rgb), &stroke, place, None);
    }

    /// Fills a polygon given in pixels.
    pub(crate) fn polygon(&mut self, points: &[(f32, f32)], rgb: Rgb) {
        if let Some(path) = polyline(points, true) {
            self.fill(&path, rgb, Transform::identity());
        }
    }

    /// Fills a rectangle given in pixels; nothing if it is empty.
    pub(crate) fn rect(&mut self, left: f32, top: f32, right: f32, bottom: f32, rgb: Rgb) {
        if let Some(rect) = Rect::from_ltrb(left, top, right, bottom) {
            self.fill(&PathBuilder::from_rect(rect), rgb, Transform::identity());
        }
    }

    /// Fills a circle given in pixels.
    pub(crate) fn disc(&mut self, x: f32, y: f32, radius: f32, rgb: Rgb) {
        if let Some(path) = PathBuilder::from_circle(x, y, radius) {
            self.fill(&path, rgb, Transform::identity());
        }
    }

    /// Draws an open line given in pixels.
    pub(crate) fn line(&mut self, points: &[(f32, f32)], rgb: Rgb, width: f32) {
        if let Some(path) = polyline(points, false) {
            self.stroke(&path, rgb, width, Transform::identity());
        }
    }

    /// The finished picture; transparent pixels come out black.
    pub(crate) fn finish(self) -> Picture {
        let mut pixels = Vec::with_capacity(self.pixmap.data().len() / 4 * 3);
        for pixel in self.pixmap.data().chunks_exact(4) {
            pixels.extend_from_slice(&pixel[..3]);
        }
        Picture {
            width: self.pixmap.width(),
            height: self.pixmap.height(),
            pixels,
        }
    }
}

fn ink([r, g, b]: Rgb) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color(Color::from_rgba8(r, g, b, 255));
    paint
}

/// The path through `points`.
pub(crate) fn polyline(points: &[(f32, f32)], closed: bool) -> Option<Path> {
    let mut builder = PathBuilder::new();
    for (i, (x, y)) in points.iter().enumerate() {
        if i == 0 {
            builder.move_to(*x, *y);
        } else {
            builder.line_to(*x, *y);
        }
    }
    if closed {
        builder.close();
    }
    builder.finish()
}
