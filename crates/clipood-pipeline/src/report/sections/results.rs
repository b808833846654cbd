//! The results: interval plot, table of averages with badges, published figures, curves against the number of shots.

use clipood_core::Method;

use super::super::console::{deviation, notes, short_table, shots_cell};
use super::super::figures::{Figure, intervals, shots as shots_chart};
use super::super::headline::{
    headlines, is_average, is_oracle, is_transductive, name_of, ood_sets, rule, spreads,
};
use super::super::page::{Block, Section};
use super::super::published::{PUBLISHED_NOTE, published, published_table};
use super::super::table::{Cell, Table};
use super::super::views::{By, View, report_table};
use super::super::warnings::warnings;
use crate::columns::DUAL_BASE;
use crate::error::Result;
use crate::job::Job;
use crate::metrics::{AVERAGE, DUAL_PATTERN, Metrics};
use crate::tables::SummaryRow;

/// What the detectors of a run need, by name and method.
pub struct Badges<'a> {
    job: &'a Job,
}

impl<'a> Badges<'a> {
    /// The needs of the run's detectors.
    pub fn of(job: &'a Job) -> Self {
        Self { job }
    }

    /// The badges of a line of the tables.
    pub fn line(&self, row: &SummaryRow) -> Vec<&'static str> {
        let mut badges = Vec::new();
        if is_oracle(&row.selection) {
            badges.push("oracle");
        }
        if is_transductive(&row.selection, row.scaling.as_deref()) {
            badges.push("transductive");
        }
        let Ok(method) = row.method.parse::<Method>() else {
            return badges;
        };
        let column = match row.detector.as_str() {
            DUAL_PATTERN => DUAL_BASE,
            other => other,
        };
        let mut columns = self.job.experiment.columns.iter();
        let spec = columns
            .find(|c| c.name == column)
            .and_then(|c| c.spec(method).ok().flatten());
        let needs = spec.map(|spec| spec.needs());
        if method.uses_shots() || needs.as_ref().is_some_and(|n| n.shots) {
            badges.push("needs training");
        }
        if needs.is_some_and(|n| n.patches) {
            badges.push("needs patches");
        }
        badges
    }
}

/// The section with the results at its top.
///
/// # Errors
/// A file of published figures that cannot be read.
pub fn results(job: &Job, metrics: &Metrics, badges: &Badges<'_>) -> Result<Section> {
    let mut section = Section::new("results", "Results");
    for warning in warnings(metrics) {
        section.blocks.push(Block::Warning(format!("{warning}.")));
    }
    section.table(
        "methods",
        "Methods under the headline detector",
        &short_table(metrics),
    );
    section.text(
        "AUROC and FPR95 are averages over the OOD sets, with one standard deviation over seeds or, for a single prompt set, the 95% bootstrap \
         interval. The best fixed detector is the one with the largest AUROC of those with nothing chosen; which one it is was seen on the tested images.",
    );
    section.figure(
        interval_plot(metrics),
        "No detector has an average over the OOD sets.",
    );
    let averages = averages_table(metrics, badges, |set| set == AVERAGE);
    section.table(
        "averages",
        "Every detector, averages over the OOD sets",
        &averages,
    );
    for note in notes(&averages) {
        section.text(note);
    }
    let sets = ood_sets(&metrics.ood);
    let by_set = averages_table(metrics, badges, |set| set != AVERAGE);
    section.folded(
        &format!("Each of the {} OOD sets, and groups of them", sets.len()),
        vec![Block::table(
            "sets",
            "Every detector on each OOD set",
            &by_set,
        )],
    );
    let published = published(job)?;
    if !published.is_empty() {
        let table = published_table(metrics, &published);
        section.table(
            "published",
            "Published figures beside the measured ones",
            &table,
        );
        for note in notes(&table) {
            section.text(note);
        }
        section.text(PUBLISHED_NOTE);
    }
    Ok(section)
}

fn interval_plot(metrics: &Metrics) -> Option<Figure> {
    let rows = metrics
        .summary
        .iter()
        .filter(|row| row.ood_dataset == AVERAGE);
    let entries: Vec<intervals::Entry> = rows
        .map(|row| intervals::Entry {
            name: line_name(row),
            value: row.auroc,
            spread: spreads(metrics, row).0,
            hollow: is_oracle(&row.selection)
                || is_transductive(&row.selection, row.scaling.as_deref()),
        })
        .collect();
    let title = "AUROC, averages over the OOD sets";
    let left_out = match entries.len().saturating_sub(intervals::ROWS) {
        0 => String::new(),
        more => format!(" The {more} rows with the smallest values are not drawn."),
    };
    Some(Figure::new(
        "intervals",
        title,
        format!(
            "Sorted, in percent. Bars: one standard deviation over seeds or, for a single prompt set, the 95% bootstrap interval. Hollow: chosen on the \
             tested images, or dependent on other test images; no results. Table metrics/summary.parquet.{left_out}"
        ),
        intervals::draw(title, &entries)?,
    ))
}

/// `coop with 16 shots · mcm`, with the selection if something was chosen.
fn line_name(row: &SummaryRow) -> String {
    let name = format!("{} · {}", name_of(&row.method, row.shots), row.detector);
    match (row.selection.as_str(), row.scaling.as_deref()) {
        ("fixed", None) => name,
        (selection, scaling) => format!("{name} · {}", rule(selection, scaling)),
    }
}

