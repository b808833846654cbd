//! Outlines of the remaining objects, which only the training stream and the validation tree contain.

use super::sketch::Ink::{Main, Second};
use super::sketch::{Sketch, ring};

/// Objects of the training stream and the validation tree, in neither the in-distribution nor the near set.
pub const OTHER_CLASSES: [&str; 14] = [
    "balloon", "book", "bottle", "chair", "cloud", "cross", "diamond", "door", "flag", "hammer",
    "lamp", "ring", "sun", "table",
];

/// The outline of the object called `name`, drawn on the empty sketch `s`; `None` for a name that is not in the list.
pub(super) fn outline(name: &str, s: Sketch) -> Option<Sketch> {
    let sketch = match name {
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
        _ => return None,
    };
    Some(sketch)
}
