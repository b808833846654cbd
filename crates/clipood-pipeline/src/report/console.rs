//! What a run says on the console: a short table, transductive detectors apart, published figures beside it, warnings.

use clipood_core::{PublishedSection, counted};

use super::headline::{
    Headline, ORACLE_NOTE, TRANSDUCTIVE_MARK, TRANSDUCTIVE_NOTE, headlines, is_oracle,
    is_transductive, ood_sets, spreads,
};
use super::published::{measured_beside, published_table};
use super::table::{Cell, Spread, Table};
use super::warnings::warnings;
use crate::metrics::{AVERAGE, Metrics};

pub(super) fn shots_cell(shots: Option<u32>) -> Cell {
    Cell::Count(u64::from(shots.unwrap_or(0)))
}

pub(super) fn deviation(std: Option<f64>) -> Spread {
    std.map_or(Spread::None, Spread::Deviation)
}

/// One row per method and number of shots: accuracy, the headline detector, and the best detector with nothing chosen.
pub fn short_table(metrics: &Metrics) -> Table {
    let all = headlines(metrics, None);
    let several = all
        .windows(2)
        .any(|pair| pair[0].row.detector != pair[1].row.detector);
    let mut columns = vec![
        ("method", "method"),
        ("shots", "shots"),
        ("seeds", "seeds"),
        ("ID top-1", "top1"),
    ];
    if several {
        columns.push(("detector", "detector"));
    }
    columns.extend([
        ("AUROC", "auroc"),
        ("FPR95", "fpr95"),
        ("best fixed detector", "best_detector"),
        ("its AUROC", "best_auroc"),
    ]);
    let mut table = Table::new(&columns);
    table.rows = all.iter().map(|one| short_row(one, several)).collect();
    table
}

fn short_row(one: &Headline<'_>, with_detector: bool) -> Vec<Cell> {
    let row = one.row;
    let (auroc, fpr95) = one.spreads();
    let mut cells = vec![
        Cell::text(&row.method),
        shots_cell(row.shots),
        Cell::Count(u64::from(row.seeds)),
        Cell::Rate(row.top1, deviation(row.top1_std)),
    ];
    if with_detector {
        cells.push(Cell::text(&row.detector));
    }
    cells.extend([Cell::Rate(row.auroc, auroc), Cell::Rate(row.fpr95, fpr95)]);
    cells.extend(match one.best {
        Some(best) => [
            Cell::text(&best.detector),
            Cell::Rate(best.auroc, deviation(best.auroc_std)),
        ],
        None => [Cell::Blank, Cell::Blank],
    });
    cells
}

/// The short table of a run with what it is about, published figures beside those of the run, and its warnings.
pub fn console(metrics: &Metrics, published: &[PublishedSection]) -> String {
    let sets = ood_sets(&metrics.ood);
    let over = match sets.as_slice() {
        [one] => format!("OOD set {one}"),
        several => format!("averages over {} OOD sets", several.len()),
    };
    let headlines = headlines(metrics, None);
    let detector = match headlines.split_first() {
        Some((first, rest))
            if rest
                .iter()
                .all(|one| one.row.detector == first.row.detector) =>
        {
            format!("detector {}", first.row.detector)
        }
        _ => "the detector of each row".to_string(),
    };
    let seeds = metrics.summary.iter().any(|row| row.seeds > 1);
    let single = metrics.summary.iter().any(|row| row.seeds == 1);
    let spread = match (seeds, single) {
        (true, true) => {
            "one standard deviation over seeds, or the 95% interval of a single prompt set"
        }
        (true, false) => "one standard deviation over seeds",
        (false, _) => "95% intervals",
    };
    let mut text = format!(
        "{detector}, {over}, in percent (ID positive, FPR at the recall nearest to 95%; {spread}):\n\n{}",
        short_table(metrics).to_text()
    );
    text += "\nbest fixed detector: the largest AUROC of those with nothing chosen; which one it is was seen on the tested images\n";
    let streams = transductive_table(metrics);
    if !streams.rows.is_empty() {
        text += &format!("\n{}\n{TRANSDUCTIVE_NOTE}\n", streams.to_text());
    }
    text += &beside_published(metrics, published);
    for warning in warnings(metrics) {
        text += &format!("\nwarning: {warning}\n");
    }
    text
}

