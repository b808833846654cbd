//! Methods compared on the same bootstrap resamples: with each other, and with zero-shot.

use clipood_ood::metrics::{BootstrapOptions, PairedDifference, Resamples, ScorePair, ood_metrics};

use super::super::bounds::{COMPARED_IMAGES, ROWS};
use super::super::figures::Figure;
use super::super::figures::heat_map::{HeatCell, Names, draw};
use super::super::page::{Block, Section};
use super::super::scored::PromptScores;
use super::super::table::{Cell, Spread, Table};
use crate::error::Result;
use crate::job::Job;
use crate::metrics::Metrics;

/// The difference of two prompt sets: the first less the second.
struct Difference {
    first: usize,
    second: usize,
    auroc: f64,
    fpr95: f64,
    intervals: PairedDifference,
}

/// The section.
///
/// # Errors
/// Scores that are NaN.
pub fn comparisons(job: &Job, metrics: &Metrics, lines: &[PromptScores]) -> Result<Section> {
    let mut section = Section::new("comparisons", "Comparisons on the same images");
    match differences(job, lines)? {
        Err(reason) => section.blocks.push(Block::Missing(reason)),
        Ok(found) => {
            section.figure(matrix(lines, &found), "There is only one method.");
            section.folded(
                "The differences as a table",
                vec![Block::table(
                    "pairwise",
                    "Differences between methods",
                    &difference_table(lines, &found),
                )],
            );
        }
    }
    if metrics.paired.is_empty() {
        section.blocks.push(Block::Missing(
            "No trained prompt set was compared with zero-shot: the recipe has no zero-shot or nothing that is trained, or no bootstrap.".to_string(),
        ));
    } else {
        let title = "Differences from the baseline, by prompt set and OOD set";
        let block = Block::table("paired", title, &paired_table(metrics));
        match metrics.paired.len() > 12 {
            true => section.folded(title, vec![block]),
            false => section.blocks.push(block),
        }
    }
    Ok(section)
}

/// The differences between all lines, or the reason why there are none.
fn differences(
    job: &Job,
    lines: &[PromptScores],
) -> Result<std::result::Result<Vec<Difference>, String>> {
    let metrics = &job.experiment.recipe.metrics;
    if lines.len() < 2 {
        return Ok(Err(
            "There is only one method, so there is nothing to compare it with.".to_string(),
        ));
    }
    if metrics.bootstrap == 0 {
        return Ok(Err(
            "The recipe asks for no bootstrap, so differences have no intervals.".to_string(),
        ));
    }
    let largest = lines[0]
        .ood
        .iter()
        .map(|set| set.scores.len())
        .max()
        .unwrap_or(0)
        + lines[0].id.scores.len();
    if largest > COMPARED_IMAGES {
        return Ok(Err(format!(
            "With {largest} images, methods are compared with zero-shot only (limit: {COMPARED_IMAGES})."
        )));
    }
    let options = BootstrapOptions {
        resamples: metrics.bootstrap,
        seed: metrics.bootstrap_seed,
        ..BootstrapOptions::default()
    };
    let sets = lines[0].ood.len();
    let mut drawn = Vec::new();
    let mut figures = vec![(0.0, 0.0); lines.len()];
    for set in 0..sets {
        let pairs: Vec<ScorePair<'_>> = lines
            .iter()
            .map(|line| ScorePair {
                id: &line.id.scores,
                ood: &line.ood[set].scores,
            })
            .collect();
        for (pair, figure) in pairs.iter().zip(&mut figures) {
            let own = ood_metrics(pair.id, pair.ood)?;
            figure.0 += own.auroc / sets as f64;
            figure.1 += own.fpr95 / sets as f64;
        }
        drawn.push(Resamples::draw(&pairs, &options)?);
    }
    let Some(average) = Resamples::average(&drawn.iter().collect::<Vec<_>>()) else {
        return Ok(Err("There is no OOD set.".to_string()));
    };
    let mut all = Vec::new();
    for first in 0..lines.len() {
        for second in (0..lines.len()).filter(|second| *second != first) {
            all.push(Difference {
                first,
                second,
                auroc: figures[first].0 - figures[second].0,
                fpr95: figures[first].1 - figures[second].1,
                intervals: average.difference(first, second),
            });
        }
    }
    Ok(Ok(all))
}

