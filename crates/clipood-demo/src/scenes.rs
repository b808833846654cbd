//! Pictures without a nameable object: scenes, textures and glyphs.

use clipood_core::SplitMix64;

use crate::error::DemoError;
use crate::paint::{COLOURS, Canvas, Rgb, between, contrast, pick, shade};

/// Kinds of scenes.
pub(crate) const SCENES: [&str; 8] = [
    "beach",
    "city",
    "desert",
    "hills",
    "mountains",
    "night",
    "rain",
    "road",
];

/// Kinds of textures.
pub(crate) const TEXTURES: [&str; 8] = [
    "bricks", "checks", "dots", "noise", "rings", "stripes", "waves", "zigzag",
];

/// A picture and the phrase that captions use for it.
pub(crate) struct Described {
    /// The picture.
    pub canvas: Canvas,
    /// A noun phrase, with its article if it takes one.
    pub phrase: String,
}

const SKY: Rgb = [150, 200, 240];
const SAND: Rgb = [225, 200, 140];
const GRASS: Rgb = [95, 160, 70];

/// Draws a scene of the given kind.
///
/// # Errors
/// [`DemoError::Size`].
pub(crate) fn scene(
    rng: &mut SplitMix64,
    kind: &str,
    width: u32,
    height: u32,
) -> Result<Described, DemoError> {
    let sky = shade(SKY, between(rng, -0.3, 0.4));
    let mut canvas = Canvas::new(width, height, sky)?;
    let (w, h) = canvas.size();
    let horizon = h * between(rng, 0.4, 0.7) as f32;
    canvas.gradient(0.0, horizon, shade(sky, -0.2), shade(sky, 0.3));
    let ground = shade(GRASS, between(rng, -0.3, 0.3));
    match kind {
        "beach" => {
            let sea = shade([40, 110, 190], between(rng, -0.2, 0.2));
            canvas.rect(0.0, horizon, w, h, sea);
            let shore = horizon + (h - horizon) * between(rng, 0.4, 0.7) as f32;
            let slant = h * between(rng, -0.1, 0.1) as f32;
            let sand = shade(SAND, between(rng, -0.1, 0.3));
            canvas.polygon(
                &[(0.0, shore - slant), (w, shore + slant), (w, h), (0.0, h)],
                sand,
            );
        }
        "city" => {
            canvas.rect(0.0, horizon, w, h, [110, 110, 115]);
            let mut x = 0.0;
            while x < w {
                let wide = w * between(rng, 0.08, 0.18) as f32;
                let top = horizon - h * between(rng, 0.08, 0.38) as f32;
                let wall = shade([100, 100, 120], between(rng, -0.5, 0.4));
                canvas.rect(x, top, x + wide, h, wall);
                for i in 0..3 {
                    for j in 0..4 {
                        let at = (
                            x + wide * (0.15 + 0.3 * i as f32),
                            top + h * (0.04 + 0.1 * j as f32),
                        );
                        let lit = if rng.below(2) == 0 {
                            [250, 225, 120]
                        } else {
                            shade(wall, -0.4)
                        };
                        canvas.rect(at.0, at.1, at.0 + wide * 0.15, at.1 + h * 0.04, lit);
                    }
                }
                x += wide;
            }
        }
        "desert" => {
            canvas.rect(0.0, horizon, w, h, shade(SAND, -0.1));
            for i in 0..4 {
                let y = horizon + (h - horizon) * i as f32 / 4.0;
                wave(
                    rng,
                    &mut canvas,
                    y,
                    h,
                    shade(SAND, 0.25 - 0.12 * i as f64),
                    0.05,
                );
            }
        }
        "hills" => {
            for i in 0..3 {
                let y = horizon + (h - horizon) * 0.3 * i as f32;
                wave(
                    rng,
                    &mut canvas,
                    y,
                    h,
                    shade(ground, 0.25 - 0.2 * i as f64),
                    0.09,
                );
            }
        }
        "mountains" => {
            for i in 0..4 {
                let x = w * between(rng, 0.0, 1.0) as f32;
                let peak = horizon - h * between(rng, 0.1, 0.4) as f32;
                let half = w * between(rng, 0.2, 0.45) as f32;
                let rock = shade([110, 105, 115], 0.2 - 0.12 * f64::from(i));
                canvas.polygon(&[(x - half, h), (x, peak), (x + half, h)], rock);
                let cap = 0.18f32;
                let (sx, sy) = (half * cap, (h - peak) * cap);
                canvas.polygon(
                    &[(x - sx, peak + sy), (x, peak), (x + sx, peak + sy)],
                    [245, 248, 250],
                );
            }
            canvas.rect(0.0, h * 0.85, w, h, ground);
        }
        "night" => {
            canvas.gradient(
                0.0,
                h,
                [8, 10, 35],
                shade([25, 25, 75], between(rng, -0.3, 0.3)),
            );
            for _ in 0..rng.below(50) + 25 {
                let (x, y) = (rng.unit() as f32 * w, rng.unit() as f32 * h * 0.85);
                canvas.disc(x, y, w * between(rng, 0.003, 0.012) as f32, [250, 245, 215]);
            }
            wave(rng, &mut canvas, h * 0.85, h, [10, 20, 15], 0.05);
        }
        "rain" => {
            canvas.gradient(
                0.0,
                h,
                [95, 100, 110],
                shade([150, 155, 165], between(rng, -0.2, 0.2)),
            );
            for _ in 0..rng.below(60) + 50 {
                let (x, y) = (rng.unit() as f32 * w, rng.unit() as f32 * h);
                let len = h * between(rng, 0.03, 0.08) as f32;
                canvas.line(
                    &[(x, y), (x - len * 0.3, y + len)],
                    [200, 210, 230],
                    w * 0.008,
                );
            }
        }
        _ => {
            canvas.rect(0.0, horizon, w, h, ground);
            let far = w * between(rng, 0.35, 0.65) as f32;
            canvas.polygon(
                &[
                    (far - w * 0.03, horizon),
                    (far + w * 0.03, horizon),
                    (w * 0.9, h),
                    (w * 0.1, h),
                ],
                [85, 85, 90],
            );
            for i in 0..4 {
                let t = 0.15 + 0.22 * i as f32;
                let y = horizon + (h - horizon) * t;
                let x = far + (w * 0.5 - far) * t;
                canvas.rect(
                    x - w * 0.01 * t,
                    y,
                    x + w * 0.01 * t + 1.0,
                    y + h * 0.06 * t,
                    [240, 240, 200],
                );
            }
        }
    }
    let phrase = match kind {
        "beach" => "a beach and the sea",
        "city" => "a city skyline",
        "desert" => "an empty desert",
        "hills" => "green hills",
        "mountains" => "mountains with snow",
        "night" => "a night sky",
        "rain" => "rain",
        _ => "an empty road",
    };
    Ok(Described {
        canvas,
        phrase: phrase.to_string(),
    })
}