/// The published figures of which the run has a row, and how many others there are; nothing if the recipe names none.
fn beside_published(metrics: &Metrics, published: &[PublishedSection]) -> String {
    if published.is_empty() {
        return String::new();
    }
    let table = measured_beside(published_table(metrics, published));
    let others = published.len() - table.rows.len();
    let mut text = match table.rows.is_empty() {
        true => String::new(),
        false => format!(
            "\npublished beside measured, in percent:\n\n{}",
            table.to_text()
        ),
    };
    let sources = "`clipood report RUN --published` prints all with their sources";
    text += &match (table.rows.len(), others) {
        (0, _) => {
            let figures = counted(others, "published figure", "published figures");
            format!("\n{figures}, none of a row of this run; {sources}\n")
        }
        (_, 0) => format!("\n{sources}\n"),
        _ => {
            let figures = counted(
                others,
                "further published figure has",
                "further published figures have",
            );
            format!("\n{figures} no row in this run; {sources}\n")
        }
    };
    text
}

/// One row per method, number of shots and detector whose scores depend on the other test images, averaged over the OOD sets, with
/// nothing chosen.
fn transductive_table(metrics: &Metrics) -> Table {
    let mut table = Table::new(&[
        ("method", "method"),
        ("shots", "shots"),
        ("transductive detector", "detector"),
        ("AUROC", "auroc"),
        ("FPR95", "fpr95"),
    ]);
    let rows = metrics.summary.iter().filter(|row| {
        row.ood_dataset == AVERAGE
            && row.selection == "fixed"
            && is_transductive(&row.selection, row.scaling.as_deref())
    });
    for row in rows {
        let (auroc, fpr95) = spreads(metrics, row);
        table.rows.push(vec![
            Cell::text(&row.method),
            shots_cell(row.shots),
            Cell::text(format!("{}{TRANSDUCTIVE_MARK}", row.detector)),
            Cell::Rate(row.auroc, auroc),
            Cell::Rate(row.fpr95, fpr95),
        ]);
    }
    table
}

