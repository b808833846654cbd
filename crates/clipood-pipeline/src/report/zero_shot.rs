//! The page of a zero-shot classification: a confusion heat map and the distribution over classes, as SVG inside HTML.

use std::fmt::Write;

use super::page::page;
use super::text_table::{TextTable, escape};
use crate::zero_shot::Tally;

/// Largest number of classes in a drawing; of more, those with the most images are shown.
const SHOWN: usize = 80;
/// Letters of a class name in a drawing.
const LETTERS: usize = 24;
/// Approximate width of a letter.
const LETTER: f64 = 6.6;
const BLUE: &str = "#0072b2";
const ORANGE: &str = "#e69f00";

/// The contents of a page.
#[derive(Debug, Clone, Copy)]
pub struct ZeroShotPage<'a> {
    /// Where the images come from.
    pub images: &'a str,
    /// The model, as the user named it.
    pub model: &'a str,
    /// The source of the texts: a template set or a file.
    pub texts: &'a str,
    /// Class names, by number.
    pub classes: &'a [String],
    /// Counts over the images.
    pub tally: &'a Tally,
}

impl ZeroShotPage<'_> {
    /// The page: one self-contained HTML file.
    pub fn html(&self) -> String {
        let tally = self.tally;
        let mut body = format!(
            "<h1>Zero-shot classification</h1>\n<p>Images <code>{}</code>, model <code>{}</code>, texts <code>{}</code>: {} \
             classified, {} could not be read.</p>\n",
            escape(self.images),
            escape(self.model),
            escape(self.texts),
            tally.classified,
            tally.unreadable
        );
        if let Some((top1, top5)) = tally.accuracy() {
            body += &format!(
                "<p>Accuracy on the {} images of a known class: top-1 <strong>{:.2}%</strong>, top-5 <strong>{:.2}%</strong>.</p>\n",
                tally.labelled,
                100.0 * top1,
                100.0 * top5
            );
            body += "<h2>Confusion</h2>\n";
            body += &self.confusion();
        }
        body += "<h2>Distribution over classes</h2>\n";
        body += &self.distribution();
        body += "<h2>Classes</h2>\n";
        body += &self.table().to_html(1);
        page("zero-shot", &body)
    }

    /// The classes with the largest `key`, at most [`SHOWN`], in class order; and a note if some are left out.
    fn busiest(&self, what: &str, key: impl Fn(usize) -> u64) -> (Vec<usize>, String) {
        let mut shown: Vec<usize> = (0..self.classes.len()).filter(|c| key(*c) > 0).collect();
        shown.sort_by_key(|class| std::cmp::Reverse(key(*class)));
        let note = if shown.len() > SHOWN {
            format!(
                "<p>The {SHOWN} classes with the most {what} of {}.</p>\n",
                shown.len()
            )
        } else {
            String::new()
        };
        shown.truncate(SHOWN);
        shown.sort_unstable();
        (shown, note)
    }

    /// Known classes down, predicted classes across; darkness is the share of the known class's images.
    fn confusion(&self) -> String {
        let tally = self.tally;
        let mut busy = vec![0u64; self.classes.len()];
        for ((label, predicted), count) in &tally.confusion {
            busy[*label as usize] += count;
            busy[*predicted as usize] += count;
        }
        let (shown, note) = self.busiest("images", |class| busy[class]);
        let cell = (720.0 / shown.len().max(1) as f64).clamp(9.0, 34.0);
        let names: Vec<String> = shown.iter().map(|c| shortened(&self.classes[*c])).collect();
        let margin = name_width(&names);
        let side = cell * shown.len() as f64;
        let (left, top) = (margin + 24.0, margin + 24.0);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {0:.0} {1:.0}\" width=\"{0:.0}\" height=\"{1:.0}\" role=\"img\" font-size=\"11\">\n\
             <title>Confusion: known class down, predicted class across</title>\n\
             <text x=\"{2:.1}\" y=\"12\" text-anchor=\"middle\" font-weight=\"bold\">predicted</text>\n\
             <text transform=\"translate(12 {3:.1}) rotate(-90)\" text-anchor=\"middle\" font-weight=\"bold\">known</text>\n",
            left + side + 12.0,
            top + side + 12.0,
            left + side / 2.0,
            top + side / 2.0
        );
        for (place, name) in names.iter().enumerate() {
            let middle = cell * (place as f64 + 0.5);
            let name = escape(name);
            // Writing to a string cannot fail.
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>\
                 <text transform=\"translate({:.1} {:.1}) rotate(-90)\">{name}</text>",
                left - 6.0,
                top + middle + 4.0,
                left + middle + 4.0,
                top - 6.0
            );
        }
        let _ = writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{side:.1}\" height=\"{side:.1}\" fill=\"#f7f7f7\" stroke=\"#bbb\"/>"
        );
        let place_of = |class: u32| shown.binary_search(&(class as usize)).ok();
        for ((label, predicted), count) in &tally.confusion {
            let (Some(row), Some(column)) = (place_of(*label), place_of(*predicted)) else {
                continue;
            };
            let share = *count as f64 / tally.classes[*label as usize].labelled.max(1) as f64;
            let colour = if label == predicted { BLUE } else { "#d55e00" };
            let (x, y) = (left + cell * column as f64, top + cell * row as f64);
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{cell:.1}\" height=\"{cell:.1}\" fill=\"{colour}\" fill-opacity=\"{:.3}\">\
                 <title>{} as {}: {count}, {:.1}%</title></rect>",
                0.12 + 0.88 * share,
                escape(&self.classes[*label as usize]),
                escape(&self.classes[*predicted as usize]),
                100.0 * share
            );
            if cell >= 22.0 {
                let ink = if share > 0.5 { "#fff" } else { "#000" };
                let _ = writeln!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"{ink}\">{count}</text>",
                    x + cell / 2.0,
                    y + cell / 2.0 + 4.0
                );
            }
        }
        svg += "</svg>\n";
        format!(
            "{note}<p>Known classes down, predicted classes across; blue: right, red: wrong; the darker, the larger the share of \
             the known class.</p>\n{svg}"
        )
    }

    /// One bar per class: images classified as it, and beside them the images known to be of it.
    fn distribution(&self) -> String {
        let counts = &self.tally.classes;
        let (shown, note) = self.busiest("images", |class| {
            counts[class].predicted.max(counts[class].labelled)
        });
        let labelled = self.tally.labelled > 0;
        let names: Vec<String> = shown.iter().map(|c| shortened(&self.classes[*c])).collect();
        let largest = shown
            .iter()
            .map(|c| counts[*c].predicted.max(counts[*c].labelled))
            .max()
            .unwrap_or(1);
        let left = name_width(&names) + 8.0;
        let (room, step) = (480.0, if labelled { 26.0 } else { 18.0 });
        let height = step * shown.len() as f64 + 8.0;
        let width = left + room + 60.0;
        let mut svg = format!(
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" font-size=\"11\">\n\
             <title>Images a class</title>\n"
        );
        for (place, class) in shown.iter().enumerate() {
            let y = 4.0 + step * place as f64;
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 6.0,
                y + step / 2.0 + 1.0,
                escape(&names[place])
            );
            let mut bar = |y: f64, count: u64, colour: &str| {
                let length = room * count as f64 / largest as f64;
                let _ = writeln!(
                    svg,
                    "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"10\" fill=\"{colour}\"/>\
                     <text x=\"{:.1}\" y=\"{:.1}\">{count}</text>",
                    left + length + 4.0,
                    y + 9.0
                );
            };
            bar(y, counts[*class].predicted, BLUE);
            if labelled {
                bar(y + 11.0, counts[*class].labelled, ORANGE);
            }
        }
        svg += "</svg>\n";
        let legend = if labelled {
            "<p>Blue: images classified as the class; orange: images known to be of it.</p>\n"
        } else {
            "<p>Images classified as each class.</p>\n"
        };
        format!("{note}{legend}{svg}")
    }

    fn table(&self) -> TextTable {
        let labelled = self.tally.labelled > 0;
        let mut headings = vec!["class", "classified as it"];
        if labelled {
            headings.extend(["known", "right", "accuracy %"]);
        }
        let rows = self.classes.iter().zip(&self.tally.classes);
        TextTable {
            headings: headings.into_iter().map(str::to_string).collect(),
            rows: rows
                .map(|(name, counts)| {
                    let mut row = vec![name.clone(), counts.predicted.to_string()];
                    if labelled {
                        row.push(counts.labelled.to_string());
                        row.push(counts.correct.to_string());
                        row.push(match counts.labelled {
                            0 => String::new(),
                            known => {
                                format!("{:.2}", 100.0 * counts.correct as f64 / known as f64)
                            }
                        });
                    }
                    row
                })
                .collect(),
        }
    }
}

