//! A small kit for drawings: SVG text whose colours are classes, so that a page can change them in dark mode, and whose
//! marks carry titles for pointers and screen readers. Plot crates write fixed colours and measure text with fonts of
//! the machine, which gives neither.

use std::fmt::{Display, Write};

/// Approximate width of a letter at the size of all drawings, 11 pixels.
pub const LETTER: f64 = 6.2;
/// Number of colours of series, classes `l0` and `f0` and on; more series repeat them with dashes.
pub const COLOURS: usize = 7;

/// A drawing that is being made.
#[derive(Debug)]
pub struct Svg {
    width: f64,
    height: f64,
    title: String,
    body: String,
}

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy)]
pub enum Anchor {
    /// It starts there.
    Start,
    /// It is centred there.
    Middle,
    /// It ends there.
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

impl Svg {
    /// An empty drawing, `width` by `height` pixels; `title` describes it to those who cannot see it.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        Self {
            width,
            height,
            title: title.to_string(),
            body: String::new(),
        }
    }

    // Writing to a string cannot fail, so the results of `write!` are dropped below.

    /// A text.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        self.classed_text((x, y), anchor, "", text);
    }

    /// A text with classes.
    pub fn classed_text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let _ = writeln!(
            self.body,
            "<text class=\"ink {class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{}\">{}</text>",
            anchor.name(),
            escape(text)
        );
    }

    /// A text that runs upwards and starts at a point, or is centred there.
    pub fn upward(&mut self, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let _ = writeln!(
            self.body,
            "<text class=\"ink\" transform=\"translate({x:.1} {y:.1}) rotate(-90)\" text-anchor=\"{}\">{}</text>",
            anchor.name(),
            escape(text)
        );
    }

    /// A straight line.
    pub fn line(&mut self, class: impl Display, from: (f64, f64), to: (f64, f64)) {
        let _ = writeln!(
            self.body,
            "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    /// A line through points.
    pub fn polyline(&mut self, class: impl Display, points: &[(f64, f64)], title: &str) {
        let _ = writeln!(
            self.body,
            "<polyline class=\"curve {class}\" points=\"{}\"><title>{}</title></polyline>",
            listed(points),
            escape(title)
        );
    }

    /// A filled shape.
    pub fn polygon(&mut self, class: impl Display, points: &[(f64, f64)], title: &str) {
        let _ = writeln!(
            self.body,
            "<polygon class=\"{class}\" points=\"{}\"><title>{}</title></polygon>",
            listed(points),
            escape(title)
        );
    }

    /// A rectangle with its top left corner, width and height.
    pub fn rect(&mut self, class: impl Display, corner: (f64, f64), size: (f64, f64), title: &str) {
        self.shaded_rect(class, corner, size, (1.0, title));
    }

    /// A rectangle with an opacity between 0 and 1.
    pub fn shaded_rect(
        &mut self,
        class: impl Display,
        corner: (f64, f64),
        size: (f64, f64),
        (opacity, title): (f64, &str),
    ) {
        let opacity = match opacity < 1.0 {
            true => format!(" fill-opacity=\"{opacity:.3}\""),
            false => String::new(),
        };
        let _ = writeln!(
            self.body,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"{opacity}><title>{}</title></rect>",
            corner.0,
            corner.1,
            size.0,
            size.1,
            escape(title)
        );
    }

    /// A dot.
    pub fn dot(&mut self, class: impl Display, (x, y): (f64, f64), radius: f64, title: &str) {
        let title = match title.is_empty() {
            true => String::new(),
            false => format!("<title>{}</title>", escape(title)),
        };
        let _ = writeln!(
            self.body,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\">{title}</circle>"
        );
    }

    /// The names of series in a column: a stroke in the colour of each, and its name.
    pub fn legend(&mut self, (x, y): (f64, f64), names: &[String]) {
        for (s, name) in names.iter().enumerate() {
            let y = y + 15.0 * s as f64;
            self.line(format!("curve {}", series(s)), (x, y), (x + 16.0, y));
            self.text((x + 21.0, y + 4.0), Anchor::Start, name);
        }
    }

    /// The drawing for a page.
    pub fn finish(self) -> String {
        let title = escape(&self.title);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"figure\" viewBox=\"0 0 {0:.0} {1:.0}\" width=\"{0:.0}\" height=\"{1:.0}\" \
             style=\"max-width:100%;min-width:{3:.0}px;height:auto\" role=\"img\" aria-label=\"{title}\">\n<title>{title}</title>\n{2}</svg>",
            self.width,
            self.height,
            self.body,
            // On a phone, a little smaller; beyond that it scrolls.
            0.8 * self.width
        )
    }
}