/// What a table that lists selections needs below it.
pub fn notes(table: &Table) -> Vec<&'static str> {
    let has = |marked: &dyn Fn(&str) -> bool| {
        let mut cells = table.rows.iter().flatten();
        cells.any(|cell| matches!(cell, Cell::Text(text) if marked(text)))
    };
    let notes: [(bool, &str); 2] = [
        (has(&is_oracle), ORACLE_NOTE),
        (
            has(&|text| text.ends_with(TRANSDUCTIVE_MARK)),
            TRANSDUCTIVE_NOTE,
        ),
    ];
    notes
        .into_iter()
        .filter(|(shown, _)| *shown)
        .map(|(_, note)| note)
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::tables::{AccuracyRow, OodRow, StreamRow, SummaryRow};

    pub fn metrics() -> Metrics {
        let row = |detector: &str, selection: &str, ood: &str, auroc: f64| OodRow {
            prompt: "zero-shot".into(),
            method: "zero-shot".into(),
            detector: detector.into(),
            selection: selection.into(),
            ood_dataset: ood.into(),
            n_id: 10,
            auroc,
            auroc_lo: Some(auroc - 0.125),
            auroc_hi: Some(auroc + 0.125),
            score_resolution: 1.0,
            ..OodRow::default()
        };
        let ood = vec![
            row("mcm", "fixed", "a & b", 0.75),
            row("mcm", "fixed", AVERAGE, 0.75),
            row("msp", "fixed", "a & b", 0.875),
            row("msp", "fixed", AVERAGE, 0.875),
            row("msp", "oracle", "a & b", 0.625),
        ];
        let summary = ood.iter().map(|r| SummaryRow {
            method: r.method.clone(),
            detector: r.detector.clone(),
            selection: r.selection.clone(),
            ood_dataset: r.ood_dataset.clone(),
            auroc: r.auroc,
            top1: 0.625,
            seeds: 1,
            ..SummaryRow::default()
        });
        Metrics {
            summary: summary.collect(),
            accuracy: vec![AccuracyRow {
                prompt: "zero-shot".into(),
                top1: 0.625,
                ..AccuracyRow::default()
            }],
            ood,
            ..Metrics::default()
        }
    }

    #[test]
    fn the_default_is_one_row_per_method() {
        let text = console(&metrics(), &[]);
        let row = text
            .lines()
            .find(|line| line.starts_with("zero-shot"))
            .unwrap();
        for word in ["62.50", "75.00 (62.50-87.50)", "msp", "87.50"] {
            assert!(row.contains(word), "no {word} in: {row}");
        }
        assert_eq!(text.matches("\nzero-shot").count(), 1, "{text}");
        assert!(
            !text.contains("warning") && !text.contains("oracle"),
            "{text}"
        );
    }

    #[test]
    fn published_figures_stand_below_the_short_table() {
        let figure = |detector: &str| PublishedSection {
            method: Some(clipood_core::Method::ZeroShot),
            other: None,
            shots: None,
            detector: detector.into(),
            ood: AVERAGE.into(),
            auroc: Some(70.0),
            fpr95: None,
            fpr95_openood: None,
            transductive: false,
            source: "a paper".into(),
        };
        let text = console(&metrics(), &[figure("mcm"), figure("knn")]);
        let line = text.lines().find(|line| line.contains("70.00"));
        let line = line.unwrap();
        assert!(line.contains("75.00") && line.contains("+5.00"), "{text}");
        assert!(
            text.contains("\n1 further published figure has no row"),
            "{text}"
        );
        assert!(!text.contains("a paper") && !text.contains("knn"), "{text}");
        let text = console(&metrics(), &[figure("knn")]);
        assert!(text.contains("\n1 published figure, none"), "{text}");
        assert!(!console(&metrics(), &[]).contains("published"));
    }

    #[test]
    fn rows_that_saw_other_images_stand_apart_with_their_deviation() {
        let mut metrics = metrics();
        let adapted = OodRow {
            detector: "oodd".into(),
            scaling: Some("transductive".into()),
            auroc: 0.9375,
            auroc_lo: None,
            auroc_hi: None,
            ..metrics.ood[1].clone()
        };
        metrics.summary.push(SummaryRow {
            detector: "oodd".into(),
            scaling: adapted.scaling.clone(),
            auroc: adapted.auroc,
            ..metrics.summary[1].clone()
        });
        metrics.ood.push(adapted);
        for (order_seed, auroc) in [(0, 0.9375 - 0.0625), (1, 0.9375), (2, 0.9375 + 0.0625)] {
            metrics.streams.push(StreamRow {
                prompt: "zero-shot".into(),
                detector: "oodd".into(),
                selection: "fixed".into(),
                ood_dataset: AVERAGE.into(),
                order_seed,
                auroc,
                ..StreamRow::default()
            });
        }
        let text = console(&metrics, &[]);
        let line = text.lines().find(|line| line.contains("oodd†"));
        assert!(
            line.is_some_and(|line| line.contains("93.75 ± 6.25")),
            "{text}"
        );
        assert!(text.contains(TRANSDUCTIVE_NOTE), "{text}");
        // Never the best of the detectors that judge an image by itself.
        assert!(text.contains("msp"), "{text}");
        assert_eq!(text.matches("oodd").count(), 1, "{text}");
    }
}
