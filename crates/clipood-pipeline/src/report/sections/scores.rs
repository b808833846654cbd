//! The scores of one prompt set: distributions, ROC and precision-recall curves, false positives by class, confusion, and the most
//! confident mistakes.

use super::super::bounds::{BINS, CLASSES, CONFUSED, CURVE_POINTS, OOD_SETS, SHOWN_MISTAKES};
use super::super::curve_points::{histogram, histogram_ends, roc_and_pr};
use super::super::figures::Figure;
use super::super::figures::bars::{self, Arrangement, Group};
use super::super::figures::curves::{self, Axes, Line};
use super::super::figures::distributions::{self, Panel};
use super::super::figures::heat_map::{self, HeatCell};
use super::super::page::{Block, Section};
use super::super::scored::{Mistake, PromptScores, SetScores};
use super::super::thumbnails::{Tile, mistake_tiles};
use super::data::distribution as distribution_by_class;
use super::missing;
use crate::job::Job;
use crate::metrics::Metrics;
use crate::planned::Planned;
use crate::tables::OodRow;

/// The sections about the prompt set `focus`.
pub fn sections(
    job: &Job,
    planned: &Planned,
    metrics: &Metrics,
    focus: Option<&PromptScores>,
) -> Vec<Section> {
    let Some(focus) = focus else {
        return vec![missing(
            "scores",
            "Scores",
            "No prompt set has scores of the test images.",
        )];
    };
    let classes = &planned.plan.classes;
    let mut scores = Section::new("scores", "Scores");
    scores.text(format!(
        "Prompt set {} under {}: that of the methods, each with its most shots and first seed, which has the largest AUROC.{}",
        focus.prompt,
        focus.detector,
        match focus.ood.len() > OOD_SETS {
            true => format!(" The first {OOD_SETS} of {} OOD sets.", focus.ood.len()),
            false => String::new(),
        }
    ));
    scores.figure(distribution(metrics, focus), "No score is finite.");
    let curves = roc_pr(focus);
    scores
        .blocks
        .push(Block::Row(curves.into_iter().map(Block::Figure).collect()));
    scores.figure(
        false_positives(metrics, focus, classes),
        "At the 95% threshold no OOD image is taken for ID.",
    );
    let mut confusion = Section::new("classes", "Classes");
    confusion.figure(
        confusion_figure(focus, classes),
        "Every ID image was classified correctly.",
    );
    confusion.figure(
        distribution_by_class(classes, &focus.id.confusion),
        "There are no labelled images.",
    );
    vec![scores, confusion, mistakes(job, focus)]
}

/// The row of the tables with the figures of an OOD set under the detector of `focus`.
fn row_of<'a>(metrics: &'a Metrics, focus: &PromptScores, set: &str) -> Option<&'a OodRow> {
    metrics.ood.iter().find(|row| {
        row.prompt == focus.prompt
            && row.detector == focus.detector
            && row.ood_dataset == set
            && row.selection == "fixed"
            && row.scaling.is_none()
    })
}

fn distribution(metrics: &Metrics, focus: &PromptScores) -> Option<Figure> {
    let sets: Vec<&SetScores> = focus.ood.iter().take(OOD_SETS).collect();
    let lists = sets
        .iter()
        .copied()
        .chain([&focus.id])
        .map(|set| set.scores.as_slice());
    let ends = histogram_ends(lists)?;
    let panel = |set: &&SetScores| {
        let row = row_of(metrics, focus, &set.name);
        Panel {
            name: set.name.clone(),
            ends,
            id: histogram(&focus.id.scores, ends, BINS),
            ood: histogram(&set.scores, ends, BINS),
            threshold: row.and_then(|row| row.threshold95),
            fpr95: row.map(|row| row.fpr95),
        }
    };
    let panels: Vec<Panel> = sets.iter().map(panel).collect();
    let title = "Score distributions";
    Some(Figure::new(
        "distributions",
        title,
        format!(
            "Share of the images in each of {BINS} equal bins of the score; the outermost 0.5% on each side are in the outermost bins. Dashed: the threshold whose \
             recall of ID is nearest to 95%. What lies to its right is taken for ID."
        ),
        distributions::draw(title, &panels)?,
    ))
}

