//! Every knob of how pictures look.

/// How objects and letters are drawn. Lengths called "object units" are shares of half the object's size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Style {
    /// Share of the pictures that are drawn with lines only, 0 to 1.
    pub outline_fraction: f32,
    /// Range of the line width of such pictures, object units.
    pub line_width: (f32, f32),
    /// Share of the filled pictures whose pieces have a line around them, 0 to 1.
    pub bordered_fraction: f32,
    /// Range of how far a trembling hand moves the lines, object units.
    pub wobble: (f32, f32),
    /// Range of the object's size as a share of the picture's shorter side.
    pub scale: (f32, f32),
    /// How far off the centre an object may lie, as a share of the room around it, 0 to 1.
    pub offset: f32,
    /// Largest rotation to either side in degrees.
    pub rotation: f32,
    /// Share of mirrored pictures, 0 to 1.
    pub mirrored_fraction: f32,
    /// Share of the pictures with a coloured, graded, speckled or two-toned background, 0 to 1; the others are plain
    /// and light.
    pub background_fraction: f32,
    /// Most small shapes lying about.
    pub clutter: f32,
    /// Most lines crossing the picture.
    pub scribbles: f32,
}

/// The training stream: mostly filled pictures, outlines in a narrow range of widths.
pub const STREAM: Style = Style {
    outline_fraction: 0.2,
    line_width: (0.06, 0.11),
    bordered_fraction: 0.4,
    wobble: (0.0, 0.02),
    scale: (0.35, 0.95),
    offset: 1.0,
    rotation: 25.0,
    mirrored_fraction: 0.5,
    background_fraction: 0.75,
    clutter: 4.0,
    scribbles: 1.0,
};

/// The datasets: mostly outlines, thin and thick, by an unsteady hand, with more clutter.
pub const BENCHMARK: Style = Style {
    outline_fraction: 0.85,
    line_width: (0.035, 0.17),
    bordered_fraction: 0.4,
    wobble: (0.0, 0.05),
    scale: (0.4, 0.95),
    offset: 1.0,
    rotation: 25.0,
    mirrored_fraction: 0.5,
    background_fraction: 0.6,
    clutter: 6.0,
    scribbles: 2.0,
};

/// Size range of the easiest pictures.
const EASY_SCALE: (f32, f32) = (0.8, 0.95);

impl Style {
    /// The style at a difficulty from 0 (big, centred, upright, plain light background) to 1 (the style itself);
    /// values outside are clamped.
    pub fn eased(&self, difficulty: f32) -> Self {
        let d = difficulty.clamp(0.0, 1.0);
        Self {
            wobble: (self.wobble.0 * d, self.wobble.1 * d),
            scale: (
                EASY_SCALE.0 + (self.scale.0 - EASY_SCALE.0) * d,
                EASY_SCALE.1 + (self.scale.1 - EASY_SCALE.1) * d,
            ),
            offset: self.offset * d,
            rotation: self.rotation * d,
            mirrored_fraction: self.mirrored_fraction * d,
            background_fraction: self.background_fraction * d,
            clutter: self.clutter * d,
            scribbles: self.scribbles * d,
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_difficulty_is_the_style_itself() {
        let eased = STREAM.eased(1.0);
        assert!((eased.scale.0 - STREAM.scale.0).abs() < 1e-6);
        assert_eq!(
            Style {
                scale: STREAM.scale,
                ..eased
            },
            STREAM
        );
        let easy = STREAM.eased(0.0);
        assert_eq!((easy.rotation, easy.offset, easy.clutter), (0.0, 0.0, 0.0));
    }
}