/// One row per line of the summary with its badges.
fn averages_table(metrics: &Metrics, badges: &Badges<'_>, set: impl Fn(&str) -> bool) -> Table {
    let mut rows: Vec<&SummaryRow> = metrics
        .summary
        .iter()
        .filter(|row| set(&row.ood_dataset))
        .collect();
    // Averages of groups first.
    rows.sort_by_key(|row| !is_average(&row.ood_dataset));
    let sets = rows.iter().any(|row| row.ood_dataset != AVERAGE);
    let chooses = rows
        .iter()
        .any(|row| row.selection != "fixed" || row.scaling.is_some());
    let mut columns = vec![
        ("method", "method"),
        ("shots", "shots"),
        ("detector", "detector"),
    ];
    if chooses {
        columns.push(("selection", "selection"));
    }
    if sets {
        columns.push(("OOD set", "ood_dataset"));
    }
    columns.extend([
        ("AUROC", "auroc"),
        ("FPR95", "fpr95"),
        ("AUPR-in", "aupr_in"),
        ("AUPR-out", "aupr_out"),
        ("about", "badges"),
    ]);
    let mut table = Table::new(&columns);
    for row in rows {
        let (auroc, fpr95) = spreads(metrics, row);
        let mut cells = vec![
            Cell::text(&row.method),
            shots_cell(row.shots),
            Cell::text(&row.detector),
        ];
        if chooses {
            cells.push(Cell::text(rule(&row.selection, row.scaling.as_deref())));
        }
        if sets {
            cells.push(Cell::text(&row.ood_dataset));
        }
        cells.extend([
            Cell::Rate(row.auroc, auroc),
            Cell::Rate(row.fpr95, fpr95),
            Cell::Rate(row.aupr_in, deviation(row.aupr_in_std)),
            Cell::Rate(row.aupr_out, deviation(row.aupr_out_std)),
            Cell::Badges(badges.line(row)),
        ]);
        table.rows.push(cells);
    }
    table
}

/// The curves against the number of shots; `None` for a single number of shots.
pub fn shots(metrics: &Metrics) -> Option<Section> {
    let figure = |id: &str, title: &str, of: fn(&SummaryRow) -> (f64, Option<f64>)| {
        let svg = shots_chart::draw(title, &lines(metrics, of))?;
        Some(Block::Figure(Figure::new(
            id,
            title,
            "Mean over seeds, bars: one standard deviation; dashed: without shots. Table metrics/summary.parquet.",
            svg,
        )))
    };
    let figures: Vec<Block> = [
        figure("shots-auroc", "AUROC, average over the OOD sets", |r| {
            (r.auroc, r.auroc_std)
        }),
        figure("shots-fpr95", "FPR95, average over the OOD sets", |r| {
            (r.fpr95, r.fpr95_std)
        }),
        figure("shots-top1", "ID top-1", |r| (r.top1, r.top1_std)),
    ]
    .into_iter()
    .flatten()
    .collect();
    if figures.is_empty() {
        return None;
    }
    let mut section = Section::new("shots", "Against the number of shots");
    section
        .text("Each method under its headline detector, which is named if methods differ in it.");
    section.blocks.push(Block::Row(figures));
    Some(section)
}

/// The lines of a chart against the number of shots.
fn lines(
    metrics: &Metrics,
    figure: fn(&SummaryRow) -> (f64, Option<f64>),
) -> Vec<shots_chart::Series> {
    let all = headlines(metrics, None);
    let several = all
        .windows(2)
        .any(|pair| pair[0].row.detector != pair[1].row.detector);
    let mut series: Vec<shots_chart::Series> = Vec::new();
    for one in &all {
        let name = match several {
            true => format!("{} ({})", one.row.method, one.row.detector),
            false => one.row.method.clone(),
        };
        let (mean, std) = figure(one.row);
        let point = (
            one.row.shots.unwrap_or(0),
            100.0 * mean,
            100.0 * std.unwrap_or(0.0),
        );
        match series.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => series.push(shots_chart::Series {
                name,
                points: vec![point],
            }),
        }
    }
    series
        .iter_mut()
        .for_each(|line| line.points.sort_by_key(|point| point.0));
    series
}

/// All rows by prompt set, folded.
///
/// # Errors
/// None for tables that were read.
pub fn everything(metrics: &Metrics) -> Result<Section> {
    let all = |by: By| {
        report_table(
            metrics,
            &View {
                detector: Some("all".to_string()),
                by,
            },
        )
    };
    let mut section = Section::new("tables", "All tables");
    section.folded(
        "Every prompt set and detector",
        vec![Block::table(
            "prompt-sets",
            "Averages over the OOD sets by prompt set",
            &all(By::Seed)?,
        )],
    );
    section.folded(
        "Against the number of shots",
        vec![Block::table(
            "by-shots",
            "Every detector by number of shots",
            &all(By::Shots)?,
        )],
    );
    Ok(section)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_without_the_first_detector_is_drawn_with_its_own() {
        let summary = |method: &str, detector: &str, auroc: f64| SummaryRow {
            method: method.into(),
            detector: detector.into(),
            ood_dataset: AVERAGE.into(),
            selection: "fixed".into(),
            auroc,
            ..SummaryRow::default()
        };
        let metrics = Metrics {
            summary: vec![
                summary("zero-shot", "mcm", 0.75),
                summary("zero-shot", "msp", 0.5),
                summary("linear-probe", "msp", 0.875),
            ],
            ..Metrics::default()
        };
        let lines = lines(&metrics, |row| (row.auroc, None));
        let lines: Vec<(&str, f64)> = lines
            .iter()
            .map(|l| (l.name.as_str(), l.points[0].1))
            .collect();
        assert_eq!(
            lines,
            [("zero-shot (mcm)", 75.0), ("linear-probe (msp)", 87.5)]
        );
    }
}