/// `coop-16shot-seed1`, with the detector if lines differ in it.
fn names(lines: &[PromptScores]) -> Vec<String> {
    let several = lines
        .windows(2)
        .any(|pair| pair[0].detector != pair[1].detector);
    let name = |line: &PromptScores| match several {
        true => format!("{} ({})", line.prompt, line.detector),
        false => line.prompt.clone(),
    };
    lines.iter().map(name).collect()
}

fn matrix(lines: &[PromptScores], found: &[Difference]) -> Option<Figure> {
    let names = names(lines);
    let largest = found.iter().map(|d| d.auroc.abs()).fold(1e-9, f64::max);
    let cell = |d: &Difference| {
        let interval = d.intervals.auroc;
        let beyond = interval.lo > 0.0 || interval.hi < 0.0;
        HeatCell {
            row: d.first,
            column: d.second,
            share: d.auroc.abs() / largest,
            colour: if d.auroc >= 0.0 { "f2" } else { "f4" },
            text: format!("{:+.1}{}", 100.0 * d.auroc, if beyond { "*" } else { "" }),
            title: format!(
                "{} less {}: {:+.2} ({:+.2} to {:+.2})",
                names[d.first],
                names[d.second],
                100.0 * d.auroc,
                100.0 * interval.lo,
                100.0 * interval.hi
            ),
        }
    };
    let title = "Differences of AUROC between methods";
    let layout = Names {
        title,
        rows: &names,
        columns: &names,
        across: "less this one",
        down: "this one",
        cell: (54.0, 26.0),
    };
    let cells: Vec<HeatCell> = found.iter().map(cell).collect();
    Some(Figure::new(
        "differences",
        title,
        format!(
            "Row less column, percentage points, averages over the OOD sets under {}. * the 95% interval of the difference, on the same resamples of the \
             same images, excludes 0. Of each method the prompt set with the most shots and the first seed; tables below scores/.",
            detectors(lines)
        ),
        draw(layout, &cells)?,
    ))
}

/// The detectors of the lines in words.
fn detectors(lines: &[PromptScores]) -> String {
    let mut names: Vec<&str> = lines.iter().map(|line| line.detector.as_str()).collect();
    names.dedup();
    match names.as_slice() {
        [one] => (*one).to_string(),
        _ => "the detector named with each".to_string(),
    }
}

fn difference_table(lines: &[PromptScores], found: &[Difference]) -> Table {
    let names = names(lines);
    let mut table = Table::new(&[
        ("prompt set", "prompt"),
        ("less", "baseline"),
        ("AUROC", "auroc_diff"),
        ("FPR95", "fpr95_diff"),
    ]);
    for d in found.iter().filter(|d| d.first > d.second) {
        let (auroc, fpr95) = (d.intervals.auroc, d.intervals.fpr95);
        table.rows.push(vec![
            Cell::text(&names[d.first]),
            Cell::text(&names[d.second]),
            Cell::Difference(d.auroc, Spread::Interval(auroc.lo, auroc.hi)),
            Cell::Difference(d.fpr95, Spread::Interval(fpr95.lo, fpr95.hi)),
        ]);
    }
    table
}

/// One row per trained prompt set and OOD set: the difference from the baseline on the same resamples.
fn paired_table(metrics: &Metrics) -> Table {
    let mut table = Table::new(&[
        ("prompt set", "prompt"),
        ("less", "baseline"),
        ("OOD set", "ood_dataset"),
        ("detector", "detector"),
        ("AUROC", "auroc_diff"),
        ("FPR95", "fpr95_diff"),
    ]);
    for row in metrics.paired.iter().take(10 * ROWS) {
        table.rows.push(vec![
            Cell::text(&row.prompt),
            Cell::text(&row.baseline),
            Cell::text(&row.ood_dataset),
            Cell::text(&row.detector),
            Cell::Difference(
                row.auroc_diff,
                Spread::Interval(row.auroc_diff_lo, row.auroc_diff_hi),
            ),
            Cell::Difference(
                row.fpr95_diff,
                Spread::Interval(row.fpr95_diff_lo, row.fpr95_diff_hi),
            ),
        ]);
    }
    table
}
