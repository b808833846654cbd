//! Outlines of the near out-of-distribution objects.

use super::sketch::Ink::{Main, Second};
use super::sketch::Sketch;

/// Objects of the near out-of-distribution set.
pub const NEAR_CLASSES: [&str; 10] = [
    "apple", "candle", "cat", "clock", "crown", "envelope", "kite", "ladder", "leaf", "rocket",
];

/// The outline of the object called `name`, drawn on the empty sketch `s`; `None` for a name that is not in the list.
pub(super) fn outline(name: &str, s: Sketch) -> Option<Sketch> {
    let sketch = match name {
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
        _ => return None,
    };
    Some(sketch)
}