fn roc_pr(focus: &PromptScores) -> Vec<Figure> {
    let (mut roc, mut pr) = (Vec::new(), Vec::new());
    for set in focus.ood.iter().take(OOD_SETS) {
        let (one, other) = roc_and_pr(&focus.id.scores, &set.scores, CURVE_POINTS);
        let line = |points| Line {
            name: set.name.clone(),
            points,
        };
        roc.push(line(one));
        pr.push(line(other));
    }
    let figure = |id: &str, axes: Axes<'_>, lines: &[Line], what: &str| {
        let svg = curves::draw(axes, lines)?;
        Some(Figure::new(
            id,
            axes.title,
            format!("{what} ID is the positive class; at most {CURVE_POINTS} points per line."),
            svg,
        ))
    };
    let axes = |title, x, y| Axes {
        title,
        x,
        y,
        ends: Some((0.0, 1.0)),
    };
    [
        figure(
            "roc",
            axes("ROC", "false positive rate", "true positive rate"),
            &roc,
            "One line per OOD set.",
        ),
        figure(
            "precision-recall",
            axes("Precision and recall", "recall", "precision"),
            &pr,
            "One line per OOD set.",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The classes that most OOD images above the threshold are taken for.
fn false_positives(metrics: &Metrics, focus: &PromptScores, classes: &[String]) -> Option<Figure> {
    let sets: Vec<&SetScores> = focus.ood.iter().take(OOD_SETS).collect();
    let mut counts = vec![vec![0u64; sets.len()]; classes.len()];
    for (s, set) in sets.iter().enumerate() {
        let threshold = row_of(metrics, focus, &set.name)?.threshold95?;
        for (score, pred) in set.scores.iter().zip(&set.preds) {
            if f64::from(*score) >= threshold
                && let Some(class) = usize::try_from(*pred).ok().and_then(|p| counts.get_mut(p))
            {
                class[s] += 1;
            }
        }
    }
    let mut groups: Vec<Group> = classes
        .iter()
        .zip(counts)
        .map(|(name, counts)| Group {
            name: name.clone(),
            counts,
        })
        .filter(|group| group.counts.iter().any(|count| *count > 0))
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.counts.iter().sum::<u64>()));
    let all = groups.len();
    groups.truncate(CLASSES);
    let names: Vec<String> = sets.iter().map(|set| set.name.clone()).collect();
    let title = "OOD images taken for ID, by predicted class";
    let cut = match all > groups.len() {
        true => format!(" The {} classes with the most of {all}.", groups.len()),
        false => String::new(),
    };
    Some(Figure::new(
        "false-positives",
        title,
        format!("OOD images at or above the threshold whose recall of ID is nearest to 95%.{cut}"),
        bars::draw(title, &names, &groups, Arrangement::Stacked)?,
    ))
}

/// The classes with the most wrong predictions.
fn confusion_figure(focus: &PromptScores, classes: &[String]) -> Option<Figure> {
    let mut wrong: Vec<u64> = vec![0; classes.len()];
    let mut labelled: Vec<u64> = vec![0; classes.len()];
    let place = |class: i32| usize::try_from(class).ok().filter(|c| *c < classes.len());
    for ((label, pred), count) in &focus.id.confusion {
        if let (Some(label), Some(pred)) = (place(*label), place(*pred)) {
            labelled[label] += count;
            if label != pred {
                wrong[label] += count;
                wrong[pred] += count;
            }
        }
    }
    let mut shown: Vec<usize> = (0..classes.len())
        .filter(|class| wrong[*class] > 0)
        .collect();
    let all = shown.len();
    shown.sort_by_key(|class| std::cmp::Reverse(wrong[*class]));
    shown.truncate(CONFUSED);
    shown.sort_unstable();
    let names: Vec<String> = shown.iter().map(|class| classes[*class].clone()).collect();
    let mut cells = Vec::new();
    for ((label, pred), count) in &focus.id.confusion {
        let at = |class: i32| place(class).and_then(|class| shown.binary_search(&class).ok());
        if let (Some(row), Some(column)) = (at(*label), at(*pred)) {
            let share = *count as f64 / labelled[shown[row]].max(1) as f64;
            cells.push(HeatCell {
                row,
                column,
                share,
                colour: if row == column { "f2" } else { "f4" },
                text: count.to_string(),
                title: format!(
                    "{} as {}: {count}, {:.1}%",
                    names[row],
                    names[column],
                    100.0 * share
                ),
            });
        }
    }
    let title = "Confusion of the most confused classes";
    let layout = heat_map::Names {
        title,
        rows: &names,
        columns: &names,
        across: "predicted",
        down: "known",
        cell: (30.0, 22.0),
    };
    let cut = match all > shown.len() {
        true => format!(
            " The {} classes with the most wrong predictions of {all}.",
            shown.len()
        ),
        false => String::new(),
    };
    Some(Figure::new(
        "confusion-matrix",
        title,
        format!(
            "ID images of {}. Blue: right, red: wrong; the darker, the larger the share of the known class. Classes without a wrong prediction are not drawn.{cut}",
            focus.prompt
        ),
        heat_map::draw(layout, &cells)?,
    ))
}

