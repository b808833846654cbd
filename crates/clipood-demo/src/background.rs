//! What lies behind and about an object.

use crate::canvas::Canvas;
use crate::palette::{COLOURS, Rgb, WHITE, contrasting, jitter, mix};
use crate::rng::Rng;
use crate::style::Style;

/// A painted background.
pub(crate) struct Background {
    /// Its colour's name where that is plain to see.
    pub(crate) name: Option<&'static str>,
    /// The colours in it.
    pub(crate) colours: Vec<Rgb>,
}

/// Paints a background on which `main` stands out.
pub(crate) fn paint(canvas: &mut Canvas, rng: &mut Rng, style: &Style, main: Rgb) -> Background {
    if !rng.chance(style.background_fraction) {
        return plain_light(canvas, rng, main);
    }
    let first = contrasting(rng, &[main]);
    let second = contrasting(rng, &[main]);
    // Half of the backgrounds are washed out, as far as the object still stands out from them.
    let towards = contrasting(rng, &[main, [0, 0, 0]]).rgb;
    let pale = if rng.chance(0.5) { 0.5 } else { 0.0 };
    let a = jitter(rng, mix(first.rgb, towards, pale), 10.0);
    let b = jitter(rng, mix(second.rgb, towards, pale), 10.0);
    let named = (pale == 0.0).then_some(first.name);
    match rng.below(4) {
        0 => {
            canvas.paint(|_, _| a);
            Background {
                name: named,
                colours: vec![a],
            }
        }
        1 => {
            let b = mix(a, b, 0.6);
            let (dx, dy) = *rng.pick(&[(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]);
            canvas.paint(|x, y| mix(a, b, x * dx + y * dy));
            Background {
                name: None,
                colours: vec![a, b],
            }
        }
        2 => {
            let amount = rng.range((8.0, 40.0));
            canvas.paint(|_, _| jitter(rng, a, amount));
            Background {
                name: named,
                colours: vec![a],
            }
        }
        _ => {
            let horizon = rng.range((0.3, 0.75));
            canvas.paint(|_, y| if y < horizon { a } else { b });
            Background {
                name: None,
                colours: vec![a, b],
            }
        }
    }
}

fn plain_light(canvas: &mut Canvas, rng: &mut Rng, main: Rgb) -> Background {
    let light = if rng.chance(0.5) {
        WHITE.rgb
    } else {
        mix(rng.pick(&COLOURS).rgb, WHITE.rgb, 0.8)
    };
    // A white or tan object on a light ground would not be seen.
    if crate::palette::distance(light, main) < 90.0 {
        let dark = contrasting(rng, &[main]);
        canvas.paint(|_, _| dark.rgb);
        return Background {
            name: Some(dark.name),
            colours: vec![dark.rgb],
        };
    }
    canvas.paint(|_, _| light);
    Background {
        name: (light == WHITE.rgb).then_some(WHITE.name),
        colours: vec![light],
    }
}

/// Scatters up to `most` small shapes; none if `most` is below 1.
pub(crate) fn scatter(canvas: &mut Canvas, rng: &mut Rng, most: f32) {
    for _ in 0..rng.between(0, most.max(0.0) as u32) {
        let size = canvas.short() * rng.range((0.02, 0.07));
        let x = rng.unit() * canvas.width();
        let y = rng.unit() * canvas.height();
        let rgb = rng.pick(&COLOURS).rgb;
        match rng.below(4) {
            0 => canvas.disc(x, y, size, rgb),
            1 => canvas.rect(x - size, y - size, x + size, y + size, rgb),
            2 => canvas.polygon(&[(x, y - size), (x + size, y + size), (x - size, y + size)], rgb),
            _ => canvas.line(&[(x - size, y), (x + size, y + size)], rgb, size * 0.4),
        }
    }
}

/// Draws up to `most` long bent lines; none if `most` is below 1.
pub(crate) fn scribble(canvas: &mut Canvas, rng: &mut Rng, most: f32) {
    for _ in 0..rng.between(0, most.max(0.0) as u32) {
        let points: Vec<(f32, f32)> = (0..3)
            .map(|_| (rng.unit() * canvas.width(), rng.unit() * canvas.height()))
            .collect();
        let width = canvas.short() * rng.range((0.006, 0.02));
        canvas.line(&points, rng.pick(&COLOURS).rgb, width);
    }
}
