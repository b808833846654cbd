//! Horizontal bars, one group per class, stacked or side by side.

use super::super::svg::{Anchor, Scale, Svg, fill, shortened, widest};

/// Bars of one class.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Name of the class.
    pub name: String,
    /// A number for each series.
    pub counts: Vec<u64>,
}

/// How the bars of a group lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// End to end in one bar.
    Stacked,
    /// One below the other.
    Beside,
}

const ROOM: f64 = 420.0;
const BAR: f64 = 12.0;
const LETTERS: usize = 30;

/// The bars in the order given; `series` names the series. `None` for no groups.
pub fn draw(
    title: &str,
    series: &[String],
    groups: &[Group],
    arrangement: Arrangement,
) -> Option<String> {
    let size = |group: &Group| match arrangement {
        Arrangement::Stacked => group.counts.iter().sum::<u64>(),
        Arrangement::Beside => group.counts.iter().copied().max().unwrap_or(0),
    };
    let most = groups.iter().map(size).max()?;
    let names: Vec<String> = groups.iter().map(|g| shortened(&g.name, LETTERS)).collect();
    let left = widest(names.iter().map(String::as_str)) + 14.0;
    let lines = match arrangement {
        Arrangement::Stacked => 1,
        Arrangement::Beside => series.len(),
    };
    let step = BAR * lines as f64 + 7.0;
    let top = 22.0;
    let mut svg = Svg::new(
        left + ROOM + 52.0,
        top + step * groups.len() as f64 + 6.0,
        title,
    );
    let mut at = left;
    for (s, name) in series.iter().enumerate() {
        svg.rect(fill(s + 1), (at, 4.0), (12.0, 10.0), "");
        svg.text((at + 16.0, 13.0), Anchor::Start, name);
        at += 34.0 + widest(std::iter::once(name.as_str()));
    }
    let x = Scale::exact((0.0, most as f64), (left, left + ROOM));
    for (g, (group, name)) in groups.iter().zip(&names).enumerate() {
        let y = top + step * g as f64;
        svg.text((left - 6.0, y + step / 2.0), Anchor::End, name);
        let mut from = 0u64;
        for (s, count) in group.counts.iter().enumerate() {
            let (start, line) = match arrangement {
                Arrangement::Stacked => (x.at(from as f64), 0.0),
                Arrangement::Beside => (left, BAR * s as f64),
            };
            let length = x.at(*count as f64) - left;
            let what = series.get(s).map_or("", String::as_str);
            svg.rect(
                fill(s + 1),
                (start, y + line),
                (length, BAR - 1.0),
                &format!("{}, {what}: {count}", group.name),
            );
            from += count;
            if arrangement == Arrangement::Beside {
                svg.text(
                    (start + length + 4.0, y + line + 10.0),
                    Anchor::Start,
                    &count.to_string(),
                );
            }
        }
        if arrangement == Arrangement::Stacked {
            svg.text(
                (x.at(from as f64) + 4.0, y + 10.0),
                Anchor::Start,
                &from.to_string(),
            );
        }
    }
    Some(svg.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_counts() {
        let groups = [
            Group {
                name: "star".into(),
                counts: vec![30, 10],
            },
            Group {
                name: "fish".into(),
                counts: vec![0, 20],
            },
        ];
        let names = ["a".to_string(), "b".to_string()];
        let svg = draw("t", &names, &groups, Arrangement::Stacked).unwrap();
        let widths: Vec<f64> = svg
            .split("width=\"")
            .skip(1)
            .filter_map(|text| text.split('"').next()?.parse().ok())
            .collect();
        // The largest stack fills the room: 30 and 10 of 40.
        assert!(
            widths.contains(&315.0) && widths.contains(&105.0) && widths.contains(&210.0),
            "{widths:?}"
        );
        assert!(svg.contains("star, a: 30"));
        assert_eq!(draw("t", &names, &[], Arrangement::Beside), None);
    }
}