/// The most confident mistakes with their images.
fn mistakes(job: &Job, focus: &PromptScores) -> Section {
    let mut section = Section::new("mistakes", "Most confident mistakes");
    let id: Vec<&Mistake> = focus.id.mistakes.iter().take(SHOWN_MISTAKES).collect();
    let mut ood: Vec<&Mistake> = focus.ood.iter().flat_map(|set| &set.mistakes).collect();
    ood.sort_by(|a, b| b.score.total_cmp(&a.score));
    ood.truncate(SHOWN_MISTAKES);
    let groups = [
        (
            "OOD images with the highest scores, with the class that they were taken for and its probability:",
            ood,
        ),
        (
            "ID images that were classified wrongly with the highest probability:",
            id,
        ),
    ];
    let mut gone = 0;
    for (text, mistakes) in groups {
        if mistakes.is_empty() {
            continue;
        }
        let images = mistake_tiles(job, &mistakes);
        gone += images
            .iter()
            .filter(|tile: &&Tile| tile.image.is_none())
            .count();
        section.text(text);
        section.blocks.push(Block::Mosaic(images));
    }
    if section.blocks.is_empty() {
        section
            .blocks
            .push(Block::Missing("There is no mistake.".to_string()));
    }
    if gone > 0 {
        section.blocks.push(Block::Missing(format!(
            "{gone} of these images are not below the data folder any more, or have changed, so they have no thumbnail; `clipood report RUN --page --data DIR` makes \
             the page again."
        )));
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    fn focus() -> PromptScores {
        let set = |name: &str, scores: &[f32], preds: &[i32]| SetScores {
            name: name.into(),
            scores: scores.to_vec(),
            preds: preds.to_vec(),
            ..SetScores::default()
        };
        let mut id = set("id", &[0.9, 0.8, 0.7], &[0, 1, 1]);
        id.confusion = [((0, 0), 1), ((1, 1), 1), ((2, 1), 1)].into();
        PromptScores {
            prompt: "zero-shot".into(),
            detector: "mcm".into(),
            id,
            ood: vec![
                set("a", &[0.95, 0.1], &[2, 0]),
                set("b", &[0.75, 0.7], &[2, 1]),
            ],
        }
    }

    fn metrics() -> Metrics {
        let row = |set: &str| OodRow {
            prompt: "zero-shot".into(),
            detector: "mcm".into(),
            selection: "fixed".into(),
            ood_dataset: set.into(),
            // A threshold is one of the scores.
            threshold95: Some(f64::from(0.7f32)),
            fpr95: 0.5,
            ..OodRow::default()
        };
        Metrics {
            ood: vec![row("a"), row("b")],
            ..Metrics::default()
        }
    }

    #[test]
    fn false_positives_are_counted_at_the_threshold_by_class_and_set() {
        let classes = ["star", "fish", "moon"].map(String::from);
        let figure = false_positives(&metrics(), &focus(), &classes).unwrap();
        for title in ["moon, a: 1", "moon, b: 1", "fish, b: 1"] {
            assert!(
                figure.svg.contains(&format!("<title>{title}</title>")),
                "{title}: {}",
                figure.svg
            );
        }
        assert!(!figure.svg.contains("star, a: 1"));
    }

    #[test]
    fn confusion_shows_the_classes_with_mistakes_only() {
        let classes = ["star", "fish", "moon"].map(String::from);
        let figure = confusion_figure(&focus(), &classes).unwrap();
        assert!(
            figure.svg.contains("moon as fish: 1, 100.0%")
                && figure.svg.contains("fish as fish: 1")
        );
        assert!(!figure.svg.contains(">star<"), "{}", figure.svg);
        let mut right = focus();
        right.id.confusion = [((0, 0), 5)].into();
        assert!(confusion_figure(&right, &classes).is_none());
    }

    #[test]
    fn each_set_has_a_panel_and_a_line() {
        let figure = distribution(&metrics(), &focus()).unwrap();
        assert_eq!(figure.svg.matches("FPR95 50.0%").count(), 2);
        let curves = roc_pr(&focus());
        assert_eq!(curves.len(), 2);
        assert_eq!(curves[0].svg.matches("<polyline").count(), 2);
    }
}