/// Classes of the line of a series.
pub fn series(number: usize) -> String {
    let dashed = match number / COLOURS {
        0 => "",
        1 => " dashed",
        _ => " dotted",
    };
    format!("l{}{dashed}", number % COLOURS)
}

/// Class of the filled marks of a series.
pub fn fill(number: usize) -> String {
    format!("f{}", number % COLOURS)
}

fn listed(points: &[(f64, f64)]) -> String {
    let points: Vec<String> = points
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    points.join(" ")
}

/// A text escaped for SVG and HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The first letters of a name.
pub fn shortened(name: &str, letters: usize) -> String {
    if name.chars().count() <= letters {
        return name.to_string();
    }
    let start: String = name.chars().take(letters.saturating_sub(1)).collect();
    format!("{start}…")
}

/// Width of the longest of some names.
pub fn widest<'a>(names: impl Iterator<Item = &'a str>) -> f64 {
    let letters = names.map(|name| name.chars().count()).max();
    LETTER * letters.unwrap_or(0) as f64
}

/// An axis: values from `low` to `high` on pixels from `from` to `to`.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// The axis as it is given; an empty range of values is widened.
    pub fn exact((low, high): (f64, f64), (from, to): (f64, f64)) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self {
            low,
            high,
            from,
            to,
        }
    }

    /// An axis that begins and ends at round values.
    pub fn round((low, high): (f64, f64), pixels: (f64, f64)) -> Self {
        let step = tick_step(high - low);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        Self::exact((low, high), pixels)
    }

    /// Place of a value, kept inside the axis.
    pub fn at(&self, value: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.from + share * (self.to - self.from)
    }

    /// Round values along the axis with their texts.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let step = tick_step(self.high - self.low);
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        let tick = |number: i64| {
            let value = number as f64 * step;
            (value, format!("{value:.decimals$}"))
        };
        (first..=last).map(tick).collect()
    }
}

/// Smallest and largest of the finite values; `None` for none.
pub fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values
        .filter(|v| v.is_finite())
        .fold(None, |ends, v| match ends {
            None => Some((v, v)),
            Some((low, high)) => Some((f64::min(low, v), f64::max(high, v))),
        })
}

/// A round distance that divides `span` into about five.
fn tick_step(span: f64) -> f64 {
    if !(span.is_finite() && span > 0.0) {
        return 1.0;
    }
    let wanted = span / 5.0;
    let power = 10f64.powf(wanted.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps
        .into_iter()
        .find(|step| *step >= wanted * 0.999)
        .unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_values_that_stay_inside() {
        let scale = Scale::round((41.3, 87.9), (100.0, 0.0));
        let ticks = scale.ticks();
        let texts: Vec<&str> = ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["40", "50", "60", "70", "80", "90"]);
        assert_eq!(
            (scale.at(40.0), scale.at(90.0), scale.at(1e9)),
            (100.0, 0.0, 0.0)
        );
        let fine = Scale::exact((0.0, 0.0012), (0.0, 1.0)).ticks();
        assert!(
            fine.iter().any(|(_, text)| text == "0.0005") || fine.len() > 3,
            "{fine:?}"
        );
        // Equal values, and none at all.
        assert!(Scale::round((5.0, 5.0), (0.0, 1.0)).at(5.0).is_finite());
        assert_eq!(range([f64::NAN].into_iter()), None);
        assert_eq!(
            range([2.0, f64::INFINITY, 1.0].into_iter()),
            Some((1.0, 2.0))
        );
    }

    #[test]
    fn names_are_escaped_and_shortened() {
        let mut svg = Svg::new(10.0, 10.0, "a < b");
        svg.text((0.0, 0.0), Anchor::Start, "c & \"d\"");
        let text = svg.finish();
        assert!(
            text.contains("a &lt; b") && text.contains("c &amp; &quot;d&quot;"),
            "{text}"
        );
        assert_eq!(shortened("蝴蝶与花", 3), "蝴蝶…");
    }
}
