//! Score distributions: for each OOD set one panel with its histogram, that of the ID images, and the threshold at which 95% of
//! these are kept.

use super::super::svg::{Anchor, Scale, Svg, shortened};

/// One panel.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Name of the OOD set.
    pub name: String,
    /// Ends of the bins.
    pub ends: (f64, f64),
    /// Share of the ID images in each bin.
    pub id: Vec<f64>,
    /// Share of the OOD images in each bin.
    pub ood: Vec<f64>,
    /// The threshold of FPR95.
    pub threshold: Option<f64>,
    /// Share of the OOD images at or above it.
    pub fpr95: Option<f64>,
}

const WIDTH: f64 = 330.0;
const HEIGHT: f64 = 150.0;
const ACROSS: usize = 2;

/// The panels, two in a row; `None` for none.
pub fn draw(title: &str, panels: &[Panel]) -> Option<String> {
    if panels.is_empty() {
        return None;
    }
    let columns = panels.len().min(ACROSS);
    let rows = panels.len().div_ceil(ACROSS);
    let mut svg = Svg::new(
        (WIDTH + 16.0) * columns as f64,
        (HEIGHT + 28.0) * rows as f64 + 22.0,
        title,
    );
    svg.rect("f2 pale", (2.0, 4.0), (12.0, 10.0), "");
    svg.text((18.0, 13.0), Anchor::Start, "ID");
    svg.rect("f4 pale", (44.0, 4.0), (12.0, 10.0), "");
    svg.text((60.0, 13.0), Anchor::Start, "OOD");
    svg.line("threshold", (100.0, 9.0), (116.0, 9.0));
    svg.text(
        (120.0, 13.0),
        Anchor::Start,
        "threshold that keeps 95% of ID",
    );
    for (number, panel) in panels.iter().enumerate() {
        let left = (WIDTH + 16.0) * (number % ACROSS) as f64;
        let top = 22.0 + (HEIGHT + 28.0) * (number / ACROSS) as f64;
        one(&mut svg, panel, (left, top));
    }
    Some(svg.finish())
}

fn one(svg: &mut Svg, panel: &Panel, (left, top): (f64, f64)) {
    let bottom = top + HEIGHT;
    let high = panel
        .id
        .iter()
        .chain(&panel.ood)
        .copied()
        .fold(0.0, f64::max);
    let y = Scale::exact((0.0, high), (bottom, top + 22.0));
    let x = Scale::exact(panel.ends, (left + 4.0, left + WIDTH - 4.0));
    let fpr95 = panel
        .fpr95
        .map(|f| format!(", FPR95 {:.1}%", 100.0 * f))
        .unwrap_or_default();
    svg.classed_text(
        (left + 4.0, top + 14.0),
        Anchor::Start,
        "strong",
        &format!("{}{fpr95}", shortened(&panel.name, 34)),
    );
    svg.line("axis", (left + 4.0, bottom), (left + WIDTH - 4.0, bottom));
    for (value, text) in x.ticks() {
        svg.text((x.at(value), bottom + 14.0), Anchor::Middle, &text);
    }
    for (class, shares, name) in [
        ("f2 pale", &panel.id, "ID"),
        ("f4 pale", &panel.ood, panel.name.as_str()),
    ] {
        let width = (panel.ends.1 - panel.ends.0) / shares.len().max(1) as f64;
        let mut outline = vec![(x.at(panel.ends.0), bottom)];
        for (bin, share) in shares.iter().enumerate() {
            let from = panel.ends.0 + width * bin as f64;
            outline.extend([
                (x.at(from), y.at(*share)),
                (x.at(from + width), y.at(*share)),
            ]);
        }
        outline.push((x.at(panel.ends.1), bottom));
        svg.polygon(class, &outline, name);
    }
    if let Some(threshold) = panel.threshold {
        svg.line(
            "threshold",
            (x.at(threshold), top + 20.0),
            (x.at(threshold), bottom),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_set_has_a_panel_with_two_outlines_and_its_threshold() {
        let panel = |name: &str| Panel {
            name: name.into(),
            ends: (0.0, 1.0),
            id: vec![0.1, 0.9],
            ood: vec![0.7, 0.3],
            threshold: Some(0.5),
            fpr95: Some(0.3),
        };
        let svg = draw("t", &[panel("near & far"), panel("b"), panel("c")]).unwrap();
        assert_eq!(svg.matches("<polygon").count(), 6);
        assert!(svg.contains("near &amp; far, FPR95 30.0%"));
        // The legend has one threshold, too.
        assert_eq!(svg.matches("class=\"threshold\"").count(), 4);
        assert!(draw("t", &[]).is_none());
    }
}
