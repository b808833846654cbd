//! A chart of a metric against the number of shots, one line per method, as SVG inside the page.

use std::fmt::Write;

use super::text_table::escape;

/// A line of the chart.
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Shots, mean and standard deviation over seeds, both in percent; a value at 0 shots is drawn as a horizontal
    /// line.
    pub points: Vec<(u32, f64, f64)>,
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 36.0;
/// Dark and light colours that a colour-blind reader can tell apart (Okabe and Ito).
const COLOURS: [&str; 7] = [
    "#000000", "#e69f00", "#0072b2", "#009e73", "#d55e00", "#cc79a7", "#56b4e9",
];

/// The chart; `None` unless a line has at least two numbers of shots.
pub fn shots_chart(title: &str, series: &[Series]) -> Option<String> {
    let mut shots: Vec<u32> = series
        .iter()
        .flat_map(|s| s.points.iter().map(|p| p.0))
        .filter(|shots| *shots > 0)
        .collect();
    shots.sort_unstable();
    shots.dedup();
    if shots.len() < 2 {
        return None;
    }
    let ends = series
        .iter()
        .flat_map(|s| s.points.iter())
        .flat_map(|(_, mean, std)| [mean - std, mean + std]);
    let (low, high) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    if !(low.is_finite() && high.is_finite()) {
        return None;
    }
    let step = tick_step(high - low);
    let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
    let span = (high - low).max(step);
    let y = |value: f64| HEIGHT - BOTTOM - (value - low) / span * (HEIGHT - TOP - BOTTOM);
    let (first, last) = (f64::from(shots[0]).log2(), f64::from(*shots.last()?).log2());
    let x = |shots: u32| {
        LEFT + (f64::from(shots).log2() - first) / (last - first) * (WIDTH - LEFT - RIGHT)
    };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" font-size=\"11\">\n\
         <title>{0}</title>\n<text x=\"{LEFT}\" y=\"14\" font-weight=\"bold\">{0}</text>\n",
        escape(title)
    );
    let mut tick = low;
    while tick <= low + span + step / 2.0 {
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{1}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{tick:.0}</text>",
            y(tick),
            WIDTH - RIGHT,
            LEFT - 6.0,
            y(tick) + 4.0
        );
        tick += step;
    }
    for count in &shots {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{count}</text>",
            x(*count),
            HEIGHT - BOTTOM + 16.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">shots</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 4.0
    );
    for (s, line) in series.iter().enumerate() {
        let colour = COLOURS[s % COLOURS.len()];
        let dash = if s < COLOURS.len() {
            ""
        } else {
            " stroke-dasharray=\"2 2\""
        };
        match line.points.as_slice() {
            [(0, level, _)] => {
                let _ = writeln!(
                    svg,
                    "<line x1=\"{LEFT}\" x2=\"{1}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"{colour}\" stroke-dasharray=\"5 4\"/>",
                    y(*level),
                    WIDTH - RIGHT
                );
            }
            points => {
                let path: Vec<String> = points
                    .iter()
                    .map(|(shots, mean, _)| format!("{:.1},{:.1}", x(*shots), y(*mean)))
                    .collect();
                let _ = writeln!(
                    svg,
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"{dash}/>",
                    path.join(" ")
                );
                for (shots, mean, std) in points {
                    let _ = writeln!(
                        svg,
                        "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1:.1}\" y2=\"{2:.1}\" stroke=\"{colour}\"/>\
                         <circle cx=\"{0:.1}\" cy=\"{3:.1}\" r=\"2.5\" fill=\"{colour}\"/>",
                        x(*shots),
                        y(mean - std),
                        y(mean + std),
                        y(*mean)
                    );
                }
            }
        }
        let place = TOP + 14.0 * s as f64;
        let _ = writeln!(
            svg,
            "<line x1=\"{0}\" x2=\"{1}\" y1=\"{place}\" y2=\"{place}\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\
             <text x=\"{2}\" y=\"{3}\">{4}</text>",
            WIDTH - RIGHT + 8.0,
            WIDTH - RIGHT + 24.0,
            WIDTH - RIGHT + 28.0,
            place + 4.0,
            escape(&line.name)
        );
    }
    svg += "</svg>\n";
    Some(svg)
}

/// A round distance between grid lines that makes about five of them.
fn tick_step(span: f64) -> f64 {
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0];
    let wanted = span / 5.0;
    steps
        .into_iter()
        .find(|step| *step >= wanted)
        .unwrap_or(50.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(points: Vec<(u32, f64, f64)>) -> Series {
        Series {
            name: "a < b".into(),
            points,
        }
    }

    #[test]
    fn one_number_of_shots_is_no_curve() {
        assert!(shots_chart("t", &[series(vec![(16, 80.0, 1.0)])]).is_none());
        assert!(shots_chart("t", &[]).is_none());
    }

    #[test]
    fn points_stay_inside_and_names_are_escaped() {
        let lines = [
            series(vec![(1, 60.0, 3.0), (4, 70.5, 0.0), (16, 80.0, 1.0)]),
            series(vec![(0, 50.0, 0.0)]),
        ];
        let svg = shots_chart("AUROC", &lines).unwrap();
        assert!(svg.contains("a &lt; b") && !svg.contains("a < b"));
        assert_eq!(svg.matches("<circle").count(), 3);
        for text in svg.split("cy=\"").skip(1) {
            let y: f64 = text.split('"').next().unwrap().parse().unwrap();
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y), "{y}");
        }
    }
}