/// The first letters of a name.
fn shortened(name: &str) -> String {
    if name.chars().count() <= LETTERS {
        return name.to_string();
    }
    let start: String = name.chars().take(LETTERS - 1).collect();
    format!("{start}…")
}

/// Width for the longest of some names.
fn name_width(names: &[String]) -> f64 {
    let letters = names.iter().map(|name| name.chars().count()).max();
    12.0 + LETTER * letters.unwrap_or(0) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(classes: &[String], tally: &Tally) -> String {
        let page = ZeroShotPage {
            images: "a <b>",
            model: "demo",
            texts: "simple",
            classes,
            tally,
        };
        page.html()
    }

    #[test]
    fn drawings_show_every_pair_and_escape_names() {
        let classes = ["star & moon", "fish", "house"].map(String::from);
        let mut tally = Tally::new(3);
        tally.add(&[(0, 0.9)], Some(0));
        tally.add(&[(1, 0.9)], Some(0));
        tally.add(&[(1, 0.9)], None);
        tally.unreadable = 2;
        let html = page(&classes, &tally);
        assert!(html.contains("a &lt;b&gt;") && !html.contains("a <b>"));
        assert!(
            html.contains("<title>star &amp; moon as fish: 1, 50.0%</title>"),
            "{html}"
        );
        assert!(html.contains("3 classified, 2 could not be read"));
        assert!(html.contains("top-1 <strong>50.00%</strong>"));
        assert!(!html.contains("<script") && !html.contains("http"));
    }

    #[test]
    fn without_labels_there_is_no_confusion() {
        let classes = ["star", "fish"].map(String::from);
        let mut tally = Tally::new(2);
        tally.add(&[(1, 0.9)], None);
        let html = page(&classes, &tally);
        assert!(!html.contains("Confusion") && !html.contains("Accuracy"));
        assert!(html.contains("Images a class"));
    }

    #[test]
    fn of_many_classes_the_busiest_are_drawn() {
        let classes: Vec<String> = (0..200).map(|class| format!("class {class}")).collect();
        let mut tally = Tally::new(200);
        for class in 0..200u32 {
            for _ in 0..=class {
                tally.add(&[(class, 0.9)], Some(class));
            }
        }
        let html = page(&classes, &tally);
        assert!(html.contains("The 80 classes with the most images of 200"));
        assert!(html.contains("<title>class 199 as class 199"));
        assert!(!html.contains("<title>class 119 as class 119"));
    }
}
