//! Lines over a common axis: ROC and precision-recall curves, and the epochs of a training.

use super::super::svg::{Anchor, Scale, Svg, range, series, widest};

/// A line of the plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Name in the legend.
    pub name: String,
    /// Points from left to right.
    pub points: Vec<(f64, f64)>,
}

/// Names and ends of the axes.
#[derive(Debug, Clone, Copy)]
pub struct Axes<'a> {
    /// What is drawn.
    pub title: &'a str,
    /// Name of the horizontal axis.
    pub x: &'a str,
    /// Name of the vertical axis.
    pub y: &'a str,
    /// Ends of both axes; absent: those of the data.
    pub ends: Option<(f64, f64)>,
}

const SIDE: f64 = 300.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 28.0;

/// The plot; `None` without points.
pub fn draw(axes: Axes<'_>, lines: &[Line]) -> Option<String> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let across = range(points().map(|p| p.0))?;
    let up = range(points().map(|p| p.1))?;
    let x = Scale::exact(axes.ends.unwrap_or(across), (LEFT, LEFT + SIDE));
    let y = match axes.ends {
        Some(ends) => Scale::exact(ends, (TOP + SIDE, TOP)),
        None => Scale::round(up, (TOP + SIDE, TOP)),
    };
    let names: Vec<String> = lines.iter().map(|line| line.name.clone()).collect();
    let legend = 36.0 + widest(names.iter().map(String::as_str));
    let height = (TOP + SIDE + 40.0).max(TOP + 15.0 * names.len() as f64);
    let mut svg = Svg::new(LEFT + SIDE + 12.0 + legend, height, axes.title);
    svg.classed_text((LEFT, 14.0), Anchor::Start, "strong headline", axes.title);
    for (value, text) in y.ticks() {
        svg.line("grid", (LEFT, y.at(value)), (LEFT + SIDE, y.at(value)));
        svg.text((LEFT - 6.0, y.at(value) + 4.0), Anchor::End, &text);
    }
    for (value, text) in x.ticks() {
        svg.line("grid", (x.at(value), TOP), (x.at(value), TOP + SIDE));
        svg.text((x.at(value), TOP + SIDE + 16.0), Anchor::Middle, &text);
    }
    svg.text(
        (LEFT + SIDE / 2.0, TOP + SIDE + 34.0),
        Anchor::Middle,
        axes.x,
    );
    svg.upward((12.0, TOP + SIDE / 2.0), Anchor::Middle, axes.y);
    for (s, line) in lines.iter().enumerate() {
        let path: Vec<(f64, f64)> = line
            .points
            .iter()
            .map(|(a, b)| (x.at(*a), y.at(*b)))
            .collect();
        svg.polyline(series(s), &path, &line.name);
    }
    svg.legend((LEFT + SIDE + 14.0, TOP + 6.0), &names);
    Some(svg.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_drawn_and_named() {
        let axes = Axes {
            title: "ROC",
            x: "false",
            y: "true",
            ends: Some((0.0, 1.0)),
        };
        let line = |name: &str| Line {
            name: name.into(),
            points: vec![(0.0, 0.0), (0.5, 0.9), (1.0, 1.0)],
        };
        let svg = draw(axes, &[line("a"), line("b")]).unwrap();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains(">a<") && svg.contains(">b<"));
        assert!(draw(axes, &[]).is_none());
    }
}
