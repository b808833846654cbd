//! A metric against the number of shots, one line per method, with its deviation over seeds.

use super::super::svg::{Anchor, Scale, Svg, fill, range, series, widest};

/// A line of the chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Shots, mean and standard deviation over seeds, both in percent; a value at 0 shots is drawn as a horizontal
    /// line.
    pub points: Vec<(u32, f64, f64)>,
}

const WIDTH: f64 = 290.0;
/// Pixels between the bars of two lines at the same number of shots.
const APART: f64 = 4.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 44.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 36.0;

/// The chart; `None` unless there are at least two numbers of shots.
pub fn draw(title: &str, lines: &[Series]) -> Option<String> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let mut shots: Vec<u32> = points().map(|p| p.0).filter(|shots| *shots > 0).collect();
    shots.sort_unstable();
    shots.dedup();
    let (first, last) = match shots.as_slice() {
        [first, .., last] => (f64::from(*first).log2(), f64::from(*last).log2()),
        _ => return None,
    };
    let (low, high) = range(points().flat_map(|(_, mean, std)| [mean - std, mean + std]))?;
    let y = Scale::round((low, high), (HEIGHT - BOTTOM, TOP));
    let x = Scale::exact((first, last), (LEFT + 16.0, WIDTH - 16.0));
    let names: Vec<String> = lines.iter().map(|line| line.name.clone()).collect();
    let legend = 34.0 + widest(names.iter().map(String::as_str));
    let mut svg = Svg::new(WIDTH + legend, HEIGHT, title);
    svg.classed_text((LEFT, 14.0), Anchor::Start, "strong headline", title);
    for (value, text) in y.ticks() {
        svg.line("grid", (LEFT, y.at(value)), (WIDTH, y.at(value)));
        svg.text((LEFT - 6.0, y.at(value) + 4.0), Anchor::End, &text);
    }
    let middle = |shots: u32| x.at(f64::from(shots).log2());
    for count in &shots {
        svg.text(
            (middle(*count), HEIGHT - BOTTOM + 16.0),
            Anchor::Middle,
            &count.to_string(),
        );
    }
    svg.text(
        ((LEFT + WIDTH) / 2.0, HEIGHT - 4.0),
        Anchor::Middle,
        "shots per class",
    );
    for (s, line) in lines.iter().enumerate() {
        let class = series(s);
        let shift = (s as f64 - (lines.len() - 1) as f64 / 2.0).clamp(-3.0, 3.0) * APART;
        let place = |shots: u32| middle(shots) + shift;
        if let [(0, level, _)] = line.points.as_slice() {
            let ends = [(LEFT, y.at(*level)), (WIDTH, y.at(*level))];
            svg.polyline(
                format!("{class} dashed"),
                &ends,
                &format!("{}: {level:.2}", line.name),
            );
            continue;
        }
        let path: Vec<(f64, f64)> = line
            .points
            .iter()
            .map(|(n, mean, _)| (place(*n), y.at(*mean)))
            .collect();
        svg.polyline(&class, &path, &line.name);
        for (count, mean, std) in &line.points {
            let at = place(*count);
            svg.line(
                format!("curve {class}"),
                (at, y.at(mean - std)),
                (at, y.at(mean + std)),
            );
            let title = format!("{}, {count} shots: {mean:.2} ± {std:.2}", line.name);
            svg.dot(fill(s), (at, y.at(*mean)), 3.0, &title);
        }
    }
    svg.legend((WIDTH + 8.0, TOP + 4.0), &names);
    Some(svg.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: Vec<(u32, f64, f64)>) -> Series {
        Series {
            name: "a < b".into(),
            points,
        }
    }

    #[test]
    fn one_number_of_shots_is_no_curve() {
        assert!(draw("t", &[line(vec![(16, 80.0, 1.0)])]).is_none());
        assert!(draw("t", &[]).is_none());
    }

    #[test]
    fn points_stay_inside_and_names_are_escaped() {
        let lines = [
            line(vec![(1, 60.0, 3.0), (4, 70.5, 0.0), (16, 80.0, 1.0)]),
            line(vec![(0, 50.0, 0.0)]),
        ];
        let svg = draw("AUROC", &lines).unwrap();
        assert!(svg.contains("a &lt; b") && !svg.contains("a < b"));
        assert_eq!(svg.matches("<circle").count(), 3);
        for text in svg.split("cy=\"").skip(1) {
            let y: f64 = text.split('"').next().unwrap().parse().unwrap();
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y), "{y}");
        }
    }
}
