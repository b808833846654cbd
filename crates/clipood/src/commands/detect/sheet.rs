//! The verdicts as a page with the images.

use std::path::Path;

use anyhow::Result;
use clipood_core::{counted, first_of, shown};
use clipood_data::Source;
use clipood_pipeline::{Cell, Sheet, SheetGroup, SheetImage, Spread, Table, Unreadable};

use super::Verdict;
use super::judge::Judge;

/// Images on a page that could not be read.
const MOST_UNREAD: usize = 50;

/// Images that could not be read: the first of them, and their number.
#[derive(Default)]
pub struct Unread {
    first: Vec<(String, Unreadable)>,
    count: usize,
}

impl Unread {
    /// Adds an image.
    pub fn add(&mut self, path: &Path, reason: Unreadable) {
        self.count += 1;
        if self.first.len() < MOST_UNREAD {
            self.first.push((shown(path), reason));
        }
    }
}

/// The page: in-distribution images, then the others, each group with the highest scores first, then those that could not be
/// read.
///
/// # Errors
/// None for the templates of the pipeline.
pub fn html(
    summary: &str,
    verdicts: &[Verdict],
    sources: &[Source],
    unread: Unread,
    judge: &Judge,
) -> Result<String> {
    let (inside, outside): (Vec<&Verdict>, Vec<&Verdict>) =
        verdicts.iter().partition(|verdict| verdict.inside);
    let (most_inside, most_outside) = shares(inside.len(), outside.len(), Sheet::MOST);
    let mut groups = vec![
        group("In-distribution", inside, most_inside, sources, judge),
        group("Out-of-distribution", outside, most_outside, sources, judge),
    ];
    if unread.count > 0 {
        groups.push(unread.group());
    }
    let sheet = Sheet {
        title: "In- or out-of-distribution".to_owned(),
        subtitle: format!(
            "Detector {}, threshold {} ({}), weights {}. Classes: {}.",
            judge.detector,
            judge.threshold,
            judge.origin,
            judge.model.hash,
            first_names(&judge.classes)
        ),
        verdict: format!("{summary}."),
        groups,
    };
    Ok(sheet.html()?)
}

/// How many images of two groups are shown where there is room for `most`: half of it each, or what the other does not need.
fn shares(first: usize, second: usize, most: usize) -> (usize, usize) {
    let half = most / 2;
    (
        first.min(half.max(most.saturating_sub(second))),
        second.min(half.max(most.saturating_sub(first))),
    )
}

/// At most `most` verdicts, those nearest to the threshold, with the highest scores first.
fn group(
    title: &str,
    mut verdicts: Vec<&Verdict>,
    most: usize,
    sources: &[Source],
    judge: &Judge,
) -> SheetGroup {
    let all = verdicts.len();
    let distance = |verdict: &Verdict| (f64::from(verdict.score) - judge.threshold).abs();
    verdicts.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
    verdicts.truncate(most);
    verdicts.sort_by(|a, b| b.score.total_cmp(&a.score));
    let class = |class: u32| judge.classes[class as usize].as_str();
    let images = verdicts.iter().map(|verdict| SheetImage {
        source: Ok(sources[verdict.number].clone()),
        name: shown(&verdict.image),
        heading: format!("score {:.6}", verdict.score),
        lines: (verdict.top.iter())
            .map(|(number, probability)| format!("{} {:.1}%", class(*number), 100.0 * probability))
            .collect(),
    });
    let mut table = Table::new(&[
        ("image", "image"),
        ("score", "score"),
        ("nearest class", "pred_name"),
        ("probability", "prob"),
    ]);
    let rows = verdicts.iter().map(|verdict| {
        let (number, probability) = verdict.top[0];
        vec![
            Cell::text(shown(&verdict.image)),
            Cell::Number(f64::from(verdict.score)),
            Cell::text(class(number)),
            Cell::Rate(f64::from(probability), Spread::None),
        ]
    });
    table.rows = rows.collect();
    SheetGroup {
        title: format!("{title}: {all}"),
        text: match verdicts.len() < all {
            true => format!(
                "The {} nearest to the threshold, the highest scores first. --out writes all of them.",
                counted(
                    verdicts.len(),
                    "image whose score is",
                    "images whose scores are"
                )
            ),
            false if all > 0 => "The highest scores first.".to_owned(),
            false => String::new(),
        },
        left_out: all - verdicts.len(),
        images: images.collect(),
        table: (!table.rows.is_empty()).then(|| ("As a table".to_owned(), table)),
    }
}

impl Unread {
    fn group(self) -> SheetGroup {
        let left_out = self.count - self.first.len();
        let images = self.first.into_iter().map(|(name, reason)| SheetImage {
            source: Err(reason.message),
            name,
            heading: reason.kind,
            lines: Vec::new(),
        });
        SheetGroup {
            title: format!("Could not be read: {}", self.count),
            images: images.collect(),
            left_out,
            ..SheetGroup::default()
        }
    }
}

/// The first classes, and the number of the others.
fn first_names(classes: &[String]) -> String {
    const NAMED: usize = 12;
    first_of(classes.iter().cloned(), classes.len(), NAMED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_share_the_room_of_a_page() {
        assert_eq!(shares(3, 4, 10), (3, 4));
        assert_eq!(shares(100, 4, 10), (6, 4));
        assert_eq!(shares(2, 100, 10), (2, 8));
        assert_eq!(shares(100, 100, 10), (5, 5));
        assert_eq!(shares(0, 0, 10), (0, 0));
    }
}