/// Fills everything below a wavy line at height `y`.
fn wave(rng: &mut SplitMix64, canvas: &mut Canvas, y: f32, bottom: f32, rgb: Rgb, rise: f32) {
    let (w, h) = canvas.size();
    let (a, b) = (between(rng, 0.0, 6.3) as f32, between(rng, 0.5, 1.5) as f32);
    let mut points: Vec<(f32, f32)> = (0..=16)
        .map(|i| {
            let t = i as f32 / 16.0;
            (t * w, y + h * rise * (a + t * b * 6.3).sin())
        })
        .collect();
    points.extend([(w, bottom), (0.0, bottom)]);
    canvas.polygon(&points, rgb);
}

/// Two named colours of sufficient contrast.
fn two_colours(rng: &mut SplitMix64) -> [(&'static str, Rgb); 2] {
    let first = *pick(rng, &COLOURS);
    loop {
        let second = *pick(rng, &COLOURS);
        if contrast(first.1, second.1) > 180 {
            return [first, second];
        }
    }
}

/// Draws a texture of the given kind in two colours.
///
/// # Errors
/// [`DemoError::Size`].
pub(crate) fn texture(
    rng: &mut SplitMix64,
    kind: &str,
    width: u32,
    height: u32,
) -> Result<Described, DemoError> {
    let [(first_name, first), (second_name, second)] = two_colours(rng);
    let mut canvas = Canvas::new(width, height, first)?;
    let (w, h) = canvas.size();
    let step = w * between(rng, 0.08, 0.2) as f32;
    let columns = (w / step) as i32 + 2;
    let rows = (h / step) as i32 + 2;
    match kind {
        "bricks" => {
            for r in 0..rows * 2 {
                for c in -1..columns {
                    let x = step * (c as f32 + 0.5 * (r % 2) as f32);
                    let y = step * 0.5 * r as f32;
                    canvas.rect(
                        x + 1.0,
                        y + 1.0,
                        x + step - 1.0,
                        y + step * 0.5 - 1.0,
                        second,
                    );
                }
            }
        }
        "checks" => {
            for r in 0..rows {
                for c in 0..columns {
                    if (r + c) % 2 == 0 {
                        let (x, y) = (c as f32 * step, r as f32 * step);
                        canvas.rect(x, y, x + step, y + step, second);
                    }
                }
            }
        }
        "dots" => {
            let radius = step * between(rng, 0.2, 0.4) as f32;
            for r in 0..rows {
                for c in 0..columns {
                    let x = step * (c as f32 + 0.5 * (r % 2) as f32);
                    canvas.disc(x, step * r as f32, radius, second);
                }
            }
        }
        "noise" => {
            let cell = w * 0.03;
            for r in 0..(h / cell) as i32 + 1 {
                for c in 0..(w / cell) as i32 + 1 {
                    let tone = if rng.below(2) == 0 { first } else { second };
                    let (x, y) = (c as f32 * cell, r as f32 * cell);
                    canvas.rect(
                        x,
                        y,
                        x + cell,
                        y + cell,
                        shade(tone, between(rng, -0.3, 0.3)),
                    );
                }
            }
        }
        "rings" => {
            let (x, y) = (
                w * between(rng, 0.2, 0.8) as f32,
                h * between(rng, 0.2, 0.8) as f32,
            );
            let most = ((w + h) / step) as i32;
            for i in (1..most).rev() {
                let tone = if i % 2 == 0 { first } else { second };
                canvas.disc(x, y, step * 0.6 * i as f32, tone);
            }
        }
        "stripes" => {
            let slant = between(rng, -1.0, 1.0) as f32 * h;
            for c in -columns * 2..columns * 3 {
                let x = c as f32 * step;
                canvas.polygon(
                    &[
                        (x, 0.0),
                        (x + step * 0.5, 0.0),
                        (x + step * 0.5 + slant, h),
                        (x + slant, h),
                    ],
                    second,
                );
            }
        }
        _ => {
            let sharp = kind == "zigzag";
            for r in -1..rows {
                let points: Vec<(f32, f32)> = (0..=columns * 8)
                    .map(|i| {
                        let t = i as f32 / 8.0;
                        let rise = if sharp {
                            (t.fract() - 0.5).abs() * 2.0 - 0.5
                        } else {
                            0.5 * (t * std::f32::consts::TAU).sin()
                        };
                        (t * step, (r as f32 + 0.5 + 0.6 * rise) * step)
                    })
                    .collect();
                canvas.line(&points, second, step * 0.28);
            }
        }
    }
    Ok(Described {
        canvas,
        phrase: format!("{first_name} and {second_name} {kind}"),
    })
}

/// Letters and digits as pen strokes on a grid of 5 columns and 7 rows: digit pairs (column, row), strokes separated by `|`.
pub(crate) const GLYPHS: [(&str, &str); 20] = [
    ("a", "062046|1434"),
    ("c", "41200206264645"),
    ("e", "40000646|0333"),
    ("f", "400006|0333"),
    ("g", "4120020626464333"),
    ("h", "0006|0343|4046"),
    ("k", "0006|4003|0346"),
    ("l", "000646"),
    ("m", "0600234046"),
    ("n", "06004640"),
    ("r", "06003041320203|2346"),
    ("t", "0040|2026"),
    ("v", "002640"),
    ("w", "0016233640"),
    ("z", "00400646"),
    ("2", "01203042430646"),
    ("3", "0040224335461605"),
    ("4", "300444|3036"),
    ("5", "4000033344461605"),
    ("7", "004016"),
];

/// Draws the letter or digit at `index` (modulo the length) of [`GLYPHS`].
///
/// # Errors
/// [`DemoError::Size`].
pub(crate) fn glyph(
    rng: &mut SplitMix64,
    index: usize,
    width: u32,
    height: u32,
) -> Result<Described, DemoError> {
    let (name, strokes) = GLYPHS[index % GLYPHS.len()];
    let [(_, ink), (_, paper)] = two_colours(rng);
    let mut canvas = Canvas::new(width, height, paper)?;
    let (w, h) = canvas.size();
    let tall = w.min(h) * between(rng, 0.45, 0.85) as f32;
    let unit = tall / 6.0;
    let left = (w - 4.0 * unit) * between(rng, 0.1, 0.9) as f32;
    let top = (h - tall) * between(rng, 0.1, 0.9) as f32;
    let turn = between(rng, -0.2, 0.2) as f32;
    let pen = tall * between(rng, 0.06, 0.18) as f32;
    for stroke in strokes.split('|') {
        let digits: Vec<f32> = stroke
            .chars()
            .filter_map(|c| c.to_digit(10))
            .map(|d| d as f32)
            .collect();
        let points: Vec<(f32, f32)> = digits
            .chunks_exact(2)
            .map(|p| {
                let (x, y) = ((p[0] - 2.0) * unit, (p[1] - 3.0) * unit);
                let (sin, cos) = turn.sin_cos();
                (
                    left + 2.0 * unit + x * cos - y * sin,
                    top + 3.0 * unit + x * sin + y * cos,
                )
            })
            .collect();
        canvas.line(&points, ink, pen);
    }
    let what = if name.chars().all(|c| c.is_ascii_digit()) {
        "number"
    } else {
        "letter"
    };
    Ok(Described {
        canvas,
        phrase: format!("the {what} {name}"),
    })
}
