//! The sorted interval plot: one row per line, a dot for the figure and a bar for its spread.

use super::super::svg::{Anchor, Scale, Svg, range, shortened, widest};
use super::super::table::Spread;

/// A row of the plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Name.
    pub name: String,
    /// The figure, 0 to 1.
    pub value: f64,
    /// Its spread.
    pub spread: Spread,
    /// Whether the figure is no result: chosen on the tested images, or dependent on other test images.
    pub hollow: bool,
}

/// Most rows that are drawn.
pub const ROWS: usize = 60;
const ROW: f64 = 19.0;
const LETTERS: usize = 46;

/// The plot of the rows with the largest values; `None` for no rows.
pub fn draw(title: &str, entries: &[Entry]) -> Option<String> {
    plot(title, entries, None)
}

/// The same of differences, with a line at zero.
pub fn draw_differences(title: &str, entries: &[Entry]) -> Option<String> {
    plot(title, entries, Some(0.0))
}

fn plot(title: &str, entries: &[Entry], mark: Option<f64>) -> Option<String> {
    let mut shown: Vec<&Entry> = entries.iter().filter(|e| e.value.is_finite()).collect();
    shown.sort_by(|a, b| b.value.total_cmp(&a.value));
    shown.truncate(ROWS);
    let ends = |entry: &Entry| match entry.spread {
        Spread::None => (entry.value, entry.value),
        Spread::Deviation(std) => (entry.value - std, entry.value + std),
        Spread::Interval(lo, hi) => (lo, hi),
    };
    let all = shown.iter().flat_map(|e| [ends(e).0, ends(e).1, e.value]);
    let (low, high) = range(all.map(|v| 100.0 * v).chain(mark))?;
    // Marks alone make no plot.
    shown.first()?;
    let names: Vec<String> = shown.iter().map(|e| shortened(&e.name, LETTERS)).collect();
    let left = widest(names.iter().map(String::as_str)) + 16.0;
    let (room, height) = (420.0, ROW * shown.len() as f64);
    let mut svg = Svg::new(left + room + 64.0, height + 34.0, title);
    let x = Scale::round((low, high), (left, left + room));
    for (value, text) in x.ticks() {
        svg.line("grid", (x.at(value), 4.0), (x.at(value), height + 8.0));
        svg.text((x.at(value), height + 24.0), Anchor::Middle, &text);
    }
    if let Some(mark) = mark {
        svg.line("axis", (x.at(mark), 4.0), (x.at(mark), height + 8.0));
    }
    for (place, (entry, name)) in shown.iter().zip(&names).enumerate() {
        let y = 6.0 + ROW * (place as f64 + 0.5);
        let (lo, hi) = ends(entry);
        svg.text((left - 8.0, y + 4.0), Anchor::End, name);
        let class = if entry.hollow {
            "curve l4 dashed"
        } else {
            "curve l2"
        };
        svg.line(class, (x.at(100.0 * lo), y), (x.at(100.0 * hi), y));
        let title = format!(
            "{}: {:.2} ({:.2} to {:.2})",
            entry.name,
            100.0 * entry.value,
            100.0 * lo,
            100.0 * hi
        );
        let dot = if entry.hollow { "hollow l4" } else { "f2" };
        svg.dot(dot, (x.at(100.0 * entry.value), y), 4.0, &title);
        svg.text(
            (left + room + 10.0, y + 4.0),
            Anchor::Start,
            &format!("{:.1}", 100.0 * entry.value),
        );
    }
    Some(svg.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_marks_that_are_no_results_are_hollow() {
        let entry = |name: &str, value: f64, hollow: bool| Entry {
            name: name.into(),
            value,
            spread: Spread::Interval(value - 0.05, value + 0.05),
            hollow,
        };
        let svg = draw("t", &[entry("low", 0.6, false), entry("high", 0.9, true)]).unwrap();
        assert!(svg.find(">high<").unwrap() < svg.find(">low<").unwrap());
        assert_eq!(svg.matches("class=\"hollow").count(), 1);
        assert!(svg.contains("low: 60.00 (55.00 to 65.00)"));
        assert_eq!(draw("t", &[]), None);
        assert_eq!(draw("t", &[entry("nan", f64::NAN, false)]), None);
    }
}
