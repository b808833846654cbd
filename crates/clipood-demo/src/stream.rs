//! The unbounded training stream: pictures and captions, each a pure function of seed and index.

use clipood_core::SplitMix64;

use crate::error::DemoError;
use crate::objects::{ID_CLASSES, NEAR_CLASSES, OTHER_CLASSES, object};
use crate::paint::{
    COLOURS, Canvas, Look, Picture, Pose, Rgb, STREAM, Style, background, between, clutter,
    contrast, draw_object, pick, shade,
};
use crate::scenes::{GLYPHS, SCENES, TEXTURES, glyph, scene, texture};

/// One picture and its caption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The picture.
    pub picture: Picture,
    /// A short English description.
    pub caption: String,
}

/// A drawn object and the properties that a caption can mention.
pub(crate) struct DrawnObject {
    /// The picture.
    pub canvas: Canvas,
    /// Name of the object's colour.
    pub colour: &'static str,
    /// Name of the background's colour.
    pub ground: &'static str,
    /// Drawn in lines only.
    pub lines: bool,
    /// Half size relative to the shorter side, 0 to 0.5.
    pub half: f64,
}

/// Draws one object on `width` x `height` pixels. At `difficulty` 0 the object is large, centred,
/// upright and on a plain background; at 1 it varies in all of these.
///
/// # Errors
/// [`DemoError::Size`].
pub(crate) fn draw_one(
    rng: &mut SplitMix64,
    name: &str,
    (width, height): (u32, u32),
    style: &Style,
    difficulty: f64,
) -> Result<DrawnObject, DemoError> {
    let (colour, main) = *pick(rng, &COLOURS);
    let (ground, base) = loop {
        let candidate = *pick(rng, &COLOURS);
        if contrast(candidate.1, main) > 170 {
            break candidate;
        }
    };
    // The background colour is shaded but keeps its name, so that the object stands out.
    let base: Rgb = shade(base, between(rng, 0.0, 0.35));
    let mut canvas = background(rng, width, height, base, difficulty)?;
    let (w, h) = canvas.size();
    let side = f64::from(w.min(h));
    let smallest = 0.75 + (style.size.0 - 0.75) * difficulty;
    let largest = 0.9 + (style.size.1 - 0.9) * difficulty;
    let half = 0.5 * between(rng, smallest, largest);
    let room_x = (f64::from(w) / 2.0 - half * side).max(0.0) * difficulty;
    let room_y = (f64::from(h) / 2.0 - half * side).max(0.0) * difficulty;
    let pose = Pose {
        centre: (
            w / 2.0 + between(rng, -room_x, room_x) as f32,
            h / 2.0 + between(rng, -room_y, room_y) as f32,
        ),
        half: (half * side) as f32,
        turn: (between(rng, -25.0, 25.0) * difficulty) as f32,
        mirror: rng.below(2) == 0,
    };
    let marks = (style.clutter as f64 * difficulty).round() as u64;
    let marks = rng.below(marks + 1);
    clutter(rng, &mut canvas, marks, base);
    let lines = rng.unit() < style.outline_share;
    let second = loop {
        let candidate = pick(rng, &COLOURS).1;
        if contrast(candidate, main) > 120 {
            break candidate;
        }
    };
    let pieces = object(name);
    let look = Look {
        style,
        lines,
        main,
        second,
        background: base,
    };
    draw_object(rng, &mut canvas, &pieces, &pose, &look);
    Ok(DrawnObject {
        canvas,
        colour,
        ground,
        lines,
        half,
    })
}

/// `a` or `an`.
fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) && !word.starts_with("uni") {
        "an"
    } else {
        "a"
    }
}

fn caption_object(rng: &mut SplitMix64, name: &str, drawn: &DrawnObject) -> String {
    let a = |word: &str| format!("{} {word}", article(word));
    let plain = a(name);
    let coloured = a(&format!("{} {name}", drawn.colour));
    let size = if drawn.half < 0.3 {
        "small"
    } else if drawn.half > 0.4 {
        "big"
    } else {
        drawn.colour
    };
    let text = match rng.below(12) {
        0..=3 => format!("a photo of {plain}"),
        4 => plain,
        5 => format!("a picture of {plain}"),
        6 => coloured,
        7 => format!("a photo of {coloured}"),
        8 => format!("{} on a {} background", coloured, drawn.ground),
        9 if drawn.lines => format!("an outline of {plain}"),
        10 if drawn.lines => format!("a line drawing of {plain}"),
        9 => format!("a drawing of {plain}"),
        10 => a(&format!("{size} {name}")),
        _ => name.to_string(),
    };
    finish(rng, text)
}

fn finish(rng: &mut SplitMix64, text: String) -> String {
    if rng.below(3) == 0 {
        format!("{text}.")
    } else {
        text
    }
}

/// The random number generator of one example.
pub(crate) fn generator(seed: u64, index: u64) -> SplitMix64 {
    SplitMix64::keyed(seed, "demo stream", index)
}

/// Example `index` of the stream `seed`: a picture of `side` x `side` pixels and its caption. A higher `difficulty` (0 to 1)
/// means more variety of size, position, rotation, background and clutter.
///
/// # Errors
/// [`DemoError::Size`] if `side` is 0 or too large.
pub fn training_example(
    seed: u64,
    index: u64,
    side: u32,
    difficulty: f32,
) -> Result<Example, DemoError> {
    let mut rng = generator(seed, index);
    let rng = &mut rng;
    let roll = rng.unit();
    let described = if roll < 0.78 {
        let lists: [&[&str]; 3] = [&ID_CLASSES, &NEAR_CLASSES, &OTHER_CLASSES];
        let total: usize = lists.iter().map(|l| l.len()).sum();
        let n = rng.below(total as u64) as usize;
        let name = lists
            .into_iter()
            .flatten()
            .nth(n)
            .copied()
            .unwrap_or("star");
        let drawn = draw_one(rng, name, (side, side), &STREAM, f64::from(difficulty))?;
        let caption = caption_object(rng, name, &drawn);
        return Ok(Example {
            picture: drawn.canvas.finish(),
            caption,
        });
    } else if roll < 0.86 {
        let kind = pick(rng, &SCENES);
        scene(rng, kind, side, side)?
    } else if roll < 0.94 {
        let kind = pick(rng, &TEXTURES);
        texture(rng, kind, side, side)?
    } else {
        let index = rng.below(GLYPHS.len() as u64) as usize;
        glyph(rng, index, side, side)?
    };
    let text = match rng.below(2) {
        0 => format!("a photo of {}", described.phrase),
        _ => described.phrase,
    };
    Ok(Example {
        picture: described.canvas.finish(),
        caption: finish(rng, text),
    })
}
