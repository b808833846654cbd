//! The page of a zero-shot classification: confusion, the distribution over classes, and a table of the classes.

use super::figures::Figure;
use super::figures::bars::{self, Arrangement, Group};
use super::figures::heat_map::{HeatCell, Names, draw};
use super::page::{Block, Page, Section};
use super::table::{Cell, Spread, Table, percent};
use crate::error::Result;
use crate::zero_shot::Tally;

/// Largest number of classes in a drawing; of more, those with the most images are shown.
const SHOWN: usize = 80;

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
    ///
    /// # Errors
    /// None for the templates of this crate.
    pub fn html(&self) -> Result<String> {
        let tally = self.tally;
        let verdict = match tally.accuracy() {
            Some((top1, top5)) => format!(
                "Accuracy on the {} images of a known class: top-1 {}%, top-5 {}%.",
                tally.labelled,
                percent(top1),
                percent(top5)
            ),
            None => "No image has a known class, so there is no accuracy.".to_string(),
        };
        let mut sections = Vec::new();
        if tally.labelled > 0 {
            let mut section = Section::new("confusion", "Confusion");
            section.figure(self.confusion(), "No image has a known class.");
            sections.push(section);
        }
        let mut section = Section::new("distribution", "Distribution over classes");
        section.figure(self.distribution(), "No image was classified.");
        section
            .blocks
            .push(Block::table("classes", "Images per class", &self.table()));
        sections.push(section);
        let page = Page {
            title: "Zero-shot classification".to_string(),
            subtitle: format!(
                "Images {}, model {}, texts {}: {} classified, {} could not be read.",
                self.images, self.model, self.texts, tally.classified, tally.unreadable
            ),
            verdict,
            sections,
        };
        page.html()
    }

    /// The classes with the largest `key`, at most [`SHOWN`], in class order; and a note if some are left out.
    fn busiest(&self, key: impl Fn(usize) -> u64) -> (Vec<usize>, String) {
        let mut shown: Vec<usize> = (0..self.classes.len()).filter(|c| key(*c) > 0).collect();
        shown.sort_by_key(|class| std::cmp::Reverse(key(*class)));
        let note = match shown.len() > SHOWN {
            true => format!(
                " The {SHOWN} classes with the most images of {}.",
                shown.len()
            ),
            false => String::new(),
        };
        shown.truncate(SHOWN);
        shown.sort_unstable();
        (shown, note)
    }

    /// Known classes down, predicted classes across; darkness is the share of the known class's images.
    fn confusion(&self) -> Option<Figure> {
        let tally = self.tally;
        let mut busy = vec![0u64; self.classes.len()];
        for ((label, predicted), count) in &tally.confusion {
            busy[*label as usize] += count;
            busy[*predicted as usize] += count;
        }
        let (shown, note) = self.busiest(|class| busy[class]);
        let names: Vec<String> = shown
            .iter()
            .map(|class| self.classes[*class].clone())
            .collect();
        let side = (720.0 / shown.len().max(1) as f64).clamp(12.0, 34.0);
        let mut cells = Vec::new();
        for ((label, predicted), count) in &tally.confusion {
            let place = |class: u32| shown.binary_search(&(class as usize)).ok();
            let (Some(row), Some(column)) = (place(*label), place(*predicted)) else {
                continue;
            };
            let share = *count as f64 / tally.classes[*label as usize].labelled.max(1) as f64;
            cells.push(HeatCell {
                row,
                column,
                share,
                colour: if label == predicted { "f2" } else { "f4" },
                text: count.to_string(),
                title: format!(
                    "{} as {}: {count}, {:.1}%",
                    names[row],
                    names[column],
                    100.0 * share
                ),
            });
        }
        let title = "Confusion: known class down, predicted class across";
        let layout = Names {
            title,
            rows: &names,
            columns: &names,
            across: "predicted",
            down: "known",
            cell: (side, side),
        };
        let caption = format!(
            "Blue: right, red: wrong; the darker, the larger the share of the known class.{note}"
        );
        Some(Figure::new(
            "confusion-matrix",
            title,
            caption,
            draw(layout, &cells)?,
        ))
    }

    /// One bar per class: images classified as it, and below it the images known to be of it.
    fn distribution(&self) -> Option<Figure> {
        let counts = &self.tally.classes;
        let (shown, note) =
            self.busiest(|class| counts[class].predicted.max(counts[class].labelled));
        let labelled = self.tally.labelled > 0;
        let groups: Vec<Group> = shown
            .iter()
            .map(|class| Group {
                name: self.classes[*class].clone(),
                counts: match labelled {
                    true => vec![counts[*class].predicted, counts[*class].labelled],
                    false => vec![counts[*class].predicted],
                },
            })
            .collect();
        let mut series = vec!["classified as it".to_string()];
        if labelled {
            series.push("known to be of it".to_string());
        }
        let title = "Images per class";
        let svg = bars::draw(title, &series, &groups, Arrangement::Beside)?;
        Some(Figure::new(
            "class-distribution",
            title,
            format!("Counts of images.{note}"),
            svg,
        ))
    }

    fn table(&self) -> Table {
        let labelled = self.tally.labelled > 0;
        let mut columns = vec![("class", "class"), ("classified as it", "predicted")];
        if labelled {
            columns.extend([
                ("known", "labelled"),
                ("right", "correct"),
                ("accuracy %", "accuracy"),
            ]);
        }
        let mut table = Table::new(&columns);
        for (name, counts) in self.classes.iter().zip(&self.tally.classes) {
            let mut row = vec![Cell::text(name), Cell::Count(counts.predicted)];
            if labelled {
                row.extend([Cell::Count(counts.labelled), Cell::Count(counts.correct)]);
                row.push(match counts.labelled {
                    0 => Cell::Blank,
                    known => Cell::Rate(counts.correct as f64 / known as f64, Spread::None),
                });
            }
            table.rows.push(row);
        }
        table
    }
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
        page.html().unwrap()
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
        assert!(html.contains("top-1 50.00%"));
    }

    #[test]
    fn without_labels_there_is_no_confusion() {
        let classes = ["star", "fish"].map(String::from);
        let mut tally = Tally::new(2);
        tally.add(&[(1, 0.9)], None);
        let html = page(&classes, &tally);
        assert!(!html.contains("Confusion") && !html.contains("top-1"));
        assert!(html.contains("Images per class"));
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
